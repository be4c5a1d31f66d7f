"""Report figures: learning curves, scores and differences of the compared methods."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from fedbcs_monai.metrics.tables import Interval, average, mean_sd, paired_bootstrap
from fedbcs_monai.report.drawing import Drawing, charts, finished, legend, name_axes, name_rows, whole_numbers
from fedbcs_monai.report.groups import MethodGroup, baseline
from fedbcs_monai.report.prototypes import prototype_map
from fedbcs_monai.report.style import INK, RC, SOFT
from fedbcs_monai.report.summary import Comparison, gain
from fedbcs_monai.runs.reader import ADDED_UP, Run

LOSSES = {
    "loss": "Total training loss",
    "segmentation": "Segmentation loss",
    "contrast": "Contrastive term",
    "consistency": "Consistency term",
}
NOT_LOSSES = {"val_dice", "test_dice", *ADDED_UP}

FEW = 5
"""Fewer points than this have no box: its quartiles would be the points themselves."""

SPREAD = "Lines: mean over runs; bands: ± one standard deviation over runs, as far as all runs of a method have come."

Line = Mapping[int, float]
"""From a round to a value."""


class Row(NamedTuple):
    """A row of points: its label and colour, the points, and their mean."""

    label: str
    colour: str
    values: Sequence[float]
    mean: float


class Point(NamedTuple):
    """A round with the mean over runs and its standard deviation, NaN for one run."""

    round: int
    mean: float
    sd: float


class Curve(NamedTuple):
    """One method over rounds; `ring` is the round to mark."""

    group: MethodGroup
    points: Sequence[Point]
    ring: int | None = None


def comparison_figures(compared: Comparison) -> list[Drawing]:
    """Every figure that the runs have numbers for."""
    every = (dice_by_site, difference_by_site, validation, losses, prototype_map)
    drawn = [draw(compared) for draw in every]
    return [drawing for drawing in drawn if drawing]


@rc_context(RC)
def dice_by_site(compared: Comparison, key: str = "dice_by_site") -> Drawing | None:
    """Dice of every test case: a panel for every site, and in it a box for every method."""
    if not compared.scored:
        return None
    cases = {group.label: group.cases("dice") for group in compared.scored}
    titles = [_site_title(site, compared) for site in compared.tested]
    figure, shown = charts(titles, 0.45 + 0.2 * len(cases), share_y=True)
    for axes, site in zip(shown, compared.tested, strict=True):
        rows = [
            Row(
                group.label,
                group.colour,
                [100 * score.value for score in cases[group.label] if score.site == site],
                100 * group.means("dice", [site])[site].mean,
            )
            for group in compared.scored
        ]
        box_rows(axes, rows)
    name_axes(shown, "Dice, %")
    caption = (
        "Dots: test cases, each the mean over the runs of a method. Boxes: median and quartiles, with whiskers to the "
        f"last case within 1.5 interquartile ranges; fewer than {FEW} cases have none. Diamonds: means."
    )
    return finished(key, "Dice of every test case, by site", caption, figure)


@rc_context(RC)
def difference_by_site(compared: Comparison, reference: MethodGroup | None = None) -> Drawing | None:
    """How much every method exceeds the reference, on average and at every site."""
    scored = compared.scored
    reference = reference or (baseline(scored) if scored else None)
    others = [group for group in scored if group is not reference]
    if not reference or not others:
        return None
    titles = ["AVG", *(_site_title(site, compared) for site in compared.tested)]
    figure, shown = charts(titles, 0.45 + 0.17 * len(others), share_y=True)
    found = {group.label: differences(group, reference, compared) for group in others}
    for n, axes in enumerate(shown):
        axes.axvline(0, color=SOFT, linewidth=0.9)
        for at, group in enumerate(others):
            value, low, high = found[group.label][n]
            axes.plot([low, high], [at, at], color=group.colour, linewidth=1.4)
            axes.plot([value], [at], "o", color=group.colour, markersize=4)
        name_rows(axes, [group.label for group in others])
    name_axes(shown, f"Dice − Dice of {reference.label}, points")
    caption = (
        f"Dots: mean difference to {reference.label} over the seeds and test cases that both have. Bars: 95% interval "
        "of a paired bootstrap over test cases, with the trainings as they are; none where a site has one case or "
        "reports only a mean. AVG: mean over the sites that took part in training."
    )
    return finished("dice_difference", f"Dice difference to {reference.label}, by site", caption, figure)


def differences(group: MethodGroup, reference: MethodGroup, compared: Comparison) -> list[Interval]:
    """In points, the difference to the reference and its interval over cases: of AVG, then at every tested site."""
    both = group.repeats & reference.repeats
    whole = gain(group, reference, compared)
    found = [Interval(whole.value, whole.low, whole.high)]
    for site in compared.tested:
        own, others = (
            [score for score in each.cases("dice", only=both) if score.site == site] for each in (group, reference)
        )
        found.append(Interval(*(100 * number for number in paired_bootstrap(own, others))))
    return found


@rc_context(RC)
def validation(compared: Comparison) -> Drawing | None:
    """Validation Dice over rounds: the mean over sites, then each site."""
    found = [site for site in compared.sites if any(site in _recorded(group, "val_dice") for group in compared.groups)]
    if not found:
        return None
    figure, shown = charts(["Mean over sites", *found], 1.5, share_y=True)
    draw_curves(shown[0], curves(compared.groups, lambda run: over_sites(run.curves.get("val_dice", {})), 100))
    for axes, site in zip(shown[1:], found, strict=True):

        def line(run: Run, site: str = site) -> Line:
            return run.curves.get("val_dice", {}).get(site, {})

        draw_curves(axes, curves(compared.groups, line, 100))
    name_axes(shown, "Round", "Validation Dice, %")
    legend(figure, [key_of(group) for group in compared.groups])
    ringed = any(len(group.runs) == 1 and group.runs[0].summary for group in compared.groups)
    repeated = any(len(group.runs) > 1 for group in compared.groups)
    said = [SPREAD] if repeated else []
    said += ["Circles: the round whose weights were selected."] if ringed else []
    return finished("validation_dice", "Dice on the validation cases, by round", " ".join(said), figure)


@rc_context(RC)
def losses(compared: Comparison) -> Drawing | None:
    """Every recorded loss term over rounds, as the mean over sites; a test score that was followed comes last."""
    recorded = dict.fromkeys(metric for group in compared.groups for metric in _metrics(group))
    shown = [metric for metric in LOSSES if metric in recorded]
    shown += [metric for metric in recorded if metric not in LOSSES and metric not in NOT_LOSSES]
    titles = [LOSSES.get(metric, metric.capitalize()) for metric in shown]
    if "test_dice" in recorded:
        shown, titles = [*shown, "test_dice"], [*titles, "Test Dice, %"]
    if not shown:
        return None
    figure, axes = charts(titles, 1.5, share_y=False)
    for each, metric in zip(axes, shown, strict=True):

        def line(run: Run, metric: str = metric) -> Line:
            sites = run.curves.get(metric, {})
            return over_sites({site: values for site, values in sites.items() if site not in compared.unseen})

        followed = metric == "test_dice"
        draw_curves(each, curves(compared.groups, line, 100 if followed else 1, ring=followed))
    name_axes(axes, "Round")
    legend(figure, [key_of(group) for group in compared.groups])
    caption = "Means over the sites that took part in training."
    if any(len(group.runs) > 1 for group in compared.groups):
        caption += f" {SPREAD}"
    if len(compared.groups) > 1:
        caption += (
            " Methods add different terms, so their total losses cannot be compared; each should fall and settle."
        )
    if "test_dice" in recorded:
        caption += " The test Dice was followed, not used to choose."
    return finished("losses", "Training losses, by round", caption, figure)


def curves(groups: Iterable[MethodGroup], line: Callable[[Run], Line], scale: float, ring: bool = True) -> list[Curve]:
    """Every method's curve over its runs, in another unit; of a single run, with its selected round."""
    found = []
    for group in groups:
        points = over_runs([line(run) for run in group.runs if line(run)])
        summary = group.runs[0].summary if len(group.runs) == 1 and ring else None
        scaled = [Point(at, scale * mean, scale * sd) for at, mean, sd in points]
        found.append(Curve(group, scaled, summary.selected_round if summary else None))
    return found


def over_runs(lines: Sequence[Line]) -> list[Point]:
    """The mean over runs and its spread, at every round that all of them have.

    >>> over_runs([{1: 0.2, 2: 0.5}, {1: 0.4}])
    [Point(round=1, mean=0.30000000000000004, sd=0.14142135623730953)]
    """
    shared = set.intersection(*(set(line) for line in lines)) if lines else set()
    spreads = [(at, mean_sd(line[at] for line in lines)) for at in sorted(shared)]
    return [Point(at, spread.mean, spread.sd) for at, spread in spreads if math.isfinite(spread.mean)]


def over_sites(sites: Mapping[str, Line]) -> dict[int, float]:
    """The mean over sites, at every round that all of them have."""
    shared = set.intersection(*(set(line) for line in sites.values())) if sites else set()
    return {at: average({site: line[at] for site, line in sites.items()}) for at in sorted(shared)}


def box_rows(axes: Axes, rows: Sequence[Row]) -> None:
    """A row of points for every method, with a box behind them and their mean."""
    for at, row in enumerate(rows):
        values = [value for value in row.values if math.isfinite(value)]
        if len(values) >= FEW:
            axes.boxplot(
                [values],
                positions=[at],
                orientation="horizontal",
                widths=0.62,
                showfliers=False,
                patch_artist=True,
                manage_ticks=False,
                boxprops={"facecolor": row.colour + "2e", "edgecolor": row.colour, "linewidth": 0.8},
                medianprops={"color": row.colour, "linewidth": 1.4},
                whiskerprops={"color": row.colour, "linewidth": 0.8},
                capprops={"color": row.colour, "linewidth": 0.8},
            )
        # Spread over five heights, so that equal scores stay countable.
        heights = [at + 0.09 * (place * 2 % 5 - 2) for place in range(len(values))]
        axes.plot(values, heights, "o", color=row.colour, markersize=2.2, markeredgewidth=0, alpha=0.75)
        if math.isfinite(row.mean):
            axes.plot([row.mean], [at], "D", markersize=3.4, markerfacecolor="white", markeredgecolor=INK,
                      markeredgewidth=0.7)  # fmt: skip
    name_rows(axes, [row.label for row in rows])


def draw_curves(axes: Axes, found: Iterable[Curve]) -> None:
    """A line for every method with the band of its spread; a line of one point is a dot."""
    for group, points, ring in found:
        at, mean, sd = ([point[n] for point in points] for n in range(3))
        marker = "o" if len(points) == 1 else ""
        axes.plot(at, mean, color=group.colour, linestyle=group.dash, marker=marker, markersize=3)
        if any(map(math.isfinite, sd)):
            low, high = ([m + sign * s for m, s in zip(mean, sd, strict=True)] for sign in (-1, 1))
            axes.fill_between(at, low, high, color=group.colour, alpha=0.12, linewidth=0)
        for point in points:
            if point.round == ring:
                axes.plot(
                    [ring], [point.mean], "o", markersize=5, markerfacecolor="white", markeredgecolor=group.colour
                )
    whole_numbers(axes)


def key_of(group: MethodGroup) -> Line2D:
    """A method's entry in the key."""
    return Line2D([], [], color=group.colour, linestyle=group.dash, label=group.label)


def _site_title(site: str, compared: Comparison) -> str:
    """A site's name, whether it is unseen, and whether it reports only a mean."""
    counts = {score.cases for group in compared.scored for score in group.cases("dice") if score.site == site}
    only = f": only the mean of {max(counts)} cases" if counts and min(counts) > 1 else ""
    return f"{site}{' (unseen)' if site in compared.unseen else ''}{only}"


def _metrics(group: MethodGroup) -> Iterable[str]:
    return (metric for run in group.runs for metric in run.curves)


def _recorded(group: MethodGroup, metric: str) -> set[str]:
    """The sites that a metric was recorded at."""
    return {site for run in group.runs for site in run.curves.get(metric, {})}
