"""Reader: what is read from a run folder, and what is refused, by file, line and way out."""

import csv
import math

import numpy as np
import pytest

from fedbcs_monai.errors import UserError
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.runs.reader import is_finished, read_examples, read_run, read_scores, read_summary
from fedbcs_monai.runs.schema import ROUNDS, SCORES, BestOnTest, Counts, ModelScore, Summary
from fedbcs_monai.runs.writer import RunWriter

NAN = math.nan
SUMMARY = Summary(
    name="ours",
    task="nuclei",
    rounds=2,
    selected_round=1,
    best_on_test=BestOnTest(2, 0.75),
    unseen=("Elm",),
    absent={"Ash": [2]},
    refused={"Ash": {"its loss is not finite": [1, 2]}},
    seconds=2.5,
    peak_bytes=2**20,
    sites={"Ash": Counts(3, 1, 2), "Elm": Counts(0, 0, 1)},
)
TESTED = [
    ModelScore("selected", "Ash", CaseScore("00000001", 0.5, 4.0, 1.0, 0.25)),
    ModelScore("last", "Ash", CaseScore("00000001", 0.75, 2.0, 0.5, 0.5)),
    ModelScore("selected", "Elm", CaseScore("mean of 2", 1.0, NAN, NAN, NAN)),
]


@pytest.fixture
def folder(tmp_path):
    """A finished run of two rounds, written by the writer."""
    writer = RunWriter(tmp_path)
    writer.write_config({"method": {"_target_": "fedbcs_monai.methods.MOON"}, "seed": 3})
    writer.write_json("environment.json", {"torch": "2.6.0"})
    for round in (1, 2):
        writer.log(round, "Ash", {"loss": 1 / round, "val_dice": 0.25 * round, "seconds": 1.5})
    writer.write_scores(TESTED)
    writer.write_summary(SUMMARY)
    writer.close()
    return tmp_path


def test_what_was_written_is_read(folder):
    run = read_run(folder)
    assert (run.name, run.method, run.repeat, run.sites, run.unseen) == (
        "ours",
        "MOON",
        (3, 0),
        ("Ash", "Elm"),
        ("Elm",),
    )
    assert run.curves["loss"] == {"Ash": {1: 1.0, 2: 0.5}}
    assert (run.validation, run.rounds_done, run.environment) == (0.25, 2, {"torch": "2.6.0"})
    assert run.scored_cases == {"Ash": 1, "Elm": 2}
    assert run.tested == {"Ash": {"00000001"}}
    assert [score.value for score in run.scores["last", "hd95_mm"]] == [2.0]


def test_a_summary_comes_as_it_went(folder):
    assert read_summary(folder) == SUMMARY
    assert Summary.of(SUMMARY._replace(best_on_test=None).plain()).best_on_test is None
    assert SUMMARY._replace(peak_bytes=NAN).plain()["peak_bytes"] is None


def test_scores_come_as_they_went_and_undefined_ones_as_nan(folder):
    first, last, mean = read_scores(folder)
    assert (first, last) == (TESTED[0], TESTED[1])
    assert mean.score[:2] == ("mean of 2", 1.0)
    assert all(math.isnan(value) for value in mean.score[2:])


def test_a_score_that_an_older_version_did_not_have_is_undefined(folder):
    """Nor were empty cells written as nan."""
    with (folder / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([SCORES.columns[:6], ("selected", "Ash", "test", "a", 0.5, "")])
    (row,) = read_scores(folder)
    assert row.score[:2] == ("a", 0.5)
    assert all(math.isnan(value) for value in row.score[2:])


def test_an_unfinished_run_goes_by_its_method_and_may_lack_its_last_line(folder):
    for name in ("summary.json", "scores.csv"):
        (folder / name).unlink()
    with (folder / "rounds.csv").open("a") as file:
        file.write("3,Ash,lo")
    run = read_run(folder)
    assert not is_finished(folder)
    assert (run.name, run.summary, run.rounds_done, run.scores) == ("MOON", None, 2, {})
    (folder / "rounds.csv").unlink()
    assert read_run(folder).sites == ()


def test_a_run_that_goes_on_drops_a_line_that_was_cut_off(folder):
    with (folder / "rounds.csv").open("a") as file:
        file.write("3,Ash,lo")
    RunWriter(folder, since=1).close()
    rows = list(csv.reader((folder / "rounds.csv").read_text().splitlines()))
    assert rows[0] == list(ROUNDS.columns)
    assert [row[0] for row in rows[1:]] == ["1", "1", "1"]


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.json", None, "is not a run folder"),
        ("config.json", "{}", "names no method"),
        ("config.json", '{"method"', "cut off or damaged"),
        ("environment.json", None, "is missing"),
        ("environment.json", "[]", "must hold a JSON object"),
        ("summary.json", "{}", "is incomplete"),
        ("scores.csv", None, "is missing although"),
        ("scores.csv", "model,site\n", "lacks the column split, case, dice"),
        ("scores.csv", "model,site,split,case,dice\nlast,Ash,test,a,high\n", "line 2: expected a number, got 'high'"),
        ("rounds.csv", "round,site,metric,value\n1,Ash,loss,low\n", "line 2: expected a number, got 'low'"),
        ("rounds.csv", "round,site,metric,value\n1,Ash\n", "line 2, is cut off"),
    ],
)
def test_a_damaged_folder_is_refused_by_file_and_remedy(folder, file, content, said):
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        read_run(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_summary_is_asked_of_finished_runs_alone(folder):
    (folder / "summary.json").unlink()
    with pytest.raises(UserError, match=r"summary\.json: is not there; give the folder of a finished run"):
        read_summary(folder)


def picture(folder, name):
    (folder / "examples").mkdir(exist_ok=True)
    content = {"image": np.zeros((2, 2, 3)), "truth": np.eye(2), "prediction": np.eye(2), "dice": 1.0, "case": "a"}
    np.savez(folder / "examples" / name, **content)


def test_examples_come_by_site_and_number_and_a_site_name_may_hold_an_underscore(folder):
    for name in ("Ash_tree_0.npz", "Ash_10.npz", "Ash_2.npz"):
        picture(folder, name)
    examples = read_examples(read_run(folder))
    assert [(example.site, example.number) for example in examples] == [("Ash", 2), ("Ash", 10), ("Ash_tree", 0)]


def test_a_damaged_example_is_refused_by_name(folder):
    picture(folder, "Ash_0.npz")
    (folder / "examples" / "Ash_0.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"Ash_0\.npz cannot be read"):
        read_examples(read_run(folder))
