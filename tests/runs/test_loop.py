"""A run: it ends when it no longer gets better, and says who took part in which round."""

import json
import math
from pathlib import Path

import pytest
import torch
from msgspec.structs import replace

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.methods import FedAvg
from fedbcs_monai.runs.loop import bests, open_run
from fedbcs_monai.runs.schema import Counts
from fedbcs_monai.runs.writer import LOCK, copy_run
from fedbcs_monai.settings import Settings

CONFIG = Settings(rounds=9, evaluate_every=1, keep_checkpoints=0)


def dices(*scores):
    """Sites that score so much after each round. Birch misses rounds 2, 5 and 6."""

    def ask(broadcast):
        for site in ("Alder", "Birch"):
            if broadcast.task == "evaluate":
                yield Update(site, 1, {}, {}, {"val_dice": scores[broadcast.round - 1]})
            elif site == "Alder" or broadcast.round not in (2, 5, 6):
                yield Update(site, 1, {"w": broadcast.weights["w"] + 1}, {}, {"seconds": 1.0, "loss": 0.5})

    return ask


def opened(folder, resume=False, **changes):
    start = State(0, {"w": torch.zeros(1)}, {})
    run = open_run(replace(CONFIG, output=str(folder), **changes), start, torch.device("cpu"), resume)
    return run, Aggregator(FedAvg(), run.point.state)


def went(folder, ask, resume=False, counts=None, asked=("Alder", "Birch"), **changes):
    run, aggregator = opened(folder, resume, **changes)
    run.rounds(aggregator, ask)
    trained = [site for site in asked if site in (counts or asked)]
    run.finish("FedAvg", [], trained, counts or {}, asked)
    run.close()
    return json.loads((folder / "summary.json").read_text())


@pytest.mark.parametrize(
    ("patience", "rounds", "selected"), [(0, 9, 8), (2, 4, 2), (3, 9, 8), (4, 9, 8)], ids=lambda value: str(value)
)
def test_a_run_ends_when_it_has_not_improved_for_so_many_rounds(tmp_path, patience, rounds, selected):
    scores = (0.1, 0.5, 0.4, 0.4, 0.6, 0.6, 0.6, 0.7, 0.1)
    summary = went(tmp_path, dices(*scores), patience=patience)
    assert (summary["rounds"], summary["selected_round"]) == (rounds, selected)


def test_a_run_that_has_ended_early_has_ended_when_it_is_resumed(tmp_path):
    ask = dices(0.1, 0.5, *[0.4] * 7)
    first = went(tmp_path, ask, patience=2)
    assert went(tmp_path, ask, resume=True, patience=2)["rounds"] == first["rounds"] == 4
    assert went(tmp_path, ask, resume=True, patience=4)["rounds"] == 6


@pytest.mark.parametrize(("patience", "rounds"), [(2, 6), (3, 8), (4, 8), (5, 9)])
def test_a_run_ends_at_an_evaluation(tmp_path, patience, rounds):
    """Evaluated in rounds 2, 4, 6, 8 and 9, best in round 4: what was not looked at does not count as worse."""
    summary = went(tmp_path, dices(0, 0.1, 0, 0.5, 0, 0.4, 0, 0.4, 0.4), patience=patience, evaluate_every=2)
    assert (summary["rounds"], summary["selected_round"]) == (rounds, 4)


def selected(*rounds):
    """The round that is selected when sites score so in each."""
    history = {}
    for number, dice in enumerate(rounds, start=1):
        history |= bests(history, number, {site: {"val_dice": value} for site, value in dice.items()})
    return history["best"]["round"]


@pytest.mark.parametrize(
    ("rounds", "wanted"),
    [
        ([{"A": 0.5, "B": 0.9}, {"A": 0.5, "B": 0.9}], 1),  # of equal rounds the earliest
        ([{"A": 0.5, "B": 0.9}, {"B": 0.88}], 1),  # not better without the weaker site
        ([{"A": 0.5, "B": 0.9}, {"B": 0.91}], 2),
        ([{"A": 0.5, "B": 0.9}, {"B": 0.91}, {"A": 0.4, "B": 0.92}], 2),  # A's 0.5 is remembered
        ([{"A": 0.5, "B": 0.9}, {"B": 0.91}, {"A": 0.6, "B": 0.90}], 3),
        ([{"A": math.nan, "B": math.nan}, {"A": 0.5, "B": 0.9}, {"A": math.nan, "B": 0.8}], 2),
        ([{"A": 0.5}, {}], 1),  # nobody answers
        ([{}, {}], 2),  # nobody has validation cases
    ],
)
def test_rounds_are_compared_over_the_sites_that_answered_in_both(rounds, wanted):
    assert selected(*rounds) == wanted


def test_the_summary_says_who_was_absent_when(tmp_path):
    assert went(tmp_path, dices(*[0.5] * 9))["absent"] == {"Birch": [2, 5, 6]}


def test_a_site_that_took_part_in_no_round_is_absent_from_all_and_unseen(tmp_path):
    """Cedar told its cases and never trained, Dogwood never answered at all, Elm is for testing only."""
    parts = Counts(4, 1, 2)
    counts = {"Alder": parts, "Birch": parts, "Cedar": parts, "Elm": parts._replace(train=0, val=0)}
    asked = ("Alder", "Birch", "Cedar", "Dogwood")
    summary = went(tmp_path, dices(*[0.5] * 3), rounds=3, counts=counts, asked=asked)
    assert summary["absent"] == {"Birch": [2], "Cedar": [1, 2, 3], "Dogwood": [1, 2, 3]}
    assert summary["unseen"] == ["Cedar", "Elm"]


def test_a_refusal_is_noted(tmp_path):
    run, aggregator = opened(tmp_path, rounds=1)
    said = []
    run.callbacks.note = said.append

    def ask(broadcast):
        yield from dices(0.5)(broadcast)
        yield Update("Cedar", 0, {}, {})

    run.rounds(aggregator, ask)
    run.close()
    assert said[0] == "round 1, train: refused what Cedar sent: its number of cases is 0"


def test_the_summary_says_who_was_refused_why_and_when_also_after_a_resume(tmp_path):
    def ask(broadcast):
        yield from dices(*[0.5] * 9)(broadcast)
        if broadcast.round != 2:
            yield Update("Cedar", 0, {}, {})

    def twice(broadcast):
        yield from ask(broadcast)
        if broadcast.round != 2:
            yield Update("Cedar", -1, {}, {})

    reasons = "its number of cases is 0", "its number of cases is -1"
    assert went(tmp_path, twice, rounds=2)["refused"] == {"Cedar": {reason: [1] for reason in reasons}}
    assert went(tmp_path, twice, resume=True, rounds=3)["refused"] == {"Cedar": {reason: [1, 3] for reason in reasons}}
    assert went(tmp_path / "other", dices(*[0.5] * 9))["refused"] == {}


def test_a_new_run_in_a_folder_forgets_who_was_refused(tmp_path):
    def ask(broadcast):
        yield from dices(*[0.5] * 9)(broadcast)
        yield Update("Cedar", 0, {}, {})

    assert went(tmp_path, ask, rounds=1)["refused"]
    assert went(tmp_path, dices(*[0.5] * 9), rounds=1)["refused"] == {}


def test_a_folder_takes_one_run_at_a_time(tmp_path):
    run, _ = opened(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    for resume in (False, True):
        with pytest.raises(UserError, match="another process is writing a run into it"):
            opened(tmp_path, resume, rounds=3)
    assert (tmp_path / "config.json").read_bytes() == before
    run.close()
    opened(tmp_path)[0].close()


def test_a_run_that_was_refused_leaves_its_folder_to_others(tmp_path):
    opened(tmp_path)[0].close()
    with pytest.raises(UserError, match="was run with other values of method"):
        opened(tmp_path, resume=True, method="FedProx")
    opened(tmp_path)[0].close()


def test_a_copy_of_a_run_has_all_its_files_and_no_lock(tmp_path):
    run, _ = opened(tmp_path / "run")
    copy_run(tmp_path / "run", tmp_path / "copy")
    files = {path.relative_to(tmp_path / "run") for path in (tmp_path / "run").rglob("*")}
    run.close()
    assert {path.relative_to(tmp_path / "copy") for path in (tmp_path / "copy").rglob("*")} == files - {Path(LOCK)}
    assert Path("config.json") in files and Path(LOCK) in files
