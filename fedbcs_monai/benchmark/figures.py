"""Figures: the measured values of one task, drawn as the paper's figures."""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib import rc_context
from matplotlib.lines import Line2D

from fedbcs_monai.benchmark.results import TaskResults
from fedbcs_monai.metrics.tables import Spread, average, mean_sd, site_means
from fedbcs_monai.report.drawing import Drawing, charts, finished, legend, name_axes
from fedbcs_monai.report.figures import Row, box_rows, dice_by_site, difference_by_site, validation
from fedbcs_monai.report.groups import MethodGroup
from fedbcs_monai.report.style import COLOURS, RC
from fedbcs_monai.runs.reader import Run

SWEPT, BASE = COLOURS[0], COLOURS[-1]
"""Colours of a sweep, and of what it is compared with."""


@rc_context(RC)
def overview(results: TaskResults) -> list[Drawing]:
    """AVG Dice of every run, a row per method, the bounds last; then the difference to FedAvg at every site."""
    groups = [*results.methods.scored, *_bounds(results)]
    each = [(group, [100 * _average(run, results.methods.unseen) for run in group.scored]) for group in groups]
    if not any(found for _, found in each):
        return []
    figure, shown = charts(["AVG Dice of every run"], 0.45 + 0.2 * len(groups), share_y=True)
    box_rows(shown[0], [Row(group.label, group.colour, found, mean_sd(found).mean) for group, found in each])
    name_axes(shown, "AVG Dice, %")
    caption = "Dots: runs. Diamonds: their mean. AVG: mean over the sites that took part in training."
    drawn = finished("average_dice", f"AVG Dice of every run, {results.name}", caption, figure)
    further = difference_by_site(results.methods, results.fedavg)
    return [drawn, *([further] if further else [])]


def convergence(results: TaskResults) -> list[Drawing]:
    """Figure 4 a: validation Dice over rounds: the mean over sites, then every site."""
    compared = results.methods._replace(groups=[*results.methods.scored, *_bounds(results)])
    drawn = validation(compared)
    return [drawn] if drawn else []


@rc_context(RC)
def swept(results: TaskResults) -> list[Drawing]:
    """Figure 3: Dice by the value of one key, on average and at every site; level, what it is compared with."""
    groups = results.swept.scored
    if len(groups) < 2:
        return []
    places = {"AVG": results.swept.trained, **{site: [site] for site in results.swept.trained}}
    figure, shown = charts(list(places), 1.5, share_y=True)
    for axes, sites in zip(shown, places.values(), strict=True):
        found = [_dice(group, sites) for group in groups]
        axes.errorbar(range(len(groups)), [one.mean for one in found], [one.sd for one in found], color=SWEPT,
                      marker="o", markersize=3, elinewidth=0.9, capsize=2)  # fmt: skip
        if results.base:
            axes.axhline(_dice(results.base, sites).mean, color=BASE, linestyle="--")
        axes.set_xticks(range(len(groups)), results.values)
    name_axes(shown, results.sweep_key, "Test Dice, %")
    keys = [Line2D([], [], color=SWEPT, marker="o", markersize=3, label=f"by {results.sweep_key}")]
    if results.base:
        keys.append(Line2D([], [], color=BASE, linestyle="--", label=results.base.label))
    legend(figure, keys)
    caption = "Means over runs; bars: ± one standard deviation over runs."
    return [finished("sweep", f"Test Dice by {results.sweep_key}, {results.name}", caption, figure)]


def style(results: TaskResults) -> list[Drawing]:
    """Figure 4 b: every test case, by where style is normalised."""
    groups = [replace(group, colour=COLOURS[n % len(COLOURS)]) for n, group in enumerate(results.style.groups)]
    drawn = dice_by_site(results.style._replace(groups=groups), "style")
    return [drawn] if drawn else []


def _bounds(results: TaskResults) -> list[MethodGroup]:
    return [group for group in results.bounds if group.scored]


def _dice(group: MethodGroup, sites: Sequence[str]) -> Spread:
    found = group.average("dice", sites, ())
    return Spread(100 * found.mean, 100 * found.sd, found.repeats)


def _average(run: Run, unseen: Sequence[str]) -> float:
    return average(site_means(run.scores["selected", "dice"]), unseen)
