"""Rehearsal: what a configuration gets wrong is one line before anything is written, and nothing remembers it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from fedbcs_monai import methods
from fedbcs_monai.backends.local import plan_training, train
from fedbcs_monai.cli import main
from fedbcs_monai.data import SiteData
from fedbcs_monai.errors import UserError, explained
from fedbcs_monai.runs.dry_run import MAX_CASES, try_one_step
from fedbcs_monai.runs.setup import set_up

SMALL = ["--device", "cpu", "--batch_size", "2", "--threads", "1", "--network_def::features", "[8, 8, 16, 16, 16]"]
NUCLEI = [*SMALL, "--augmentation::transforms::0::roi_size", "[32, 32]", "--inferer::roi_size", "[64, 64]"]
PROSTATE = [*SMALL, "--preprocessing::transforms::2::spatial_size", "[32, 32, -1]"]
CROPS = {
    "_target_": "RandCropByPosNegLabeld", "keys": ["image", "label"], "label_key": "label", "spatial_size": [32, 32],
    "num_samples": 2,
}  # fmt: skip

WRONG = [
    ("nuclei", ["--optimizer::lr", "abc"], "optimizer::lr: torch.optim.SGD takes numbers"),
    ("nuclei", ["--network_def::in_channels", "1"], "in_channels is 1, and a sample has 3 channels"),
    ("nuclei", ["--network_def::spatial_dims", "3"], "spatial_dims is 3, and a sample has 2 spatial axes"),
    ("nuclei", ["--slicing::count", "5"], "names something inside 'slicing'"),
    (
        "nuclei",
        ["--network_def::norm", "instance", "--augmentation::transforms::0::roi_size", "[16, 16]"],
        "a norm sees a single pixel at the bottleneck",
    ),
    (
        "nuclei",
        ["--network_def::norm", "batch", "--augmentation::transforms::0::roi_size", "[16, 16]", "--batch_size", "3"],
        "a norm sees a single pixel at the bottleneck",  # 4 cases: the second batch is one image
    ),
    ("nuclei", ["--method::_target_", "fedbcs_monai.methods.ClientContext"], "ClientContext"),
    ("nuclei", ["--method", "3"], "method"),
    ("nuclei", ["--optimizer::lrr", "1"], "did you mean 'lr'"),
    ("prostate", ["--slicing::count", "5"], "in_channels is 3, and a sample has 5 channels"),
    ("prostate", ["--inferer::count", "5"], "inferer::count is 5 and network_def::in_channels is 3"),
    ("prostate", ["--slicing", "null"], "spatial_dims is 2, and a sample has 3 spatial axes"),
]


def arguments(experiment, more, nuclei_sites, prostate_sites):
    nuclei = experiment.startswith("nuclei")
    small = list(NUCLEI if nuclei else PROSTATE)
    for at in range(0, len(more), 2):  # an option is given once
        if more[at] in small:
            del small[small.index(more[at]) : small.index(more[at]) + 2]
    return ["train", experiment, "--sites", str(nuclei_sites if nuclei else prostate_sites), *small, *more]


@pytest.mark.parametrize("dry", [True, False], ids=["dry run", "train"])
@pytest.mark.parametrize(("experiment", "more", "said"), WRONG)
def test_a_mistake_is_one_line_and_nothing_is_written(
    experiment, more, said, dry, nuclei_sites, prostate_sites, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    words = arguments(experiment, more, nuclei_sites, prostate_sites)
    assert main([*words, "-q", *(["--dry-run"] if dry else [])]) == 2
    error = capsys.readouterr().err.strip()
    assert said in error
    assert len(error.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sound_one_says_what_would_run_and_leaves_nothing_behind(nuclei_sites, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = arguments("nuclei", [], nuclei_sites, None)
    assert main([*words, "--dry-run", "--json"]) == 0
    said = {line["event"]: line for line in map(json.loads, capsys.readouterr().out.splitlines())}
    step = said["one_step"]
    assert (step["site"], step["samples"], step["shape"]) == ("Alder", 2, [3, 32, 32])
    assert step["loss"] > 0
    assert said["method"]["name"] == "FedAvg"
    assert isinstance(said["network"]["parameters"], int)
    assert said["rounds"]["rounds"] == 400
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_refuses_the_folder_that_training_would_refuse(tiny):
    config = tiny()
    Path(config.output).mkdir()
    (Path(config.output) / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        plan_training(config)


def test_a_dry_run_reads_a_handful_of_one_site_s_cases(tiny, monkeypatch):
    read = []
    items = SiteData.items
    monkeypatch.setattr(SiteData, "items", lambda site, *part: read.extend(site.cases) or items(site, *part))
    plan = plan_training(tiny())
    assert 0 < len({case.image for case in read}) <= MAX_CASES
    assert [site.name for site in plan.federation.sites] == ["Alder"]
    assert set(plan.data) == {"Alder", "Birch", "Cedar", "Elm"}


@pytest.mark.parametrize("name", [name for name in methods.__all__ if name not in ("ClientContext", "Method")])
def test_every_method_takes_several_crops_of_one_sample(tiny, name):
    assert plan_training(tiny(name, augmentation=CROPS)).trial.batch == (4, 3, 32, 32)


def test_a_dry_run_changes_nothing(tiny):
    config = tiny("FedBCS")
    federation = set_up(config)
    before, state = federation.start, torch.get_rng_state()
    trial = try_one_step(config, federation, [4])
    assert trial.loss > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(tensor, federation.start.weights[name]) for name, tensor in before.weights.items())
    assert all(not (site.memory or site.private or site.moments) for site in federation.sites)


@pytest.mark.parametrize(("backbone", "method"), [("UNet", "FPL"), ("DynUNet", "FedHPro"), ("SegResNet", "FedProto")])
def test_a_backbone_is_trained_and_tested_on_sizes_that_it_does_not_divide(tiny, backbone, method):
    features = [8, 16, 32, 64, 128] if backbone == "SegResNet" else [8, 8, 16, 16, 16]
    odd = {
        "network_def::backbone": backbone,
        "network_def::features": features,
        "augmentation": {"_target_": "RandSpatialCropd", "keys": ["image", "label"], "roi_size": [37, 45]},
        "inferer::roi_size": [50, 50],
    }
    assert (train(tiny(method=method, rounds=1, **odd)) / "scores.csv").is_file()


@pytest.mark.parametrize("slicing", ["augmentation", "slicing"])
def test_runs_with_several_crops_of_one_sample_repeat_their_bits(tiny, tmp_path, slicing):
    config = tiny(rounds=1, examples=0, **{"augmentation": None, slicing: CROPS})
    first, second = (train(replace(config, output=str(tmp_path / name), cache=name == "a")) for name in "ab")
    assert (first / "last.safetensors").read_bytes() == (second / "last.safetensors").read_bytes()


def test_runs_on_volumes_have_the_same_bits_without_a_cache(tiny_prostate, tmp_path):
    config = replace(tiny_prostate, rounds=1, examples=0)
    first, second = (train(replace(config, output=str(tmp_path / name), cache=name == "a")) for name in "ab")
    assert (first / "last.safetensors").read_bytes() == (second / "last.safetensors").read_bytes()


def test_what_a_library_says_becomes_one_line():
    with pytest.raises(UserError, match=r"^Alder: it fails: KeyError: 'pred'$"), explained("Alder: it fails"):
        {}["pred"]
    with pytest.raises(UserError, match=r"^mend me$"), explained("Alder: it fails"):
        try:
            raise UserError("mend me")
        except UserError as error:
            raise RuntimeError("applying transform") from error


def test_without_a_compiler_compile_is_refused_in_one_line(nuclei_sites, tmp_path):
    words = [*arguments("nuclei", ["--compile", "true"], nuclei_sites, None), "-o", str(tmp_path / "run")]
    without = {**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-c", "import sys; from fedbcs_monai.cli import main; sys.exit(main())", *words]
    done = subprocess.run(command, env=without, capture_output=True, text=True)
    assert done.returncode == 2
    assert "compile is true, and nothing can be compiled for cpu here" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says of itself
def test_compiled_training_gives_nearly_the_same_losses(tiny):
    runs = [plan_training(tiny(compile=compiled)).trial.loss for compiled in (False, True)]
    assert runs[0] == pytest.approx(runs[1], rel=1e-3)
