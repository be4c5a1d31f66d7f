"""Plateau: the gain of the last fifth of the rounds, by worked numbers."""

import math

import pytest

from fedbcs_monai.metrics.plateau import late_gain, still_rises


@pytest.mark.parametrize(
    ("line", "rounds", "gain"),
    [
        ({8: 0.70, 10: 0.72}, 10, 2.0),
        ({7: 0.74, 8: 0.70, 9: 0.71, 10: 0.69}, 10, -3.0),  # the best of each fifth, not its last
        ({1: 0.1, 6: 0.9, 8: 0.70, 9: 0.705, 10: 0.70}, 10, 0.5),  # earlier rounds do not count
        ({5: 0.5, 10: 0.9}, 10, math.nan),  # nothing in the fifth before
        ({7: 0.5}, 10, math.nan),
        ({}, 10, math.nan),
        ({3: 0.5, 4: 0.6, 5: 0.6}, 5, 0.0),
    ],
)
def test_worked_numbers(line, rounds, gain):
    assert late_gain({"A": line}, rounds) == pytest.approx(gain, nan_ok=True)


def test_the_mean_over_sites_is_unweighted_and_leaves_out_what_is_not_defined():
    sites = {"A": {4: 0.5, 5: 0.6}, "B": {4: 0.7, 5: math.nan}}
    assert late_gain(sites, 5) == pytest.approx(0.0)


@pytest.mark.parametrize(("gain", "rises"), [(0.5, True), (0.4, False), (-2.0, False), (math.nan, False)])
def test_a_run_that_gains_half_a_point_still_rises(gain, rises):
    assert still_rises(gain) is rises
