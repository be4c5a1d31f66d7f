"""Setup: all cases in one place, and a site left out."""

import csv
import dataclasses
import json
import sys
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from fedbcs_monai.backends.local import train
from fedbcs_monai.data.sites import SiteData, read_sites, write_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.runs.setup import POOLED, schedule_of, set_up, sites_of
from fedbcs_monai.settings import Settings


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "scores.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def united(config, folder: Path) -> Path:
    """A site list in which the sites that train are one."""
    sites = read_sites(Path(config.sites))
    parts = [site for _, site in sorted(sites.items()) if not site.unseen]
    cases = [dataclasses.replace(case, patient=f"{part.name} {case.patient}") for part in parts for case in part.cases]
    write_sites(folder / "sites.json", [SiteData(POOLED, "", parts[0].root, tuple(cases)), sites["Elm"]], "nuclei")
    return folder / "sites.json"


def test_pooled_training_equals_a_federation_of_one_site_with_all_cases(tiny, tmp_path):
    config = tiny(centralized=True, examples=0, batch_size=1)  # so that both take the same steps
    one = train(replace(config, centralized=False, sites=str(united(config, tmp_path)), output=str(tmp_path / "one")))
    pooled = train(config)
    for name in ("model.safetensors", "last.safetensors"):
        assert (pooled / name).read_bytes() == (one / name).read_bytes()
    assert sorted((r["model"], r["case"], r["dice"]) for r in rows(pooled)) == sorted(
        (r["model"], r["case"], r["dice"]) for r in rows(one)
    )


def test_pooled_training_is_tested_site_by_site(tiny):
    folder = train(tiny(centralized=True, examples=0, rounds=1))
    assert {row["site"] for row in rows(folder)} == {"Alder", "Birch", "Cedar", "Elm"}
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["unseen"] == ["Elm"]
    assert summary["sites"]["Alder"]["train"] > 0


@pytest.mark.parametrize("batch_size", [2, 3])
def test_pooled_training_takes_as_many_steps_as_the_sites_together(tiny, batch_size):
    apart, pooled = (set_up(tiny(batch_size=batch_size, centralized=pool)).sites for pool in (False, True))
    assert [site.name for site in pooled] == [POOLED]
    assert sum(site.steps for site in apart) == pooled[0].steps
    sizes = [[len(batch["label"]) for site in sites for batch in site.batches(1)] for sites in (apart, pooled)]
    assert sizes[0] == sizes[1]
    assert len(sizes[1]) == pooled[0].steps


@pytest.mark.parametrize(("batch_size", "steps"), [(1, 4), (2, 2), (3, 2)])
def test_pooled_training_takes_as_many_steps_as_one_site(tiny, batch_size, steps):
    """Of four cases at each of three sites: 12 / 3, 6 / 3 and 6 / 3 batches an epoch."""
    (pooled,) = set_up(tiny(batch_size=batch_size, centralized="site")).sites
    assert pooled.steps == steps
    epochs = [[batch["image"] for batch in pooled.batches(seed)] for seed in (1, 2)]
    assert [len(epoch) for epoch in epochs] == [steps, steps]
    assert any(not first.equal(second) for first, second in zip(*epochs, strict=True))


@pytest.mark.parametrize(
    ("laid_over", "reason"),
    [
        ({"centralized": "sites"}, "centralized is 'sites': give true, or site for as many steps"),
        ({"centralized": "site", "shuffle": False}, "so shuffle must be true"),
        (
            {"centralized": True, "method": {"_target_": "fedbcs_monai.methods.LocalOnly"}},
            "centralized trains in one place, and LocalOnly keeps tensors at sites",
        ),
    ],
)
def test_centralized_is_refused_before_a_case_is_read(tiny, laid_over, reason):
    class Reading(Callbacks):
        def note(self, text):
            raise AssertionError(text)

    with pytest.raises(UserError, match=reason):
        set_up(tiny(**laid_over), Reading())


def test_a_site_left_out_is_tested_on_all_its_cases_and_never_trained_on(tiny):
    config = tiny(leave_out="Birch")
    before, after = read_sites(Path(config.sites))["Birch"], sites_of(config)["Birch"]
    assert [case.id for case in after.split("test")] == [case.id for case in before.cases]
    assert len(before.cases) > len(before.split("test"))
    assert after.split("train") == after.split("val") == ()
    federation = set_up(config)
    assert [site.name for site in federation.sites] == ["Alder", "Cedar"]
    assert set(federation.scorers) == {"Alder", "Birch", "Cedar", "Elm"}


def test_a_site_left_out_is_an_unseen_one(tiny):
    folder = train(tiny(leave_out="Birch", examples=0, rounds=1))
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["unseen"] == ["Birch", "Elm"]
    with (folder / "rounds.csv").open(newline="") as file:
        assert {row["site"] for row in csv.DictReader(file)} == {"Alder", "Cedar"}


def test_a_site_that_there_is_not_cannot_be_left_out(tiny):
    with pytest.raises(UserError, match=r"leave_out is 'Ash': the sites of .* are Alder, Birch, Cedar, Elm"):
        sites_of(tiny(leave_out="Ash"))


def test_a_site_without_labels_cannot_be_left_out(tiny):
    config = tiny(leave_out="Elm")
    content = json.loads(Path(config.sites).read_text())
    for site in content["sites"]:
        for case in site["cases"] if site["name"] == "Elm" else ():
            case["label"] = None
            del case["sha256"]["label"]
    unlabelled = Path(config.sites).with_name("unlabelled.json")
    unlabelled.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"no case of it in .*unlabelled\.json has a label to be tested against"):
        sites_of(replace(config, sites=str(unlabelled)))


def test_what_postprocessing_needs_is_said_before_training(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    largest = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}
    with pytest.raises(UserError, match="connected components: pip install scikit-image"):
        set_up(tiny(**{"postprocessing::transforms::3": largest}))


# The schedule of the learning rate.

HALVED = {"_target_": "torch.optim.lr_scheduler.ExponentialLR", "gamma": 0.5}


def rate(config, round: int) -> float:
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.8)
    schedule_of(config)(optimizer, round)
    return optimizer.param_groups[0]["lr"]


def test_the_learning_rate_follows_the_number_of_the_round():
    assert [rate(Settings(schedule=HALVED), round) for round in (1, 2, 3)] == [0.8, 0.4, 0.2]
    assert [rate(Settings(), round) for round in (1, 9)] == [0.8, 0.8]


def test_a_cosine_over_the_rounds():
    cosine = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": 4}
    found = [rate(Settings(schedule=cosine), round) for round in (1, 3, 5)]
    assert found == [0.8, pytest.approx(0.4), pytest.approx(0.0, abs=1e-12)]


def test_a_schedule_that_changes_nothing_gives_the_bits_of_none(tiny, tmp_path):
    still = {"_target_": "torch.optim.lr_scheduler.ConstantLR", "factor": 1.0}
    folders = [
        train(replace(tiny(schedule=s, examples=0), output=str(tmp_path / str(s)))) for s in (None, still, HALVED)
    ]
    without, constant, halved = ((folder / "last.safetensors").read_bytes() for folder in folders)
    assert without == constant != halved


def test_a_resumed_run_follows_its_schedule(tiny, tmp_path):
    straight = train(replace(tiny(schedule=HALVED, examples=0), output=str(tmp_path / "straight")))
    config = replace(tiny(schedule=HALVED, examples=0), output=str(tmp_path / "resumed"))
    train(replace(config, rounds=1))
    resumed = train(config, resume=True)
    assert (straight / "last.safetensors").read_bytes() == (resumed / "last.safetensors").read_bytes()


@pytest.mark.parametrize(
    "schedule",
    [
        {"_target_": "torch.optim.lr_scheduler.ReduceLROnPlateau"},
        {"_target_": "torch.optim.lr_scheduler.ExponentialLR"},
        {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": "long"},
    ],
    ids=["needs scores", "lacks an argument", "no number"],
)
def test_a_schedule_that_cannot_be_followed_is_refused(schedule):
    with pytest.raises(UserError, match="schedule"):
        schedule_of(Settings(schedule=schedule))
