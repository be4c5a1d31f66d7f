"""Figures: outlines are exact, axes are round, names are escaped."""

import math

import numpy as np
import pytest

from fedbcs_monai.report.figures import (
    Line,
    Range,
    Strip,
    axis,
    line_chart,
    outline,
    rounds_axis,
    strip_chart,
)

UNIT = Range(0, 1, (0, 1))


def test_outline_of_one_pixel_is_its_square():
    assert outline(np.array([[False, False], [False, True]])) == "M1 1h1M1 2h1M1 1v1M2 1v1"


def test_outline_of_nothing_is_empty():
    assert outline(np.zeros((3, 3), bool)) == ""


def test_outline_of_a_hole_has_both_edges():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert "M1 1h1" in outline(ring)


@pytest.mark.parametrize("values", [[], [math.nan], [0.0], [5.0, 5.0], [-1.0, 1.0], [1e-9, 2e-9], [0.2, 97.3]])
def test_axis_holds_every_value(values):
    found = axis(values)
    assert found.low < found.high
    assert all(found.low <= value <= found.high for value in values if math.isfinite(value))


def test_rounds_are_ticked_at_whole_numbers():
    assert rounds_axis([1, 2, 3]).ticks == (1, 2, 3)
    assert rounds_axis([0, 400]).ticks == (0, 100, 200, 300, 400)


def test_a_single_round_still_has_an_axis():
    assert rounds_axis([3]) == Range(3, 4, (3, 4))


def test_points_that_are_not_finite_leave_the_line():
    chart = line_chart([Line("a", [(0, 0.0), (0.5, math.nan), (1, 1.0)], "#000000")], UNIT, UNIT, "chart")
    assert "nan" not in chart
    assert chart.count("<polyline") == 1


def test_names_are_escaped_in_charts():
    line = line_chart([Line("<b>", [(0, 0.0), (1, 1.0)], "#000000")], UNIT, UNIT, "<i>")
    strip = strip_chart([Strip("<b>", [0.5], 0.5, "#000000")], UNIT, "<i>")
    assert "<b>" not in line + strip
    assert "&lt;i&gt;" in line


def test_long_names_are_shortened_in_strips():
    assert "FedBCS (rela…" in strip_chart([Strip("FedBCS (relation 0.5)", [], math.nan, "#000000")], UNIT, "chart")
