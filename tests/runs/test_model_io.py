"""Trained models with what sites keep of them: written together, told apart, and read as each site uses them."""

import csv
from pathlib import Path

import pytest
import torch

from fedbcs_monai.backends.evaluate import evaluate
from fedbcs_monai.backends.local import train
from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.model_io import digest_model, keeping_sites, load_trained, tensors_at, write_model

SHARED = {"w": torch.zeros(1), "norm": torch.zeros(1)}


def values(tensors):
    return {name: tensor.item() for name, tensor in tensors.items()}


def test_a_site_uses_what_it_keeps_over_what_is_shared(tmp_path):
    write_model(tmp_path, "selected", SHARED, {"Alder": {"norm": torch.ones(1)}, "Birch": {}})
    weights = tmp_path / "model.safetensors"
    assert keeping_sites(weights) == ["Alder"]
    assert values(tensors_at(weights, "Alder")) == {"w": 0, "norm": 1}
    assert values(tensors_at(weights, "Birch")) == values(tensors_at(weights, None)) == {"w": 0, "norm": 0}


def test_where_nothing_is_shared_only_the_sites_have_a_network(tmp_path):
    write_model(tmp_path, "last", SHARED, {"Alder": {name: tensor + 1 for name, tensor in SHARED.items()}})
    weights = tmp_path / "last.safetensors"
    assert values(tensors_at(weights, "Alder")) == {"w": 1, "norm": 1}
    assert tensors_at(weights, "Birch") == tensors_at(weights, None) == {}


def test_selected_and_last_are_kept_apart(tmp_path):
    write_model(tmp_path, "selected", SHARED, {"Alder": {"norm": torch.ones(1)}})
    write_model(tmp_path, "last", SHARED, {"Alder": {"norm": 2 * torch.ones(1)}})
    assert [tensors_at(tmp_path / f"{n}.safetensors", "Alder")["norm"].item() for n in ("model", "last")] == [1, 2]


def test_the_digest_changes_with_what_a_site_keeps(tmp_path):
    digests = {
        write_model(tmp_path, "selected", SHARED, {"Alder": {"norm": torch.tensor([value])}}) for value in (0.0, 1.0)
    }
    assert len(digests) == 2
    assert digest_model(tmp_path / "model.safetensors") in digests
    assert digest_model(tmp_path / "none.safetensors") == ""


@pytest.fixture(scope="module")
def local_run(tiny):
    """One round of every site alone."""
    return train(tiny(method={"_target_": "fedbcs_monai.methods.LocalOnly"}, rounds=1, examples=0))


@pytest.mark.parametrize(
    ("site", "said"),
    [
        (None, "every site trained a network of its own; choose whose: Alder, Birch, Cedar"),
        ("Elm", "site 'Elm' keeps nothing of this network to itself; take one of Alder, Birch, Cedar"),
    ],
)
def test_a_network_that_there_is_not_is_refused(local_run, site, said):
    with pytest.raises(UserError, match=said):
        load_trained(local_run, site=site)


def test_a_sites_own_network_is_loaded_by_its_name(local_run):
    networks = {site: load_trained(local_run, site=site).network for site in ("Alder", "Birch")}
    for site, network in networks.items():
        kept = tensors_at(local_run / "model.safetensors", site)
        assert all(torch.equal(tensor, kept[name]) for name, tensor in network.state_dict().items())


# In a run.


def scores(folder: Path) -> dict[str, list[float]]:
    """Dice of the selected model, by site."""
    found: dict[str, list[float]] = {}
    with (folder / "scores.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] == "selected":
                found.setdefault(row["site"], []).append(float(row["dice"]))
    return found


@pytest.fixture(scope="module")
def bn_run(tiny):
    """Three rounds in which every site keeps its normalization to itself."""
    return train(
        tiny(method={"_target_": "fedbcs_monai.methods.FedBN"}, rounds=3, examples=0, **{"optimizer::lr": 0.1})
    )


def test_the_test_is_taken_with_what_each_site_keeps(bn_run, tmp_path):
    names = [path.relative_to(bn_run) for path in bn_run.rglob("*.safetensors") if "checkpoints" not in path.parts]
    names.remove(Path("model.ood.safetensors"))
    assert len(names) == 2 + 2 * 3
    bare = tmp_path / "bare"  # the same run, without what sites keep
    bare.mkdir()
    for name in ("config.json", "model.safetensors"):
        (bare / name).write_bytes((bn_run / name).read_bytes())
    own, shared = scores(bn_run), {site: [s.dice for s in found] for site, found in evaluate(bare).items()}
    assert {site: [s.dice for s in found] for site, found in evaluate(bn_run).items()} == own
    assert own["Elm"] == shared["Elm"]  # never trained on: the global network
    assert all(own[site] != shared[site] for site in ("Alder", "Birch", "Cedar"))
