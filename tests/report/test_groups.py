"""Arms: which runs belong together, and what they are called."""

from fedbcs_monai.report.groups import baseline, group
from fedbcs_monai.runs.reader import read_run


def arms_of(*folders):
    return group([read_run(folder) for folder in folders])


def test_seeds_of_one_method_are_one_arm(make_run):
    groups = arms_of(make_run("a", "FedBCS", 0), make_run("b", "FedAvg"), make_run("c", "FedBCS", 1))
    assert [(group.label, len(group.runs)) for group in groups] == [("FedBCS", 2), ("FedAvg", 1)]


def test_one_method_with_two_settings_is_two_arms_named_by_the_setting(make_run):
    groups = arms_of(make_run("a", "MOON", mu=1, tau=0.5), make_run("b", "MOON", mu=5, tau=0.5))
    assert [group.label for group in groups] == ["MOON (mu 1)", "MOON (mu 5)"]


def test_arms_have_colours_or_dashes_of_their_own(make_run):
    groups = arms_of(*(make_run(f"r{mu}", "FedProx", mu=mu) for mu in range(9)))
    assert len({(group.colour, group.dash) for group in groups}) == 9


def test_fedavg_is_the_baseline_wherever_it_stands(make_run):
    assert baseline(arms_of(make_run("a", "FedBCS"), make_run("b", "FedAvg"))).label == "FedAvg"


def test_without_fedavg_the_first_run_is_the_baseline(make_run):
    assert baseline(arms_of(make_run("a", "MOON"), make_run("b", "FedBCS"))).label == "MOON"


def test_an_unfinished_fedavg_is_no_baseline(make_run):
    assert baseline(arms_of(make_run("a", finished=False), make_run("b", "FedBCS"))).label == "FedBCS"


def test_spread_is_over_seeds(make_run):
    (group,) = arms_of(make_run("a", seed=0), make_run("b", seed=1))
    assert group.average("dice", ("Ash", "Birch"), ()).repeats == 2
    assert len(group.cases("dice")) == 60
