"""Training in one process: the same bits whatever happens on the way, and results that say what was done."""

import csv
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from msgspec.structs import replace

from fedbcs_monai.backends.local import train
from fedbcs_monai.data.sites import read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.metrics.cases import CaseScorer
from fedbcs_monai.runs.checkpoint import read_checkpoint
from fedbcs_monai.runs.prototypes import read_kept_prototypes
from fedbcs_monai.tensors import read_tensors

TRAINED = ("FedAvg", "FedBCS")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def what_happened(folder: Path) -> list[dict[str, str]]:
    """Every number of every round but how long it took."""
    return [row for row in rows(folder / "rounds.csv") if row["metric"] != "seconds"]


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text())


def assert_same_run(first: Path, second: Path) -> None:
    """The same bits: models, scores, metrics, and what server and sites would resume with."""
    for name in ("model.safetensors", "last.safetensors", "scores.csv"):
        assert (first / name).read_bytes() == (second / name).read_bytes(), name
    assert what_happened(first) == what_happened(second)
    cost = {"seconds": 0, "peak_bytes": 0}
    assert summary(first) | cost == summary(second) | cost
    newest = [max((folder / "checkpoints").glob("*.safetensors")) for folder in (first, second)]
    assert newest[0].name == newest[1].name
    assert newest[0].read_bytes() == newest[1].read_bytes()


@pytest.fixture(scope="module", params=TRAINED)
def run(request, tiny):
    """A configuration, and the folder of three rounds straight through, all checkpoints kept."""
    config = tiny(request.param, rounds=3, keep_checkpoints=0, examples=0)
    return config, train(config)


def test_a_run_keeps_the_prototypes_that_the_sites_sent_last(run):
    config, folder = run
    kept = read_kept_prototypes(folder)
    if "FedAvg" in config.method["_target_"]:
        assert kept is None
        return
    assert kept is not None
    names = [f"{stream}/{label}" for stream in ("decoder", "encoder") for label in (0, 1)]
    assert {site: sorted(sent) for site, sent in kept.sites.items()} == dict.fromkeys(
        ("Alder", "Birch", "Cedar"), names
    )
    newest = read_checkpoint(folder / "checkpoints").state.shared
    assert all(torch.equal(kept.server[name], newest[name]) for name in names)
    for name in names:  # three sites are one cluster
        mean = torch.stack([sent[name] for sent in kept.sites.values()]).mean(0)
        assert torch.allclose(kept.server[name], mean)


def test_two_runs_give_the_same_bits(run, tmp_path):
    config, folder = run
    assert_same_run(train(replace(config, output=str(tmp_path))), folder)


@pytest.mark.parametrize("since", [1, 2, 3])
def test_resumed_from_any_round_equals_straight_through(run, tmp_path, since):
    config, folder = run
    resumed = Path(shutil.copytree(folder, tmp_path / "run"))
    train(replace(config, output=str(resumed)), resume=since)
    assert_same_run(resumed, folder)


def test_more_rounds_than_before_can_be_asked_for(run, tmp_path):
    config, folder = run
    resumed = train(replace(config, output=str(tmp_path), rounds=1, evaluate_every=1))
    train(replace(config, output=str(tmp_path)), resume=True)
    assert_same_run(resumed, folder)


class Interrupting(Callbacks):
    """Somebody presses Ctrl-C when a site has finished its second round."""

    def on_client_end(self, round, site, metrics):
        if (round, site) == (2, "Birch"):
            raise KeyboardInterrupt


def test_interrupted_and_resumed_equals_straight_through(run, tmp_path):
    config, folder = run
    config = replace(config, output=str(tmp_path), checkpoint_every=100)
    with pytest.raises(KeyboardInterrupt):
        train(config, callbacks=Interrupting())
    assert [path.name for path in sorted((tmp_path / "checkpoints").glob("*.json"))] == ["round_0001.json"]
    train(config, resume=True)
    assert_same_run(tmp_path, folder)


def test_the_order_of_the_sites_in_the_list_changes_nothing(run, tmp_path):
    config, folder = run
    content = json.loads(Path(config.sites).read_text())
    shuffled = {**content, "root": str(Path(config.sites).parent), "sites": content["sites"][::-1]}
    (tmp_path / "sites.json").write_text(json.dumps(shuffled))
    other = train(replace(config, sites=str(tmp_path / "sites.json"), output=str(tmp_path / "run")))
    assert (other / "last.safetensors").read_bytes() == (folder / "last.safetensors").read_bytes()
    assert sorted(map(str, rows(other / "scores.csv"))) == sorted(map(str, rows(folder / "scores.csv")))
    assert what_happened(other) == what_happened(folder)


def test_only_the_newest_checkpoints_are_kept(tiny):
    folder = train(tiny(rounds=3, keep_checkpoints=2, examples=0))
    assert sorted(path.stem for path in (folder / "checkpoints").glob("*.json")) == ["round_0002", "round_0003"]


# What is refused.


def test_a_folder_that_is_not_empty_is_left_alone(run):
    config, folder = run
    before = files(folder)
    with pytest.raises(UserError, match=r"is not empty.*--resume.*--overwrite"):
        train(config)
    assert files(folder) == before


@pytest.mark.parametrize("change", [{"seed": 1}, {"batch_size": 3}], ids=str)
def test_a_run_is_not_resumed_under_another_configuration(run, change):
    config, folder = run
    before = files(folder)
    with pytest.raises(UserError, match=f"was run with other values of {next(iter(change))}"):
        train(replace(config, **change), resume=True)
    assert files(folder) == before


def test_a_round_is_not_resumed_where_nothing_was_run(tiny):
    with pytest.raises(UserError, match=r"config\.json is missing"):
        train(tiny(), resume=1)


def test_nothing_is_resumed_in_a_folder_of_other_things(tiny, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and holds no run to resume"):
        train(tiny(output=str(tmp_path)), resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_overwriting_replaces_the_run_and_leaves_other_files(run, tmp_path):
    config, folder = run
    copy = Path(shutil.copytree(folder, tmp_path / "run"))
    (copy / "notes").mkdir()
    for name in ("notes.txt", "notes/config.json", "notes/other.safetensors"):
        (copy / name).write_text("mine")
    train(replace(config, output=str(copy), rounds=1), overwrite=True)
    assert {row["round"] for row in rows(copy / "rounds.csv")} == {"1"}
    assert [path.stem for path in (copy / "checkpoints").glob("*.json")] == ["round_0001"]
    assert [(copy / name).read_text() for name in ("notes.txt", "notes/config.json", "notes/other.safetensors")] == (
        ["mine"] * 3
    )


def test_a_folder_without_a_run_is_not_overwritten(tiny):
    config = tiny()
    examples = Path(config.output) / "examples"
    examples.mkdir(parents=True)
    (examples / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="no run to overwrite"):
        train(config, overwrite=True)
    assert (examples / "thesis.txt").read_text() == "mine"


def test_a_site_list_is_needed(tiny):
    with pytest.raises(UserError, match="lacks sites"):
        train(tiny(sites=None))


# What a run leaves.


def test_every_test_case_is_scored_with_both_models(run):
    config, folder = run
    scores = rows(folder / "scores.csv")
    cases = {
        (name, item["case"]) for name, site in read_sites(Path(config.sites)).items() for item in site.items("test")
    }
    for model in ("last", "selected"):
        assert {(row["site"], row["case"]) for row in scores if row["model"] == model} == cases
    assert len(scores) == 2 * len(cases)
    assert {row["split"] for row in scores} == {"test"}
    assert all(0 <= float(row["dice"]) <= 1 for row in scores)
    assert all(math.isnan(float(row["hd95_mm"])) for row in scores)  # pictures have no spacing


def test_the_summary_says_what_was_done(run):
    _, folder = run
    content = summary(folder)
    assert (content["rounds"], content["task"], content["unseen"]) == (3, "nuclei", ["Elm"])
    assert content["name"] in ("FedAvg", "FedBCS")
    assert content["sites"]["Elm"] == {"train": 0, "val": 0, "test": 6}
    assert all(sum(counts.values()) == 6 for counts in content["sites"].values())


def test_the_selected_round_is_the_best_on_validation_cases(run):
    _, folder = run
    dices = [(int(r["round"]), float(r["value"])) for r in what_happened(folder) if r["metric"] == "val_dice"]
    means = {number: np.mean([dice for at, dice in dices if at == number]) for number in (1, 2, 3)}
    selected = summary(folder)["selected_round"]
    assert means[selected] == max(means.values())
    chosen = read_checkpoint(folder / "checkpoints", selected).state.weights
    model = read_tensors(folder / "model.safetensors")
    assert model.keys() == chosen.keys()
    assert all(bool((model[name] == chosen[name]).all()) for name in model)


def test_without_validation_cases_the_newest_round_is_selected(tiny, tmp_path):
    config = tiny(examples=0)
    content = json.loads(Path(config.sites).read_text())
    content["root"] = str(Path(config.sites).parent)
    for case in (case for site in content["sites"] for case in site["cases"]):
        case["split"] = case["split"].replace("val", "train")
    (tmp_path / "sites.json").write_text(json.dumps(content))
    folder = train(replace(config, sites=str(tmp_path / "sites.json")))
    assert summary(folder)["selected_round"] == 2
    assert (folder / "model.safetensors").read_bytes() == (folder / "last.safetensors").read_bytes()


def test_an_unseen_site_is_tested_and_never_trained_on(run):
    _, folder = run
    assert {row["site"] for row in what_happened(folder)} == {"Alder", "Birch", "Cedar"}
    assert {row["site"] for row in rows(folder / "scores.csv")} == {"Alder", "Birch", "Cedar", "Elm"}
    assert set(read_checkpoint(folder / "checkpoints").sites) == {"Alder", "Birch", "Cedar"}


class Watching(Callbacks):
    """Notes which cases are looked at, and when the last round has been evaluated."""

    def __init__(self, monkeypatch):
        self.events = []
        prepare = CaseScorer._case
        monkeypatch.setattr(
            CaseScorer, "_case", lambda scorer, item: self.events.append(item["case"]) or prepare(scorer, item)
        )

    def on_evaluation(self, round, scores):
        self.events.append(round)


@pytest.mark.parametrize("followed", [False, True])
def test_test_cases_wait_for_the_end_unless_they_are_followed(tiny, monkeypatch, followed):
    config = tiny(best_on_test=followed, examples=0)
    callbacks = Watching(monkeypatch)
    folder = train(config, callbacks=callbacks)
    trained = [site for site in read_sites(Path(config.sites)).values() if not site.unseen]
    tests = {item["case"] for site in trained for item in site.items("test")}
    early = set(callbacks.events[: callbacks.events.index(2)])
    assert tests & early == (tests if followed else set())
    assert (summary(folder)["best_on_test"] is not None) == followed
    assert any(row["metric"] == "test_dice" for row in what_happened(folder)) == followed


def test_pictures_are_kept_of_so_many_cases_a_site(tiny):
    folder = train(tiny(rounds=1, examples=1))
    assert sorted(path.name for path in (folder / "examples").iterdir()) == [
        f"{site}_0.npz" for site in ("Alder", "Birch", "Cedar", "Elm")
    ]
    example = np.load(folder / "examples" / "Elm_0.npz")
    assert example["image"].shape == (64, 64, 3)
    assert example["truth"].shape == example["prediction"].shape == (64, 64)
    assert sorted(path.stem for path in (folder / "looks").iterdir()) == ["Alder", "Birch", "Cedar", "Elm"]


def test_volumes_are_scored_in_millimetres_and_by_slice(tiny_prostate):
    folder = train(tiny_prostate)
    scores = rows(folder / "scores.csv")
    assert {row["site"] for row in scores} == {"Alder", "Birch", "Cedar", "Elm"}
    for row in scores:
        distances = [float(row[name]) for name in ("hd95_mm", "assd_mm")]
        assert all(distance > 0 and math.isfinite(distance) for distance in distances)
        assert 0 <= float(row["slice_dice"]) <= 1
    assert np.load(folder / "examples" / "Elm_0.npz")["truth"].any()
