"""Leave one out: each method on a site that took no part, and on the others without it."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from fedbcs_monai.benchmark.results import TaskResults
from fedbcs_monai.metrics.tables import (
    Column,
    Difference,
    Score,
    Table,
    Value,
    average,
    mean_interval,
    mean_sd,
    paired_bootstrap,
    site_means,
)
from fedbcs_monai.report.groups import MethodGroup
from fedbcs_monai.report.scoreboard import BRACKETS, Titled
from fedbcs_monai.report.summary import seeds_said
from fedbcs_monai.runs.reader import Run

Training = tuple[str, tuple[int, int]]
"""The site that stays outside, and seed and fold."""

STUDENT = (
    "Differences to FedAvg are between trainings of the same sites and seed; their 95% interval is Student's, over "
    "trainings. These share sites and test cases, so it is narrower than as many unrelated federations would have it."
)


def left_out(results: TaskResults) -> list[Titled]:
    """Dice at every site of the model that was trained without it, and what that costs the site."""
    sites = _sites(results)
    rows = _rows(results, _at_the_site_outside)
    note = "Every column is another training: without that site, and tested on all its cases."
    costs = [_cost_of_staying_out(sites, results, str(row[0])) for row in rows]
    columns = _columns(sites)
    if any(costs):
        columns = _columns(sites, "AVG − trained there")
        rows = [(*row, cost) for row, cost in zip(rows, costs, strict=True)]
        note += f" What staying out costs is counted on the test cases that both have. {BRACKETS}"
    note += f" {seeds_said([group for groups in results.left_out.values() for group in groups])}"
    title = "Dice in % at a site that stayed outside"
    return [Titled("left_out", title, Table(columns, tuple(rows)), f"{note} {STUDENT}")] if rows else []


def without_it(results: TaskResults) -> list[Titled]:
    """Dice of each smaller federation at its own sites."""
    sites = [f"without {site}" for site in _sites(results)]
    rows = _rows(results, _at_the_sites_that_trained)
    note = "Every column is another federation. Differences to FedAvg as above."
    title = "Dice in % at the sites of the federation that is left"
    return [Titled("without_it", title, Table(_columns(sites), tuple(rows)), note)] if rows else []


def _sites(results: TaskResults) -> list[str]:
    """The sites without which something was trained."""
    return [site for site, groups in results.left_out.items() if groups]


def _columns(sites: Sequence[str], *more: str) -> tuple[Column, ...]:
    ranked = [Column(head, "high") for head in (*sites, "AVG")]
    return (Column("Method"), *ranked, Column("AVG − FedAvg"), Column("Ahead of FedAvg"), *map(Column, more))


def _rows(results: TaskResults, dice: Callable[[Run, str], float]) -> list[tuple[Value, ...]]:
    """Every method's Dice by the site that stays outside, their mean, and how far FedAvg is behind."""
    found: dict[str, dict[Training, float]] = {}
    for site, groups in results.left_out.items():
        for group in groups:
            for run in group.scored:
                found.setdefault(group.label, {})[site, run.repeat] = 100 * dice(run, site)
    sites = _sites(results)
    rows = []
    for label, values in found.items():
        repeats = sorted({repeat for _, repeat in values})
        spreads = [mean_sd(values.get((site, repeat), math.nan) for repeat in repeats) for site in sites]
        whole = mean_sd(average({site: values.get((site, repeat), math.nan) for site in sites}) for repeat in repeats)
        against = ("reference", "") if label == "FedAvg" else _against(values, found.get("FedAvg", {}))
        rows.append((label, *spreads, whole, *against))
    return rows


def _at_the_site_outside(run: Run, site: str) -> float:
    return site_means(run.scores["selected", "dice"]).get(site, math.nan)


def _at_the_sites_that_trained(run: Run, site: str) -> float:
    return average(site_means(run.scores["selected", "dice"]), run.unseen)


def _against(found: Mapping[Training, float], reference: Mapping[Training, float]) -> tuple[Value, str]:
    """Mean difference over the trainings that both have scores of, and in how many of them it is positive."""
    pairs = [found[key] - reference[key] for key in sorted(found.keys() & reference.keys())]
    gains = [gain for gain in pairs if math.isfinite(gain)]
    return (mean_interval(gains), f"{sum(gain > 0 for gain in gains)} of {len(gains)}") if gains else ("", "")


def _cost_of_staying_out(sites: Sequence[str], results: TaskResults, label: str) -> Value:
    """How much AVG falls below that of the same method trained at these sites too, with the same seeds at each site."""
    inside = next((group for group in results.groups if group.label == label), None)
    if inside is None:
        return ""
    groups = {site: group for site in sites for group in results.left_out[site] if group.label == label}
    within = dict.fromkeys(groups, inside)
    common = {site: inside.repeats & group.repeats for site, group in groups.items()}
    by_run = [
        paired_bootstrap(_each_at(groups, only), _each_at(within, only), 1).value
        for repeat in sorted(set.intersection(*common.values()) if common else ())
        for only in [{site: {repeat} for site in groups}]
    ]
    found = paired_bootstrap(_each_at(groups, common), _each_at(within, common))
    over_runs = mean_sd(100 * value for value in by_run)
    value, low, high = (100 * number for number in found)
    return Difference(value, over_runs.sd, over_runs.repeats, low, high)


def _each_at(groups: Mapping[str, MethodGroup], only: Mapping[str, Collection[tuple[int, int]]]) -> list[Score]:
    """The test cases of each site as an arm of its own scores them, over some of its runs; of no run there are none."""
    return [
        score
        for site, group in groups.items()
        if only[site]
        for score in group.cases("dice", only=only[site])
        if score.site == site
    ]
