"""Panels: which charts the page shows, and what goes into each."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from fedbcs_monai.metrics.tables import average
from fedbcs_monai.report.figures import Line, Strip, axis, line_chart, rounds_axis, strip_chart
from fedbcs_monai.report.groups import Arm
from fedbcs_monai.report.runs import ADDED_UP, Run
from fedbcs_monai.report.summary import Comparison

LOSSES = {
    "loss": "Total training loss",
    "segmentation": "Segmentation loss",
    "contrast": "Contrastive term",
    "consistency": "Consistency term",
}
NOT_LOSSES = {"val_dice", "test_dice", *ADDED_UP}


class Panel(NamedTuple):
    """One chart under its title."""

    title: str
    chart: Markup


def case_panels(compared: Comparison) -> list[Panel]:
    """A strip chart for every tested site: each case of each method, in % Dice, on one common axis."""
    cases = {arm.label: arm.cases("dice") for arm in compared.scored}
    x = axis([100 * score.value for scores in cases.values() for score in scores])
    panels = []
    for site in compared.tested:
        strips = [
            Strip(
                arm.label,
                [100 * score.value for score in cases[arm.label] if score.site == site],
                100 * arm.means("dice", [site])[site].mean,
                arm.colour,
            )
            for arm in compared.scored
        ]
        title = f"{site} (unseen)" if site in compared.unseen else site
        told = {score.cases for scores in cases.values() for score in scores if score.site == site}
        title += f": only the mean of {max(told)} cases" if told and min(told) > 1 else ""
        panels.append(Panel(title, strip_chart(strips, x, f"Dice of every test case at {site}, in percent")))
    return panels


def validation_panels(compared: Comparison) -> list[Panel]:
    """Validation Dice over rounds: the mean over sites, then each site, on common axes."""
    each = [(arm, run, run.curves.get("val_dice", {})) for arm in compared.arms for run in arm.runs]
    points = [(at, 100 * value) for *_, sites in each for line in sites.values() for at, value in line.items()]
    if not points:
        return []
    x, y = rounds_axis([at for at, _ in points]), axis([value for _, value in points])
    means = [_line(arm, run, _mean(sites), 100) for arm, run, sites in each if sites]
    panels = [Panel("Mean over sites", line_chart(means, x, y, "Mean validation Dice over rounds, in percent"))]
    for site in (site for site in compared.sites if any(site in sites for *_, sites in each)):
        lines = [_line(arm, run, list(sites[site].items()), 100) for arm, run, sites in each if site in sites]
        panels.append(Panel(site, line_chart(lines, x, y, f"Validation Dice at {site} over rounds, in percent")))
    return panels


def loss_panels(compared: Comparison) -> list[Panel]:
    """Every recorded loss term over rounds, as the mean over sites; a followed test score comes last."""
    recorded = dict.fromkeys(metric for arm in compared.arms for run in arm.runs for metric in run.curves)
    shown = [metric for metric in LOSSES if metric in recorded]
    shown += [metric for metric in recorded if metric not in LOSSES and metric not in NOT_LOSSES]
    panels = [_mean_panel(compared, metric, LOSSES.get(metric, metric.capitalize()), 1) for metric in shown]
    if "test_dice" in recorded:
        panels.append(_mean_panel(compared, "test_dice", "Test Dice, % (watched, not used to choose)", 100))
    return panels


def _mean_panel(compared: Comparison, metric: str, title: str, scale: float) -> Panel:
    lines = []
    for arm in compared.arms:
        for run in arm.runs:
            trained = {site: line for site, line in run.curves.get(metric, {}).items() if site not in compared.unseen}
            if trained:
                lines.append(_line(arm, run, _mean(trained), scale, ring=metric == "test_dice"))
    points = [point for line in lines for point in line.points]
    x, y = rounds_axis([at for at, _ in points]), axis([value for _, value in points])
    return Panel(title, line_chart(lines, x, y, f"{title} over rounds, mean over sites"))


def _mean(sites: Mapping[str, Mapping[int, float]]) -> list[tuple[int, float]]:
    """The mean over sites at every round at which all of them have a value."""
    shared = set.intersection(*(set(line) for line in sites.values()))
    return [(at, average({site: line[at] for site, line in sites.items()})) for at in sorted(shared)]


def _line(arm: Arm, run: Run, points: Sequence[tuple[int, float]], scale: float, ring: bool = True) -> Line:
    scaled = sorted((at, scale * value) for at, value in points)
    if len(arm.runs) > 1:
        return Line(f"{arm.label}, seed {run.config.get('seed', '?')}", scaled, arm.colour, arm.dash, thin=True)
    chosen = run.summary.selected_round if run.summary and ring else None
    return Line(arm.label, scaled, arm.colour, arm.dash, next((point for point in scaled if point[0] == chosen), None))
