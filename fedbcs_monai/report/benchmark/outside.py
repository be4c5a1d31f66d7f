"""Outside: what a method is worth to a hospital that takes no part, and to the federation without it."""

import math
from collections.abc import Mapping
from typing import Any

from fedbcs_monai.evaluation.tables import (
    Column,
    Interval,
    Score,
    Table,
    Value,
    average,
    case_means,
    mean_interval,
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


def without_it(results: TaskResults) -> list[Titled]:
    """Dice of each smaller federation at its own sites, and what FedAvg scores there, training by training."""
    sites = [site for site, arms in results.left_out.items() if arms]
    dice: dict[str, dict[tuple[str, tuple[int, int]], float]] = {}
    for site in sites:
        for arm in results.left_out[site]:
            for run in arm.scored:
                means = site_means(run.scores["selected", "dice"])
                dice.setdefault(arm.label, {})[site, run.repeat] = 100 * average(means, run.unseen)
    if not dice:
        return []
    rows = [
        (
            label,
            *(mean_sd(value for (at, _), value in found.items() if at == site) for site in sites),
            mean_sd(found.values()),
            *(("reference", "") if label == "FedAvg" else _against(found, dice.get("FedAvg", {}))),
        )
        for label, found in dice.items()
    ]
    columns = [Column("Method"), *(Column(head, "high") for head in (*(f"without {site}" for site in sites), "AVG"))]
    columns += [Column("AVG − FedAvg"), Column("Ahead of FedAvg")]
    note = (
        "Every column is another federation; AVG is the mean over all trainings. Differences are between trainings of "
        "the same sites and seed; their 95% interval is Student's, over trainings. These share sites and test cases, "
        "so it is narrower than as many unrelated federations would have it."
    )
    title = "Dice in % at the sites of the federation that is left"
    return [Titled("without_it", title, Table(tuple(columns), tuple(rows)), note)]


def _against(found: Mapping[Any, float], reference: Mapping[Any, float]) -> tuple[Value, str]:
    """Mean difference over the trainings that both have, and in how many of them it is positive."""
    gains = [found[key] - reference[key] for key in sorted(found.keys() & reference.keys())]
    return (mean_interval(gains), f"{sum(gain > 0 for gain in gains)} of {len(gains)}") if gains else ("", "")


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
