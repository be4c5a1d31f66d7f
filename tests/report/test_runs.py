"""Runs: what is read from a run folder, and what is refused."""

import json

import pytest

from fedbcs_monai.errors import UserError
from fedbcs_monai.report.runs import check_comparable, read_examples, read_run


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_finished_run_knows_its_sites_and_scores(make_run):
    run = read_run(make_run("a", "FedBCS"))
    assert run.name == "FedBCS"
    assert run.sites == ("Ash", "Birch", "Cedar", "Maple", "Elm")
    assert len(run.scores["selected", "dice"]) == 60


def test_an_unfinished_run_goes_by_its_method_and_may_lack_its_last_line(make_run):
    folder = make_run("a", "MOON", finished=False)
    with (folder / "rounds.csv").open("a") as file:
        file.write("5,Ash,lo")
    run = read_run(folder)
    assert (run.name, run.summary, run.rounds_done) == ("MOON", None, 4)


def test_an_unfinished_run_may_lack_everything_but_its_settings(make_run):
    folder = make_run("a", finished=False)
    (folder / "rounds.csv").unlink()
    assert read_run(folder).sites == ()


def test_empty_distances_are_undefined(make_run):
    scores = read_run(make_run("a")).scores["selected", "hd95_mm"]
    assert all((score.value != score.value) == (score.site == "Elm") for score in scores)


def test_examples_come_by_site_and_number(make_run):
    examples = read_examples(read_run(make_run("a")))
    assert [(example.site, example.number) for example in examples[:3]] == [("Ash", 0), ("Ash", 1), ("Birch", 0)]


def test_a_site_name_may_hold_an_underscore(make_run):
    folder = make_run("a")
    (folder / "examples" / "Ash_0.npz").rename(folder / "examples" / "Ash_tree_0.npz")
    assert "Ash_tree" in {example.site for example in read_examples(read_run(folder))}


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
        ("rounds.csv", "round,site,metric,value\n1,Ash,loss,low\n", "line 2: expected a number, got 'low'"),
        ("rounds.csv", "round,site,metric,value\n1,Ash\n", "line 2, is cut off"),
    ],
)
def test_a_damaged_folder_is_refused_by_file_and_remedy(make_run, file, content, said):
    folder = make_run("a")
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    with pytest.raises(UserError, match=said) as refused:
        read_run(folder)
    assert str(folder) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_damaged_example_is_refused_by_name(make_run):
    folder = make_run("a")
    (folder / "examples" / "Ash_0.npz").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"Ash_0\.npz cannot be read"):
        read_examples(read_run(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"sites": {"Oak": {"train": 1, "val": 1, "test": 1}}}, "the sites differ"),
        ({"unseen": []}, "the unseen sites differ"),
        ({"task": "prostate"}, "the task differ"),
    ],
)
def test_runs_of_another_federation_are_refused(make_run, changes, said):
    first, other = make_run("a"), make_run("b")
    change(other / "summary.json", **changes)
    with pytest.raises(UserError, match=said):
        check_comparable([read_run(first), read_run(other)])


def test_an_unfinished_run_of_other_sites_is_refused(make_run):
    other = make_run("b", finished=False)
    (other / "rounds.csv").write_text("round,site,metric,value\n1,Oak,loss,0.5\n")
    with pytest.raises(UserError, match="the sites differ"):
        check_comparable([read_run(make_run("a")), read_run(other)])


def test_runs_of_other_test_cases_are_refused_and_those_of_another_fold_are_not(make_run):
    """As if the site list had been written again between them."""
    first, other = make_run("a"), make_run("b")
    scores = other / "scores.csv"
    scores.write_text(scores.read_text().replace("00000000", "abcdef01"))
    with pytest.raises(UserError, match=r"the test cases of Ash differ \(abcdef01 against 00000000\)"):
        check_comparable([read_run(first), read_run(other)])
    change(other / "config.json", fold=1)
    check_comparable([read_run(first), read_run(other)])
