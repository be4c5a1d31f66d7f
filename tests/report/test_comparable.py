"""Runs beside each other: those of another federation are refused."""

import json

import pytest

from fedbcs_monai.errors import UserError
from fedbcs_monai.report.comparable import check_comparable
from fedbcs_monai.runs.reader import read_run


def change(path, **changes):
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


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
