"""What a federation learns of its sites' cases: the same whoever carries the questions, and only what may be told."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.fl.utils.constants import ExtraItems
from msgspec.structs import replace
from PIL import Image

from fedbcs_monai import Predictor
from fedbcs_monai.backends.local import train
from fedbcs_monai.backends.monai import FederatedClient, FederatedServer
from fedbcs_monai.backends.ood import add_site_styles
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State
from fedbcs_monai.ood.file import read_site_styles, site_styles_file, write_site_styles
from fedbcs_monai.settings import plain
from fedbcs_monai.tensors import read_tensors, write_tensors

SITES = ["Alder", "Birch", "Cedar"]


@pytest.fixture(scope="module")
def run(tiny):
    """A configuration and its finished run."""
    config = tiny(rounds=2, examples=0)
    return config, train(config)


def model_of(folder: Path) -> Path:
    return folder / "model.safetensors"


def test_a_run_knows_the_sites_that_trained(run):
    known = read_site_styles(model_of(run[1]))
    assert list(known) == SITES
    covariances = {site: of_site.covariance for site, of_site in known.items()}
    assert torch.equal(covariances["Alder"], covariances["Birch"])
    assert all(of_site.spread > 0 for of_site in known.values())


def test_a_finished_run_learns_the_same_bits_later(run, tmp_path):
    _, folder = run
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    file = site_styles_file(model_of(copy))
    with pytest.raises(UserError, match=r"model\.ood\.safetensors: exists already; replace it with --overwrite"):
        add_site_styles(copy)
    file.unlink()
    assert add_site_styles(copy, device="cpu") == file
    assert file.read_bytes() == site_styles_file(model_of(folder)).read_bytes()


def test_monais_interface_carries_the_same_bits(run, tmp_path):
    config, folder = run
    (tmp_path / "config.json").write_text(json.dumps(plain(config)))
    server = FederatedServer(tmp_path, ["config.json"])
    server.aggregator.state = State(2, read_tensors(model_of(folder)), {})
    clients = []
    for site in SITES:
        client = FederatedClient(tmp_path, ["config.json"])
        client.initialize({ExtraItems.CLIENT_NAME: site})
        clients.append(client)
    known = server.site_styles(lambda exchange: [client.evaluate(exchange) for client in clients])
    shutil.copyfile(model_of(folder), model_of(tmp_path))
    write_site_styles(model_of(tmp_path), known)
    assert site_styles_file(model_of(tmp_path)).read_bytes() == site_styles_file(model_of(folder)).read_bytes()


def test_of_other_weights_nothing_is_known(run, tmp_path):
    _, folder = run
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    write_tensors(model_of(copy), {name: 2 * tensor for name, tensor in read_tensors(model_of(copy)).items()})
    assert read_site_styles(model_of(copy)) == {}


def test_a_damaged_file_is_named(run, tmp_path):
    copy = Path(shutil.copytree(run[1], tmp_path / "run"))
    site_styles_file(model_of(copy)).write_bytes(b"no")
    with pytest.raises(UserError, match=r"model\.ood\.safetensors: damaged.*fedbcs ood"):
        read_site_styles(model_of(copy))


def test_whoever_wants_to_tell_nothing_tells_nothing(tiny):
    folder = train(tiny(rounds=1, examples=0, ood=False))
    assert not site_styles_file(model_of(folder)).exists()


def test_sites_with_two_cases_tell_nothing(tiny_prostate, tmp_path):
    folder = train(replace(tiny_prostate, rounds=1, examples=0, output=str(tmp_path / "run")))
    assert not site_styles_file(model_of(folder)).exists()
    with pytest.raises(UserError, match="no site has the 3 cases that are needed"):
        add_site_styles(folder, device="cpu")


def test_a_network_of_ones_own_knows_ones_own_cases_only(tiny):
    folder = train(tiny(method={"_target_": "fedbcs_monai.methods.LocalOnly"}, rounds=1, examples=0))
    assert read_site_styles(model_of(folder)) == {}
    assert list(read_site_styles(model_of(folder), "Birch")) == ["Birch"]


# What a prediction says.


def picture(folder: Path, name: str, change) -> Path:
    """A case of a training site, changed."""
    (path,) = sorted(Path(folder).glob("Alder/images/*.png"))[:1]
    Image.fromarray(change(np.asarray(Image.open(path).convert("RGB")))).save(folder / name)
    return folder / name


def test_a_spoilt_picture_is_farther_than_the_one_it_was_made_of(run, nuclei_sites, tmp_path):
    predictor, images = Predictor(run[1]), tmp_path / "images"
    shutil.copytree(nuclei_sites.parent / "Alder" / "images", images / "Alder" / "images")
    clean = predictor(picture(images, "clean.png", lambda pixels: pixels))
    green = predictor(picture(images, "green.png", lambda pixels: pixels * np.array([0, 1, 0], np.uint8)))
    first, second = (one.statistics["ood"] for one in (clean, green))
    assert second["distance_sd"] > first["distance_sd"]
    assert list(first["sites"]) == sorted(SITES, key=lambda site: first["sites"][site])
    assert first["nearest"] == next(iter(first["sites"]))
    said = f"unlike any training site: nearest is {second['nearest']}, distance {second['distance_sd']:.1f} sd"
    assert second["distance_sd"] > 3
    assert said in green.warnings
    assert not any("unlike" in warning for warning in clean.warnings)


def test_the_mask_is_the_same_with_and_without(run, nuclei_sites, tmp_path):
    older = Path(shutil.copytree(run[1], tmp_path / "run"))
    site_styles_file(model_of(older)).unlink()
    path = next(nuclei_sites.parent.glob("Elm/images/*.png"))
    with_it, without = Predictor(run[1])(path), Predictor(older)(path)
    assert np.array_equal(with_it.mask, without.mask)
    assert np.array_equal(with_it.probability, without.probability)
    assert "ood" not in without.statistics
    assert {**without.statistics, "ood": with_it.statistics["ood"]} == with_it.statistics


def test_of_several_models_the_farthest_counts(run, tmp_path):
    _, folder = run
    other = Path(shutil.copytree(folder, tmp_path / "run"))
    known = read_site_styles(model_of(other))
    far = {site: of_site._replace(mean=of_site.mean + 100) for site, of_site in known.items()}
    write_site_styles(model_of(other), far)
    path = next(Path(run[0].sites).parent.glob("Alder/images/*.png"))
    alone, both = (Predictor(models)(path).statistics["ood"] for models in (other, [folder, other]))
    assert both == alone
