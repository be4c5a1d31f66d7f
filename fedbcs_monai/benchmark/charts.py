"""Charts: the paper's figures of one task, as measured."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from fedbcs_monai.benchmark.results import TaskResults
from fedbcs_monai.metrics.tables import average, mean_sd, site_means
from fedbcs_monai.report.charts import Panel, case_panels
from fedbcs_monai.report.figures import Line, Range, Strip, axis, line_chart, rounds_axis, strip_chart
from fedbcs_monai.report.groups import COLOURS, Arm
from fedbcs_monai.report.runs import Run

SWEPT, BASE = COLOURS[0], COLOURS[-1]
"""Colours of a sweep, and of what it is compared with."""


def overview(results: TaskResults) -> list[Panel]:
    """AVG Dice of every run, a row a method; the bounds come last."""
    arms = [*results.methods.scored, *(arm for arm in results.bounds if arm.scored)]
    each = [(arm, [100 * _average(run, results.methods.unseen) for run in arm.scored]) for arm in arms]
    values = [value for _, found in each for value in found]
    if not values:
        return []
    strips = [Strip(arm.label, found, mean_sd(found).mean, arm.colour) for arm, found in each]
    described = f"AVG Dice of every run on {results.name}, in percent"
    return [Panel("AVG Dice of every run, %", strip_chart(strips, axis(values), described))]


def convergence(results: TaskResults) -> list[Panel]:
    """Figure 4 a: validation Dice over rounds, mean over runs: the mean over sites, then every site."""
    arms = [*results.methods.scored, *(arm for arm in results.bounds if arm.scored)]
    whole = {arm.label: _mean_line(list(map(_over_sites, arm.scored))) for arm in arms}
    of_site = {
        site: {arm.label: _mean_line([_validation(run).get(site, {}) for run in arm.scored]) for arm in arms}
        for site in results.methods.trained
    }
    points = [point for lines in (whole, *of_site.values()) for line in lines.values() for point in line]
    if not points:
        return []
    x, y = rounds_axis([at for at, _ in points]), axis([value for _, value in points])

    def panel(title: str, lines: Mapping[str, Sequence[tuple[int, float]]]) -> Panel:
        drawn = [Line(arm.label, lines[arm.label], arm.colour, arm.dash) for arm in arms if lines[arm.label]]
        return Panel(title, line_chart(drawn, x, y, f"{title}: validation Dice over rounds, in percent"))

    return [panel("Mean over sites", whole), *(panel(site, lines) for site, lines in of_site.items())]


def swept(results: TaskResults) -> list[Panel]:
    """Figure 3: Dice by the value of one key, on average and at every site; level, what it is compared with."""
    arms = results.swept.scored
    if len(arms) < 2:
        return []
    places = {"AVG": results.swept.trained, **{site: [site] for site in results.swept.trained}}
    base = results.base
    lines = {
        title: [[(n, _dice(arm, sites)) for n, arm in enumerate(arms)]]
        + ([[(n, _dice(base, sites)) for n in range(len(arms))]] if base else [])
        for title, sites in places.items()
    }
    y = axis([value for found in lines.values() for line in found for _, value in line])
    x = Range(0, len(arms) - 1, tuple(range(len(arms))))

    def panel(title: str, found: Sequence[Sequence[tuple[int, float]]]) -> Panel:
        drawn = [Line(results.sweep_key, found[0], SWEPT)]
        drawn += [Line(base.label, line, BASE, "6 3") for line in found[1:] if base]
        described = f"{title}: test Dice by {results.sweep_key}, in percent"
        return Panel(title, line_chart(drawn, x, y, described, results.values))

    return [panel(title, found) for title, found in lines.items()]


def style(results: TaskResults) -> list[Panel]:
    """Figure 4 b: every test case, by where style is normalised."""
    arms = [replace(arm, colour=COLOURS[n % len(COLOURS)]) for n, arm in enumerate(results.style.arms)]
    return case_panels(results.style._replace(arms=arms)) if results.style.scored else []


def _dice(arm: Arm, sites: Sequence[str]) -> float:
    return 100 * arm.average("dice", sites, ()).mean


def _average(run: Run, unseen: Sequence[str]) -> float:
    return average(site_means(run.scores["selected", "dice"]), unseen)


def _validation(run: Run) -> Mapping[str, Mapping[int, float]]:
    return run.curves.get("val_dice", {})


def _over_sites(run: Run) -> dict[int, float]:
    """The mean over the places where the run trained, at every round that has them all."""
    places = _validation(run)
    shared = set.intersection(*(set(line) for line in places.values())) if places else set()
    return {at: average({place: line[at] for place, line in places.items()}) for at in shared}


def _mean_line(lines: Sequence[Mapping[int, float]]) -> list[tuple[int, float]]:
    """In percent the mean over runs, at every round that all of them have."""
    shared = set.intersection(*(set(line) for line in lines)) if lines else set()
    means = [(at, 100 * mean_sd(line[at] for line in lines).mean) for at in sorted(shared)]
    return [(at, value) for at, value in means if math.isfinite(value)]
