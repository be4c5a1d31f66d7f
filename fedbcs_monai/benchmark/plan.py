"""Benchmark plan: the runs of a benchmark, and the tables that each of them fills."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedbcs_monai.settings import Settings


@dataclass(frozen=True)
class PlannedRun:
    """One training with one seed on one fold; its name is that of its folder."""

    name: str
    settings: Settings

    @property
    def folder(self) -> Path:
        """The run folder."""
        return Path(self.settings.output)


@dataclass(frozen=True)
class Row:
    """A row of a table: one training, and its runs, which differ in seed and fold alone."""

    key: str
    label: str
    runs: tuple[PlannedRun, ...]


@dataclass(frozen=True)
class Sweep:
    """One training under several values of one key, and a row to compare with."""

    key: str
    values: tuple[Any, ...]
    rows: tuple[Row, ...]
    base: Row | None = None


@dataclass(frozen=True)
class TaskPlan:
    """What is trained on one task.

    Args:
        name: of the task.
        methods: what is compared.
        bounds: what the methods are compared with, and never ranked among.
        ablation: with and without each part of FedBCS.
        style: style normalised in different places.
        sweep: one training under several values of one key.
        left_out: from a site's name to the rows trained without it.
    """

    name: str
    methods: tuple[Row, ...] = ()
    bounds: tuple[Row, ...] = ()
    ablation: tuple[Row, ...] = ()
    style: tuple[Row, ...] = ()
    sweep: Sweep | None = None
    left_out: Mapping[str, tuple[Row, ...]] = field(default_factory=dict)

    @property
    def inside(self) -> tuple[Row, ...]:
        """Every row that is trained on all sites, once."""
        swept = (self.sweep.base, *self.sweep.rows) if self.sweep else ()
        every = (*self.methods, *self.bounds, *self.ablation, *self.style, *swept)
        return tuple({row.key: row for row in every if row}.values())

    @property
    def rows(self) -> tuple[Row, ...]:
        """Every row once."""
        apart = [row for rows in self.left_out.values() for row in rows]
        return tuple({row.key: row for row in (*self.inside, *apart)}.values())


@dataclass(frozen=True)
class BenchmarkPlan:
    """A benchmark: where it goes, and what is trained on each task."""

    title: str
    output: Path
    tasks: tuple[TaskPlan, ...]

    @property
    def runs(self) -> tuple[PlannedRun, ...]:
        """Every run once: the first of every row, then the second, so that an early look sees every method."""
        rows = [row for task in self.tasks for row in task.rows]
        most = max((len(row.runs) for row in rows), default=0)
        ordered = (row.runs[n] for n in range(most) for row in rows if n < len(row.runs))
        return tuple({run.name: run for run in ordered}.values())
