"""Background and one structure: anything else is refused wherever it comes in, for it would be scored as a union."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from fedbcs_monai.backends.local import train
from fedbcs_monai.bundle import write_bundle
from fedbcs_monai.cli import main
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import write_sum
from fedbcs_monai.metrics.cases import Segmentation
from fedbcs_monai.runs.model_io import load_trained
from fedbcs_monai.runs.reader import read_run


@pytest.mark.parametrize("task", ["nuclei", "prostate"])
@pytest.mark.parametrize(
    ("override", "said"),
    [
        ({"network_def::out_channels": 3}, "network_def::out_channels is 3"),
        ({"network_def::out_channels": 1}, "network_def::out_channels is 1: .*; give 2"),
        ({"network_def::out_channels": "2"}, "network_def::out_channels is '2'"),
        ({"classes": ["background", "zone", "rest"]}, "classes is .*'rest'.*: only background and one structure"),
        ({"classes": "ab"}, "classes is 'ab'"),
    ],
)
def test_a_configuration_of_other_classes_is_refused_in_one_line(task, override, said):
    with pytest.raises(UserError, match=said) as caught:
        load_config(task, override)
    assert len(str(caught.value).splitlines()) == 1


def test_a_configuration_may_leave_its_classes_unnamed():
    assert load_config("nuclei", {"classes": None, "network_def::out_channels": 2}).classes == []


def test_an_expression_is_no_number_of_channels(tiny):
    with pytest.raises(UserError, match=r"network_def::out_channels is '\$2 \+ 1'"):
        train(tiny(**{"network_def::out_channels": "$2 + 1"}))


def test_a_run_folder_of_other_classes_is_refused_by_whatever_reads_it(tiny, tmp_path, capsys):
    run = train(tiny(rounds=1))
    config = json.loads((run / "config.json").read_text())
    config["network_def"]["out_channels"] = 3
    (run / "config.json").write_text(json.dumps(config))
    write_sum(run / "config.json")
    for read in (read_run, load_trained, lambda folder: write_bundle(folder, tmp_path / "bundle")):
        with pytest.raises(UserError, match="network_def::out_channels is 3"):
            read(run)
    assert main(["evaluate", str(run), "-q"]) == 2
    assert main(["report", str(run), "-q"]) == 2
    assert capsys.readouterr().err.count("only background and one structure") == 2


@pytest.mark.parametrize(
    ("values", "mask"), [([0, 1, 0], [0, 1, 0]), ([0, 255, 255], [0, 1, 1]), ([0, 0, 0], [0, 0, 0])]
)
def test_a_label_of_one_structure_is_a_mask(values, mask):
    """Whatever a configuration reads labels with."""
    found = _segmentation(values).reference({"label": "somewhere.png"})
    assert found.tolist() == [[bool(value) for value in mask]]


@pytest.mark.parametrize("values", [[0, 1, 2], [2, 1, 1], [0, 128, 255]])
def test_a_label_of_several_classes_is_not_scored(values):
    with pytest.raises(UserError, match=r"somewhere\.png: holds several classes; only background and one structure"):
        _segmentation(values).reference({"label": "somewhere.png"})


def _segmentation(values):
    """Reads a label of one line of pixels."""
    read = {"label": torch.tensor([[values]])}
    return Segmentation(lambda item: read, None, None, None, torch.device("cpu"))


def test_the_site_check_refuses_labels_of_several_classes(tmp_path, capsys):
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (6, 5, 3), np.uint8)
        mask = np.zeros((6, 5), np.uint8)
        mask[1:3, 1:3], mask[4, 4] = 1, 2
        for kind, array in (("images", pixels), ("masks", mask)):
            (tmp_path / "north" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "north" / kind / f"{number}.png")
    assert main(["sites", str(tmp_path)]) == 2
    assert "2.png: holds 0, 1, 2, ...; expected 0 and 1" in capsys.readouterr().err
