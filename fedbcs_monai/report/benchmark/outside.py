"""Outside: what a method is worth to a hospital that takes no part."""

import math
from collections.abc import Mapping

from fedbcs_monai.evaluation.tables import (
    Column,
    Interval,
    Score,
    Table,
    Value,
    average,
    case_means,
    mean_sd,
    paired_bootstrap,
    site_means,
)
from fedbcs_monai.report.arms import Arm
from fedbcs_monai.report.benchmark.results import TaskResults
from fedbcs_monai.report.runs import Run
from fedbcs_monai.report.scoreboard import Titled


def left_out(results: TaskResults) -> list[Titled]:
    """Dice at every site of the model that was trained without it, and what that costs the site."""
    sites = [site for site, arms in results.left_out.items() if arms]
    labels = dict.fromkeys(arm.label for site in sites for arm in results.left_out[site])
    rows = []
    for label in labels:
        arms = {site: arm for site in sites for arm in results.left_out[site] if arm.label == label}
        each = [site_means(_at(runs)) for runs in _repeats(arms)]
        spreads = {site: mean_sd(100 * means.get(site, math.nan) for means in each) for site in sites}
        whole = mean_sd(100 * average({site: means.get(site, math.nan) for site in sites}) for means in each)
        rows.append((label, *spreads.values(), whole, _cost_of_staying_out(arms, results, label)))
    if not rows:
        return []
    columns = [Column("Method"), *(Column(site, "high") for site in (*sites, "AVG")), Column("AVG − trained there")]
    note = "Every column is another training: without that site, and tested on its test cases."
    return [Titled("left_out", "Dice in % at a site that stayed outside", Table(tuple(columns), tuple(rows)), note)]


def _repeats(arms: Mapping[str, Arm]) -> list[dict[str, Run]]:
    """The runs of the same seed and fold, by the site that each left out."""
    repeats: dict[tuple[int, int], dict[str, Run]] = {}
    for site, arm in arms.items():
        for run in arm.scored:
            repeats.setdefault(run.repeat, {})[site] = run
    return list(repeats.values())


def _at(runs: Mapping[str, Run]) -> list[Score]:
    """Each site's scores with the model that was trained without it."""
    return [score for site, run in runs.items() for score in run.scores["selected", "dice"] if score.site == site]


def _cost_of_staying_out(arms: Mapping[str, Arm], results: TaskResults, label: str) -> Value:
    """How far AVG lies below that of the same method trained at these sites too."""
    inside = next((arm for arm in results.arms if arm.label == label), None)
    if inside is None:
        return ""
    outside = case_means(_at(runs) for runs in _repeats(arms))
    both = inside.repeats & {repeat for arm in arms.values() for repeat in arm.repeats}
    there = [score for score in inside.cases("dice", only=both) if score.site in arms]
    return Interval(*(100 * value for value in paired_bootstrap(outside, there)))
