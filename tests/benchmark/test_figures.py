"""The paper's figures: a curve a value, a line a method and site, a dot a run or test case."""

import pytest

from fedbcs_monai.benchmark.figures import convergence, overview, style, swept
from fedbcs_monai.benchmark.plan import Sweep, TaskPlan
from fedbcs_monai.benchmark.results import read_results

DICES = {"Ash": [0.6, 0.8], "Birch": [0.5, 0.5]}
BETTER = {"Ash": [0.7, 0.9], "Birch": [0.6, 0.5]}


@pytest.fixture
def results(row):
    methods = (row("FedAvg", DICES, BETTER), row("FedBCS", BETTER))
    sweep = Sweep("method::tau", (0.1, 0.4), (row("tau 0.1", DICES), row("tau 0.4", BETTER)), methods[0])
    return read_results(TaskPlan("nuclei", methods, style=methods, sweep=sweep))


def titles(drawing):
    return [axes.get_title(loc="left") for axes in drawing.figure.axes]


def test_the_overview_has_a_dot_a_run_and_then_the_differences(results):
    average, difference = overview(results)
    dots = [line for line in average.figure.axes[0].lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in dots] == [pytest.approx([60.0, 67.5]), pytest.approx([67.5])]
    assert titles(difference) == ["AVG", "Ash", "Birch"]


def test_a_sweep_has_a_curve_on_average_and_at_every_site_and_its_base(results):
    (drawing,) = swept(results)
    assert titles(drawing) == ["AVG", "Ash", "Birch"]
    curve, base = (drawing.figure.axes[0].lines[n] for n in (0, -1))
    assert list(curve.get_ydata()) == pytest.approx([60.0, 67.5])
    assert list(base.get_ydata()) == pytest.approx([63.75, 63.75])
    assert [label.get_text() for label in drawing.figure.axes[0].get_xticklabels()] == ["0.1", "0.4"]


def test_convergence_has_the_mean_and_every_site_that_trained(results):
    (drawing,) = convergence(results)
    assert titles(drawing) == ["Mean over sites", "Ash", "Birch"]


def test_style_has_a_dot_a_test_case(results):
    (drawing,) = style(results)
    dots = [line for axes in drawing.figure.axes for line in axes.lines if line.get_marker() == "o"]
    assert [len(line.get_xdata()) for line in dots] == [2, 2, 2, 2]
