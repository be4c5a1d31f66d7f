"""Arms: which runs belong together, and what they are called."""

from fedbcs_monai.report.groups import baseline, group
from fedbcs_monai.runs.reader import read_run


def arms_of(*folders):
    return group([read_run(folder) for folder in folders])


def test_seeds_of_one_method_are_one_arm(make_run):
    arms = arms_of(make_run("a", "FedBCS", 0), make_run("b", "FedAvg"), make_run("c", "FedBCS", 1))
    assert [(arm.label, len(arm.runs)) for arm in arms] == [("FedBCS", 2), ("FedAvg", 1)]


def test_one_method_with_two_settings_is_two_arms_named_by_the_setting(make_run):
    arms = arms_of(make_run("a", "MOON", mu=1, tau=0.5), make_run("b", "MOON", mu=5, tau=0.5))
    assert [arm.label for arm in arms] == ["MOON (mu 1)", "MOON (mu 5)"]


def test_arms_have_colours_or_dashes_of_their_own(make_run):
    arms = arms_of(*(make_run(f"r{mu}", "FedProx", mu=mu) for mu in range(9)))
    assert len({(arm.colour, arm.dash) for arm in arms}) == 9


def test_fedavg_is_the_baseline_wherever_it_stands(make_run):
    assert baseline(arms_of(make_run("a", "FedBCS"), make_run("b", "FedAvg"))).label == "FedAvg"


def test_without_fedavg_the_first_run_is_the_baseline(make_run):
    assert baseline(arms_of(make_run("a", "MOON"), make_run("b", "FedBCS"))).label == "MOON"


def test_an_unfinished_fedavg_is_no_baseline(make_run):
    assert baseline(arms_of(make_run("a", finished=False), make_run("b", "FedBCS"))).label == "FedBCS"


def test_spread_is_over_seeds(make_run):
    (arm,) = arms_of(make_run("a", seed=0), make_run("b", seed=1))
    assert arm.average("dice", ("Ash", "Birch"), ()).repeats == 2
    assert len(arm.cases("dice")) == 60
