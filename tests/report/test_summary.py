"""Verdict: the sentence says what the numbers say."""

import csv
import json

import pytest

from fedbcs_monai.report.groups import group
from fedbcs_monai.report.scoreboard import result_tables
from fedbcs_monai.report.summary import Comparison, headline
from fedbcs_monai.runs.reader import read_run


def say(*folders):
    runs = [read_run(folder) for folder in folders]
    return headline(Comparison(group(runs), runs[0].sites, runs[0].unseen))


@pytest.fixture
def scored(make_run):
    """A finished run whose test cases at two sites score as told: `scored(name, method, Ash=[...], Elm=[...])`.

    A number instead of a list is a site's mean, in a row whose case is called `cases`.
    """

    def write(name, method="FedAvg", seed=0, fold=0, cases="", **sites):
        folder = make_run(name, method, seed=seed)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "fold": fold}))
        rows = []
        for site, told in sites.items():
            each = enumerate(told) if isinstance(told, list) else [(cases, told)]
            rows += [("selected", site, "test", f"{i:08x}" if isinstance(i, int) else i, dice) for i, dice in each]
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
    said = say(scored("a", Ash=[0.5] * 2, Birch=[0.6] * 2), scored("b", "FedBCS", Ash=[0.8] * 2, Birch=[0.5] * 2))
    assert said.finding == (
        "FedBCS is ahead of FedAvg by 10.0 points (95% interval over test cases alone 10.0 to 10.0): "
        "65.0% mean Dice over 2 sites. It is behind at Birch (−10.0)."
    )
    assert said.caveat.endswith(
        "An interval over test cases alone says nothing of another training. "
        "One seed: the spread over seeds is not known."
    )


def test_one_case_of_a_site_has_no_interval_and_nobody_is_called_ahead(scored):
    said = say(scored("a", Ash=[0.5], Birch=[0.6, 0.7]), scored("b", "FedBCS", Ash=[0.8], Birch=[0.5, 0.6]))
    assert said.finding.startswith(
        "FedBCS is 10.0 points above FedAvg (no interval over test cases: a site has one test case, or reports only a "
        "mean): 67.5% mean Dice over 2 sites."
    )


def test_means_of_sites_count_as_their_cases_and_have_no_interval(scored):
    """Two sites of three cases that tell only means: six cases, and nothing that could be drawn from."""
    said = say(
        scored("a", Ash=0.5, Birch=0.6, cases="mean of 3"), scored("b", "FedBCS", Ash=0.7, Birch=0.9, cases="mean of 3")
    )
    assert said.finding.startswith("FedBCS is 25.0 points above FedAvg (no interval over test cases: a site has one")
    assert said.caveat.startswith("From 6 test cases at 2 sites and one run a method. Fewer than 10 test cases at Ash")


def test_means_of_folds_are_of_other_cases_and_those_of_an_unseen_site_are_not(scored):
    runs = [scored(f"f{k}", fold=k, Ash=0.5, Elm=0.6, cases=f"mean of {3 + k}") for k in range(2)]
    assert say(*runs).caveat.startswith("From 11 test cases at 2 sites")  # 3 and 4 at Ash, the same 4 at Elm


def test_what_is_undefined_counts_its_cases(scored):
    said = say(scored("a", Ash=[0.5], Birch="nan", cases="mean of 3"))
    assert said.finding == "No mean Dice over all sites: it is not defined at Birch."
    assert "3 undefined scores are left out." in said.caveat


def test_runs_of_several_seeds_are_told_one_by_one_before_the_interval_over_cases(scored):
    """7.3, 0.2 and 16.0: mean 7.83, standard deviation 7.91; t of 2 degrees of freedom is 4.303, so 19.66 each way."""
    told = {0: 0.073, 1: 0.002, 2: 0.160}
    avg = [scored(f"a{seed}", seed=seed, Ash=[0.5, 0.6]) for seed in told]
    bcs = [scored(f"b{seed}", "FedBCS", seed=seed, Ash=[0.5 + d, 0.6 + d]) for seed, d in told.items()]
    said = say(*avg, *bcs)
    assert said.finding.startswith(
        "FedBCS scores highest, 62.8% mean Dice over 1 site, but its 7.8 points over FedAvg are no more than the "
        "choice of seeds and folds can explain (run by run +7.3, +0.2 and +16.0, 95% interval over runs −11.8 to 27.5; "
        "95% interval over test cases alone 7.8 to 7.8)."
    )
    assert said.caveat.endswith("± is the standard deviation over runs, of 3 seeds a method.")


def test_who_is_ahead_with_every_seed_is_ahead(scored):
    """9, 10 and 11: standard deviation 1, so 4.303 / 3 ** 0.5 = 2.48 each way."""
    told = (0.09, 0.10, 0.11)
    avg = [scored(f"a{seed}", seed=seed, Ash=[0.5, 0.6]) for seed in range(3)]
    bcs = [scored(f"b{seed}", "FedBCS", seed=seed, Ash=[0.5 + d, 0.6 + d]) for seed, d in enumerate(told)]
    assert say(*avg, *bcs).finding.startswith(
        "FedBCS is ahead of FedAvg by 10.0 points (run by run +9.0, +10.0 and +11.0, 95% interval over runs "
        "7.5 to 12.5;"
    )


def test_a_gain_within_chance_is_not_called_ahead(scored):
    said = say(scored("a", Ash=[0.5, 0.8, 0.6]), scored("b", "FedBCS", Ash=[0.9, 0.5, 0.6]))
    assert "are no more than the choice of test cases can explain" in said.finding


def test_a_baseline_in_front_is_said_to_be_ahead(scored):
    said = say(*(scored(m, m, Ash=[d] * 2) for m, d in (("FedAvg", 0.8), ("FedBCS", 0.5), ("MOON", 0.6))))
    assert said.finding.startswith("FedAvg is ahead of MOON by 20.0 points")


def test_the_runner_up_is_named_if_it_is_not_the_baseline(scored):
    said = say(*(scored(m, m, Ash=[d] * 2) for m, d in (("FedAvg", 0.5), ("FedBCS", 0.8), ("MOON", 0.7))))
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
    assert "its 5.0 points over FedAvg are no more than the choice of seeds" in said.finding  # 0.0 and 10.0
    assert said.finding.endswith("At Elm, which no method was trained on: 60.0% against 50.0%.")
    said = say(
        scored("f", Ash=[0.8], Elm=[0.7]),
        scored("g", seed=1, Ash=[0.5], Elm=[0.3]),
        scored("h", "MOON", Ash=[0.9], Elm=[0.7]),
    )
    assert "MOON is 10.0 points above FedAvg" in said.finding
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
    assert said.finding.startswith("FedBCS scores highest")
    assert "its 5.0 points over FedAvg" in said.finding
    assert "MOON" not in said.finding
    assert "1 to 2 runs a method. Methods with fewer than 2 runs are not ranked." in said.caveat
    assert "± is the standard deviation over runs" in said.caveat


def test_a_run_that_still_rises_is_marked(make_run):
    """Validation Dice at the end: 50, 51 and then 53.5 percent at every site; the fifth before ends at 51."""
    folder, flat = make_run("rising"), make_run("flat", "FedBCS")
    lines = (folder / "rounds.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines]
    late = {"6": "0.5", "8": "0.51", "10": "0.535"}
    rows = [[*row[:3], late.get(row[0], row[3]) if row[2] == "val_dice" else row[3]] for row in rows]
    (folder / "rounds.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    both = say(folder, flat).caveat
    assert both.endswith(
        "Not at the plateau: over the last fifth of the rounds validation Dice rose for FedAvg by 2.5 points."
    )
    assert "plateau" not in say(flat).caveat
    runs = [read_run(path) for path in (folder, flat)]
    dice = result_tables(Comparison(group(runs), runs[0].sites, runs[0].unseen))[0]
    assert [row[0] for row in dice.table.rows] == ["FedAvg †", "FedBCS"]
    assert "† Not at the plateau" in dice.note
