"""Aggregation: worked numbers of every rule, what no rule may depend on, and how far one hostile site moves it."""

import re
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregation import RULES, Part, Rule, rule_of
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.methods import SCAFFOLD, FedAvgM, FedBCS, FedBN, Method

START = State(0, {"w": torch.zeros(2)}, {})
SITES = ("Alder", "Birch", "Cedar", "Dogwood", "Elm")
ROBUST = [name for name in RULES if name != "mean"]


def updates():
    """1 of three cases, and 5 of one: 2 by cases, 3 by sites."""
    return [Update("Alder", 3, {"w": torch.ones(2)}, {}, {}), Update("Birch", 1, {"w": torch.full((2,), 5.0)}, {}, {})]


def parts(*values, weights=(1, 1, 1, 1, 1)):
    return [
        Part(site, {"w": torch.tensor(value)}, weight)
        for site, value, weight in zip(SITES, values, weights, strict=False)
    ]


def moved(rule, *values, before=0.0, weights=(1, 1, 1, 1, 1)):
    start = torch.full_like(torch.tensor(values[0]), before)
    return rule_of(rule)({"w": start}, parts(*values, weights=weights))["w"].tolist()


@pytest.mark.parametrize(("weighting", "value"), [("cases", 2.0), ("equal", 3.0)])
def test_the_mean_is_weighted_as_the_method_says(weighting, value):
    assert Method(weighting=weighting).aggregate(START, updates()).weights["w"].tolist() == [value, value]


@dataclass(frozen=True)
class Last(Rule):
    def __call__(self, before, parts):
        *_, part = parts
        return part.tensors


def test_the_rule_of_a_method_is_looked_up_by_its_name(monkeypatch):
    monkeypatch.setitem(RULES, "last", Last)
    assert FedBCS(aggregation="last").aggregate(START, updates()).weights["w"].tolist() == [5.0, 5.0]


def test_a_rule_that_there_is_not_is_refused():
    with pytest.raises(UserError, match=r"is 'best': choose one of mean, .*{trimmed_mean: SHARE}, {krum: HOSTILE}"):
        Method(aggregation="best")


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ({"mean": 1}, "{mean: 1}: mean has no parameter; write mean"),
        ({"krum": "x"}, "hostile of krum must be a whole number, as in {krum: 1}"),
        ({"krum": 0.5}, "hostile of krum must be a whole number"),
        ({"krum": True}, "hostile of krum must be a whole number"),
        ({"krum": -1}, "{krum: -1}: hostile is -1: it must be 0 or more"),
        ({"krum": 1, "multi_krum": 1}, "{krum: 1, multi_krum: 1}: choose one of mean"),
        ({}, "{}: choose one of mean"),
        (7, "aggregation is 7: choose one of mean"),
        ({"trimmed_mean": "half"}, "share of trimmed_mean must be a number, as in {trimmed_mean: 0.25}"),
        ({"trimmed_mean": 0.5}, "share is 0.5: it must be 0 or more and below 0.5"),
        ({"trimmed_mean": float("nan")}, "share is nan"),
        ({"centered_clipping": 0}, "radius is 0.0: it must be above 0 and finite"),
    ],
)
def test_a_value_that_a_rule_does_not_take_is_refused(named, message):
    with pytest.raises(UserError, match=re.escape(message)):
        Method(aggregation=named)


@pytest.mark.parametrize(
    ("rule", "least"),
    [
        ("norm_clipped_mean", 3),
        ("coordinate_median", 3),
        ({"trimmed_mean": 0}, 1),
        ({"trimmed_mean": 0.25}, 3),
        ({"krum": 0}, 3),
        ({"krum": 1}, 5),
        ({"multi_krum": 1}, 5),
        ("centered_clipping", 3),
    ],
)
def test_too_few_sites_are_an_error_that_names_them(rule, least):
    moved(rule, *map(float, range(least)))
    if least > 1:
        with pytest.raises(UserError, match=r"aggregation .* is defined for \d sites or more.*Alder.*mean"):
            moved(rule, *map(float, range(least - 1)))


def test_the_median_of_every_coordinate():
    assert moved("coordinate_median", [1.0, 9.0], [2.0, 7.0], [50.0, 8.0]) == [2.0, 8.0]
    assert moved("coordinate_median", 1.0, 2.0, 4.0, 50.0) == 3.0


def test_the_trimmed_mean_leaves_out_the_extremes_of_every_coordinate():
    assert moved({"trimmed_mean": 0.25}, [1.0, -80.0], [2.0, 4.0], [4.0, 6.0], [50.0, 8.0]) == [3.0, 5.0]


def test_a_trimmed_mean_that_cuts_nothing_is_the_unweighted_mean():
    values = [[0.1, -3.0], [0.7, 2.0], [5.0, 1.5]]
    assert moved({"trimmed_mean": 0}, *values, weights=(9, 1, 4)) == moved("mean", *values)


def test_steps_are_clipped_to_the_median_length_and_no_site_weighs_more_than_the_median():
    # From 10: steps -1, +2 and +40, the last clipped to +2; (-1 + 2 + 2) / 3 = 1.
    assert moved("norm_clipped_mean", 9.0, 12.0, 50.0, before=10.0) == 11.0
    # Weights 1, 2, 900 are 1, 2, 2: (-1 + 4 + 4) / 5 = 1.4.
    assert moved("norm_clipped_mean", 9.0, 12.0, 50.0, before=10.0, weights=(1, 2, 900)) == pytest.approx(11.4)


def test_a_step_is_as_long_as_all_its_tensors_together():
    sites = [{"a": a, "b": b} for a, b in ((3.0, 4.0), (0.0, 5.0), (60.0, 80.0))]
    before = {name: torch.tensor(0.0) for name in "ab"}
    given = [Part(s, {n: torch.tensor(v) for n, v in t.items()}, 1) for s, t in zip(SITES, sites, strict=False)]
    found = rule_of("norm_clipped_mean")(before, given)
    assert [found["a"].item(), found["b"].item()] == pytest.approx([2.0, 13 / 3])  # (60, 80) becomes (3, 4)


def test_krum_selects_the_site_nearest_to_its_nearest():
    # With f = 1 of 5 two neighbours count: 0 has 1 + 9, 1 has 1 + 4, 3 has 4 + 9, 6 has 9 + 25, 90 much more.
    assert moved({"krum": 1}, 0.0, 1.0, 3.0, 6.0, 90.0) == 1.0


def test_multi_krum_is_the_mean_of_all_but_the_hostile():
    assert moved({"multi_krum": 1}, 0.0, 1.0, 3.0, 6.0, 90.0) == 2.5


def test_centered_clipping_moves_the_center_three_times():
    # Radius 2, the median length. 0 + (2 + 2 + 2) / 3 = 2; + (0 + 0 + 2) / 3 = 8/3; + (-2/3 - 2/3 + 2) / 3 = 26/9.
    assert moved("centered_clipping", 2.0, 2.0, 50.0) == pytest.approx(26 / 9)


def test_centered_clipping_with_a_large_radius_is_the_unweighted_mean():
    assert moved({"centered_clipping": 1000}, 1.0, 2.0, 6.0, weights=(9, 1, 1)) == pytest.approx(3.0)


@pytest.mark.parametrize("rule", ROBUST)
def test_sites_that_agree_are_followed_to_the_bit(rule):
    torch.manual_seed(0)
    before, same = ({"w": torch.randn(50), "n": torch.tensor(n)} for n in (3, 7))
    found = rule_of(rule)(before, [Part(site, same, 3) for site in SITES])
    assert torch.equal(found["w"], same["w"])
    assert (found["w"].dtype, found["n"].dtype, found["n"].item()) == (torch.float32, torch.int64, 7)


@pytest.mark.parametrize("rule", ROBUST)
def test_the_order_of_the_sites_changes_no_bit(rule):
    torch.manual_seed(0)
    sent = [Update(site, 1 + n % 2, {"w": torch.randn(2)}, {}, {}) for n, site in enumerate(SITES)]
    results = [Method(aggregation=rule).aggregate(START, order).weights["w"] for order in (sent, sent[::-1])]
    assert torch.equal(*results)


@pytest.mark.parametrize("rule", ROBUST)
def test_a_number_of_cases_that_is_not_true_gives_no_more_than_the_weight_of_the_median_site(rule):
    sent = [Update(site, 5, {"w": torch.full((2,), float(n))}, {}, {}) for n, site in enumerate(SITES)]
    honest = Method(aggregation=rule).aggregate(START, sent).weights["w"]
    sent[4] = Update("Elm", 10**7, {"w": torch.full((2,), 4.0)}, {}, {})
    assert torch.equal(Method(aggregation=rule).aggregate(START, sent).weights["w"], honest)


def test_what_stays_at_a_site_and_what_rides_with_the_network_are_as_with_the_mean():
    state = State(0, {"w": torch.zeros(1), "private": torch.full((1,), 7.0)}, {})
    weights = [{"w": torch.full((1,), float(n))} for n in range(3)]
    sent = [Update(s, 1, w, {"control/w": w["w"] * 2}, {}) for s, w in zip(SITES, weights, strict=False)]
    for method in (FedBN, FedAvgM, SCAFFOLD):
        found = method(aggregation="coordinate_median").aggregate(state, sent)
        assert {name: tensor.item() for name, tensor in found.weights.items()} == {"w": 1.0, "private": 7.0}
    assert found.shared["control/w"].item() == 2.0


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e13])
def test_what_is_not_finite_or_too_large_never_reaches_a_rule(rule, value):
    sent = [Update(site, 1, {"w": torch.ones(2)}, {}, {}) for site in SITES]
    refused = []
    server = Aggregator(Method(aggregation=rule), START, refused=lambda broadcast, site, reason: refused.append(site))
    bad = Update("Fir", 1, {"w": torch.full((2,), value)}, {}, {})
    (state,) = server.rounds(lambda broadcast: [bad, *sent], 1)
    assert refused == ["Fir"]
    assert state.weights["w"].tolist() == [1.0, 1.0]


NUMBERS = st.floats(-100, 100, width=32)
HOSTILE = st.floats(-(2.0**39), 2.0**39, width=32)


@given(st.lists(NUMBERS, min_size=4, max_size=4), HOSTILE, st.integers(0, 4), NUMBERS)
def test_one_hostile_site_moves_median_and_trimmed_mean_within_the_honest_range(honest, hostile, where, before):
    values = [*honest[:where], hostile, *honest[where:]]
    for rule in ("coordinate_median", {"trimmed_mean": 0.2}, {"trimmed_mean": 0.25}):
        found = moved(rule, *values, before=before)
        assert min(honest) - 1e-5 <= found <= max(honest) + 1e-5


@given(st.lists(NUMBERS, min_size=4, max_size=4), HOSTILE, st.integers(0, 4))
def test_krum_stays_within_the_honest_diameter_of_an_honest_site(honest, hostile, where):
    found = moved({"krum": 1}, *honest[:where], hostile, *honest[where:])
    diameter = max(honest) - min(honest)
    assert min(abs(found - value) for value in honest) <= diameter + 1e-5


@given(st.lists(NUMBERS, min_size=4, max_size=4), HOSTILE)
def test_clipping_moves_no_further_than_the_honest_steps_are_long(honest, hostile):
    longest = max(map(abs, honest)) * (1 + 1e-6)
    assert abs(moved("norm_clipped_mean", *honest, hostile)) <= longest
    assert abs(moved("centered_clipping", *honest, hostile)) <= 3 * longest
