"""Verdict: the sentence says what the numbers say."""

import csv

import pytest

from fedbcs_monai.report.arms import group
from fedbcs_monai.report.runs import read_run
from fedbcs_monai.report.verdict import Comparison, verdict


def say(*folders):
    runs = [read_run(folder) for folder in folders]
    return verdict(Comparison(group(runs), runs[0].sites, runs[0].unseen))


@pytest.fixture
def scored(make_run):
    """A finished run whose test cases at two sites score as told: `scored(name, method, Ash=[...], Elm=[...])`."""

    def write(name, method="FedAvg", seed=0, **sites):
        folder = make_run(name, method, seed=seed)
        rows = [("selected", site, "test", f"{i:08x}", dice) for site in sites for i, dice in enumerate(sites[site])]
        with (folder / "scores.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("model", "site", "split", "case", "dice"), *rows])
        return folder

    return write


def test_one_run_is_told_by_its_mean_and_its_weakest_site(scored):
    said = say(scored("a", Ash=[0.8, 0.9], Birch=[0.7], Elm=[0.5]))
    assert said.finding == (
        "FedAvg reaches a mean Dice of 77.5% over 2 sites; it is weakest at Birch, with 70.0%. "
        "At Elm, which no method was trained on: 50.0%."
    )
    assert said.caveat.startswith("From 4 test cases at 3 sites and one run a method. Fewer than 10 test cases at Ash")


def test_the_leader_is_named_with_the_sites_where_it_is_behind(scored):
    said = say(scored("a", Ash=[0.5], Birch=[0.6]), scored("b", "FedBCS", Ash=[0.8], Birch=[0.5]))
    assert said.finding == (
        "FedBCS is ahead of FedAvg by 10.0 points (95% interval 10.0 to 10.0): 65.0% mean Dice over 2 sites. "
        "It is behind at Birch (−10.0)."
    )


def test_a_gain_within_chance_is_not_called_ahead(scored):
    said = say(scored("a", Ash=[0.5, 0.8, 0.6]), scored("b", "FedBCS", Ash=[0.9, 0.5, 0.6]))
    assert "are no more than the choice of test cases can explain" in said.finding


def test_a_baseline_in_front_is_said_to_be_ahead(scored):
    said = say(scored("a", Ash=[0.8]), scored("b", "FedBCS", Ash=[0.5]), scored("c", "MOON", Ash=[0.6]))
    assert said.finding.startswith("FedAvg is ahead of MOON by 20.0 points")


def test_the_runner_up_is_named_if_it_is_not_the_baseline(scored):
    said = say(scored("a", Ash=[0.5]), scored("b", "FedBCS", Ash=[0.8]), scored("c", "MOON", Ash=[0.7]))
    assert "ahead of FedAvg by 30.0 points" in said.finding
    assert "Next is MOON, with 70.0%." in said.finding


def test_equal_methods_are_level(scored):
    said = say(scored("a", Ash=[0.5]), scored("b", "FedBCS", Ash=[0.5]))
    assert said.finding.startswith("FedAvg and FedBCS are level: 50.0% mean Dice over 1 site.")


def test_an_unfinished_run_is_told_by_its_rounds(make_run):
    assert say(make_run("a", finished=False)).finding == "Not finished: FedAvg has done 4 of 10 rounds."


def test_undefined_scores_are_counted(scored):
    assert "1 undefined score is left out." in say(scored("a", Ash=[0.5, "nan"])).caveat


def test_the_luck_of_a_seed_is_on_both_sides(scored):
    """Seed 0 is a good one: who has it alone is not ahead for that, nor better at the unseen site."""
    said = say(
        scored("a", Ash=[0.8], Elm=[0.7]),
        scored("b", seed=1, Ash=[0.5], Elm=[0.3]),
        scored("c", "MOON", Ash=[0.7], Elm=[0.7]),
        scored("d", "FedBCS", Ash=[0.8], Elm=[0.8]),
        scored("e", "FedBCS", seed=1, Ash=[0.6], Elm=[0.4]),
    )
    assert said.finding.startswith("FedBCS is ahead of FedAvg by 5.0 points")
    assert said.finding.endswith("At Elm, which no method was trained on: 60.0% against 50.0%.")
    said = say(
        scored("f", Ash=[0.8], Elm=[0.7]),
        scored("g", seed=1, Ash=[0.5], Elm=[0.3]),
        scored("h", "MOON", Ash=[0.9], Elm=[0.7]),
    )
    assert "MOON is ahead of FedAvg by 10.0 points" in said.finding
    assert said.finding.endswith("70.0% against 70.0%.")


def test_a_lucky_seed_alone_does_not_lead(scored):
    """As in the tables, who has fewer runs than others is not ranked."""
    said = say(
        scored("a", Ash=[0.8]),
        scored("b", seed=1, Ash=[0.5]),
        scored("c", "FedBCS", Ash=[0.8]),
        scored("d", "FedBCS", seed=1, Ash=[0.6]),
        scored("e", "MOON", Ash=[0.9]),
    )
    assert said.finding.startswith("FedBCS is ahead of FedAvg by 5.0 points")
    assert "MOON" not in said.finding
    assert "1 to 2 runs a method. Methods with fewer than 2 runs are not ranked." in said.caveat
    assert "± is the standard deviation over runs" in said.caveat
