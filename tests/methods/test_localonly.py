"""Local only: equals training every site alone, bit for bit, and shares nothing."""

import csv
import json
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from fedbcs_monai.backends.evaluate import evaluate
from fedbcs_monai.backends.local import train
from fedbcs_monai.data.sites import read_sites, write_sites
from fedbcs_monai.runs.checkpoint import read_checkpoint
from fedbcs_monai.tensors import read_tensors

LOCAL = {"_target_": "fedbcs_monai.methods.LocalOnly"}


@pytest.fixture(scope="module")
def run(tiny):
    """A configuration, and two rounds of every site alone."""
    config = tiny(method=LOCAL, examples=0, keep_checkpoints=0)
    return config, train(config)


def alone(config, site: str, folder: Path) -> Path:
    """A federation of one site."""
    sites = [data for name, data in read_sites(Path(config.sites)).items() if name == site]
    write_sites(folder / "sites.json", sites, "nuclei")
    alone = {"_target_": "fedbcs_monai.methods.FedAvg"}
    here = {"sites": str(folder / "sites.json"), "output": str(folder / "run")}
    return train(replace(config, method=alone, **here))


@pytest.mark.parametrize("site", ["Alder", "Cedar"])
def test_it_equals_training_each_site_alone(run, site, tmp_path):
    config, folder = run
    there, here = alone(config, site, tmp_path), read_tensors(folder / "sites" / "last" / f"{site}.safetensors")
    last = read_tensors(there / "last.safetensors")
    assert here.keys() == last.keys()
    assert all(torch.equal(here[name], last[name]) for name in here)
    assert scores(folder, "last")[site] == scores(there, "last")[site]


def scores(folder: Path, model: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with (folder / "scores.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["model"] == model:
                found.setdefault(row["site"], []).append(row["dice"])
    return found


def test_nothing_is_sent_and_the_global_network_stays_where_it_began(run):
    _, folder = run
    first, last = (read_checkpoint(folder / "checkpoints", at).state.weights for at in (1, 2))
    assert all(torch.equal(first[name], last[name]) for name in first)
    with (folder / "rounds.csv").open(newline="") as file:
        sent = [float(row["value"]) for row in csv.DictReader(file) if row["metric"].startswith("sent_")]
    assert sent
    assert set(sent) == {0.0}


def test_a_site_that_did_not_train_has_no_network_to_be_tested_with(run):
    _, folder = run
    assert set(scores(folder, "selected")) == {"Alder", "Birch", "Cedar"}
    assert json.loads((folder / "summary.json").read_text())["unseen"] == ["Elm"]


def test_evaluation_again_scores_every_site_with_its_own_network(run):
    _, folder = run
    again = evaluate(folder)
    assert {site: [repr(score.dice) for score in found] for site, found in again.items()} == scores(folder, "selected")


def test_a_site_can_be_scored_with_anothers_network(run):
    _, folder = run
    lent = evaluate(folder, at="Alder")
    assert set(lent) == {"Alder", "Birch", "Cedar", "Elm"}
    assert [repr(score.dice) for score in lent["Alder"]] == scores(folder, "selected")["Alder"]
    assert [repr(score.dice) for score in lent["Birch"]] != scores(folder, "selected")["Birch"]


def test_resumed_equals_straight_through(run, tmp_path):
    config, folder = run
    config = replace(config, output=str(tmp_path))
    train(replace(config, rounds=1))
    train(config, resume=True)
    names = [path.relative_to(folder) for path in folder.rglob("*.safetensors") if "checkpoints" not in path.parts]
    assert len(names) == 9
    assert all((folder / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)
    assert (folder / "scores.csv").read_bytes() == (tmp_path / "scores.csv").read_bytes()
