"""Provenance: versions, settings and machine of each run."""

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedbcs_monai.metrics.tables import MISSING
from fedbcs_monai.report.groups import MethodGroup, differing, flat
from fedbcs_monai.runs.reader import Run

OWN_COLUMNS = {"command", "started", "name"}


class Ran(NamedTuple):
    """One run as a row."""

    label: str
    folder: str
    seed: str
    rounds: str
    selected: str
    time: str
    started: str


class Settings(NamedTuple):
    """Settings or versions: those that differ, a value a run, and those that all runs share."""

    differ: dict[str, list[str]]
    shared: dict[str, str]


def ran(groups: Sequence[MethodGroup]) -> list[Ran]:
    """Every run, arm by arm."""
    return [_row(group, run) for group in groups for run in group.runs]


def settings(configs: Sequence[Mapping[str, Any]]) -> Settings:
    """Split settings into what differs between the runs and what does not."""
    all_flat = [{key: value for key, value in flat(config).items() if key not in OWN_COLUMNS} for config in configs]
    differ = differing(all_flat)
    shared = {key: _shown(value) for key, value in all_flat[0].items() if key not in differ}
    return Settings({key: [_shown(value) for value in values] for key, values in differ.items()}, shared)


def duration(seconds: float) -> str:
    """Seconds as a reader counts them.

    >>> duration(42.4), duration(723), duration(7325), duration(float("nan"))
    ('42 s', '12 min 3 s', '2 h 2 min', '–')
    """
    if not math.isfinite(seconds):
        return MISSING
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes else f"{rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def _row(group: MethodGroup, run: Run) -> Ran:
    summary = run.summary
    planned = run.config.get("rounds", "?")
    return Ran(
        label=group.label,
        folder=run.folder.name,
        seed=str(run.config.get("seed", MISSING)),
        rounds=str(summary.rounds) if summary else f"{run.rounds_done} of {planned}, unfinished",
        selected=str(summary.selected_round) if summary else MISSING,
        time=duration(summary.seconds) if summary else MISSING,
        started=str(run.environment.get("started", MISSING))[:16].replace("T", " "),
    )


def _shown(value: Any) -> str:
    if value is None:
        return MISSING
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
