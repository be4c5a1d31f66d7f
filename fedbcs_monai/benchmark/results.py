"""Results: the rows of a benchmark's tables, each with its finished runs."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fedbcs_monai.benchmark.plan import Row, TaskPlan
from fedbcs_monai.benchmark.status import is_finished
from fedbcs_monai.report.comparable import check_comparable
from fedbcs_monai.report.groups import MethodGroup
from fedbcs_monai.report.style import COLOURS, DASHES
from fedbcs_monai.report.summary import Comparison
from fedbcs_monai.runs.reader import Run, read_run


@dataclass(frozen=True)
class TaskResults:
    """One task's rows, as far as their runs are finished.

    Args:
        name: of the task.
        methods: what is compared.
        bounds: what the methods are compared with.
        ablation: with and without each part of FedBCS.
        style: style normalised in different places.
        swept: one method under several values, in order.
        base: what it is compared with.
        values: the values, as written.
        sweep_key: what varies.
        left_out: from a site to the rows trained without it.
        missing: names of the runs that are not finished.
        runs: all that are.
    """

    name: str
    methods: Comparison
    bounds: Sequence[MethodGroup]
    ablation: Comparison
    style: Comparison
    swept: Comparison
    base: MethodGroup | None
    values: Sequence[str]
    sweep_key: str
    left_out: Mapping[str, Sequence[MethodGroup]]
    missing: Sequence[str]
    runs: Sequence[Run]

    @property
    def groups(self) -> list[MethodGroup]:
        """Every row that was trained on all sites, once."""
        every = [*self.methods.groups, *self.bounds, *self.ablation.groups, *self.style.groups, *self.swept.groups]
        return list({group.label: group for group in every}.values())

    @property
    def headline(self) -> Comparison | None:
        """What the summary compares: the methods, or else all rows."""
        every = (self.methods, self.ablation, self.style, self.swept)
        return next((compared for compared in every if compared.groups), None)

    @property
    def fedavg(self) -> MethodGroup | None:
        """FedAvg, if it was run."""
        return next((group for group in self.groups if group.label == "FedAvg"), None)


def read_results(plan: TaskPlan) -> TaskResults:
    """Read the finished runs of a task.

    Raises:
        UserError: a damaged run folder, or runs of other sites.
    """
    planned = {run.name: run for row in plan.rows for run in row.runs}
    runs = {name: read_run(run.folder) for name, run in planned.items() if is_finished(run)}
    groups = {row.key: group for row, group in zip(plan.rows, _arms(plan.rows, runs), strict=True)}
    apart = {row.key for rows in plan.left_out.values() for row in rows}
    inside = [run for row in plan.rows if row.key not in apart for run in groups[row.key].runs]
    sites, unseen = (inside[0].sites, inside[0].unseen) if inside else ((), ())
    if inside:
        check_comparable(inside)

    def finished(rows: Iterable[Row]) -> list[MethodGroup]:
        return [groups[row.key] for row in rows if groups[row.key].runs]

    def compared(rows: Iterable[Row]) -> Comparison:
        return Comparison(finished(rows), sites, unseen)

    swept = plan.sweep.rows if plan.sweep else ()
    return TaskResults(
        name=plan.name,
        methods=compared(plan.methods),
        bounds=finished(plan.bounds),
        ablation=compared(plan.ablation),
        style=compared(plan.style),
        swept=compared(swept),
        base=next(iter(finished([plan.sweep.base])), None) if plan.sweep and plan.sweep.base else None,
        values=[
            str(value)
            for value, row in zip(plan.sweep.values if plan.sweep else (), swept, strict=True)
            if groups[row.key].runs
        ],
        sweep_key=plan.sweep.key if plan.sweep else "",
        left_out={site: finished(rows) for site, rows in plan.left_out.items()},
        missing=[name for name in planned if name not in runs],
        runs=list(runs.values()),
    )


def _arms(rows: Sequence[Row], runs: Mapping[str, Run]) -> list[MethodGroup]:
    """Every row with its runs and its colour."""
    return [
        MethodGroup(
            row.label,
            tuple(runs[run.name] for run in row.runs if run.name in runs),
            COLOURS[n % len(COLOURS)],
            DASHES[n % len(DASHES)],
        )
        for n, row in enumerate(rows)
    ]
