"""Method groups: runs of one method that differ only in seed or fold."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fedbcs_monai.metrics.tables import Score, Spread, average, case_means, mean_sd, site_means
from fedbcs_monai.report.style import COLOURS, DASHES
from fedbcs_monai.runs.reader import Run

REPEATS = {"seed", "fold", "output", "device", "threads", "workers"}
"""Settings in which repeats of one method may differ, wherever in the config they stand."""


@dataclass(frozen=True)
class MethodGroup:
    """One method: its runs, and how it is written and drawn."""

    label: str
    runs: tuple[Run, ...]
    colour: str
    dash: str = DASHES[0]

    @property
    def scored(self) -> tuple[Run, ...]:
        """The runs with test scores of the model that validation selected."""
        return tuple(run for run in self.runs if run.summary and run.scores.get(("selected", "dice")))

    @property
    def repeats(self) -> set[tuple[int, int]]:
        """Seed and fold of every scored run."""
        return {run.repeat for run in self.scored}

    @property
    def late_gain(self) -> float:
        """Points of validation Dice gained over the last fifth of the rounds, the mean over runs; NaN if not known."""
        return mean_sd(run.late_gain for run in self.scored).mean

    def cases(self, metric: str, model: str = "selected", only: Collection[tuple[int, int]] = ()) -> list[Score]:
        """One score a test case, the mean over repeats: all of them, or ``only`` some."""
        runs = [run for run in self.scored if not only or run.repeat in only]
        return case_means(run.scores.get((model, metric), ()) for run in runs)

    def means(self, metric: str, sites: Sequence[str], model: str = "selected") -> dict[str, Spread]:
        """Per-site means, with their spread over repeats; NaN where a site has no score."""
        each = [site_means(run.scores.get((model, metric), ())) for run in self.scored]
        return {site: mean_sd(means.get(site, math.nan) for means in each) for site in sites}

    def average(self, metric: str, sites: Sequence[str], unseen: Collection[str], model: str = "selected") -> Spread:
        """AVG over the trained sites, with its spread over repeats."""
        each = [site_means(run.scores.get((model, metric), ())) for run in self.scored]
        return mean_sd(average({site: means.get(site, math.nan) for site in sites}, unseen) for means in each)


def group(runs: Sequence[Run]) -> list[MethodGroup]:
    """Runs to arms, in the order given: the same method with the same settings, seed and fold apart, is one arm."""
    members: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        settings = {key: value for key, value in flat(run.config).items() if key.rpartition(".")[2] not in REPEATS}
        members.setdefault((run.name, json.dumps(settings, sort_keys=True, default=str)), []).append(run)
    groups = list(members.values())
    return [
        MethodGroup(label, tuple(of_group), COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)])
        for i, (label, of_group) in enumerate(zip(_labels(groups), groups, strict=True))
    ]


def baseline(groups: Sequence[MethodGroup]) -> MethodGroup:
    """What the others are measured against: FedAvg if it was run, otherwise the first with scores."""
    scored = [group for group in groups if group.scored] or list(groups)
    return next((group for group in scored if group.runs[0].method == "FedAvg"), scored[0])


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """A nested config as `path.to.key` -> value.

    >>> flat({"rounds": 4, "method": {"mu": 0.1}})
    {'rounds': 4, 'method.mu': 0.1}
    """
    items: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            items.update(flat(value, f"{prefix}{key}."))
        else:
            items[f"{prefix}{key}"] = value
    return items


def differing(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Settings in which flat configs differ: key -> the value in each, None where it is not set."""
    keys = dict.fromkeys(key for config in configs for key in config)
    values = {key: [config.get(key) for config in configs] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _labels(groups: Sequence[Sequence[Run]]) -> list[str]:
    """The run's name; where several arms share it, with the settings that tell them apart."""
    names = [of_group[0].name for of_group in groups]
    labels = []
    for name, of_group in zip(names, groups, strict=True):
        namesakes = [other[0] for other, other_name in zip(groups, names, strict=True) if other_name == name]
        differ = differing([flat(run.config) for run in namesakes])
        distinguishing = [key for key in differ if key.rpartition(".")[2] not in REPEATS]
        own = flat(of_group[0].config)
        said = ", ".join(f"{key.rpartition('.')[2]} {own.get(key, 'default')}" for key in distinguishing)
        labels.append(
            name if len(namesakes) == 1 else f"{name} ({said if len(distinguishing) < 3 else of_group[0].folder.name})"
        )
    return labels
