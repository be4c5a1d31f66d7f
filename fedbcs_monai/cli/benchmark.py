"""``fedbcs benchmark``: train the runs of a benchmark, and write its tables and page."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fedbcs_monai.cli.options import NORMAL, OUTPUT, SEVERAL, Trust, Verbosity, folder_or
from fedbcs_monai.cli.overrides import Overrides, overrides_of
from fedbcs_monai.errors import UserError

if TYPE_CHECKING:
    from fedbcs_monai.benchmark import Failure
    from fedbcs_monai.benchmark.plan import BenchmarkPlan
    from fedbcs_monai.benchmark.read_plan import Choice
    from fedbcs_monai.cli.console import Entry, QuietConsole
    from fedbcs_monai.data import Samples

Part = Literal["methods", "bounds", "ablation", "sweep", "style", "leave_one_out"]


def benchmark(
    config: str,
    /,
    *overrides: Overrides,
    output: Annotated[Path | None, OUTPUT] = None,
    sites: Annotated[Sequence[str] | None, SEVERAL] = None,
    tasks: Annotated[Sequence[str] | None, SEVERAL] = None,
    methods: Annotated[Sequence[str] | None, SEVERAL] = None,
    parts: Annotated[Sequence[Part] | None, SEVERAL] = None,
    seeds: Annotated[Sequence[int] | None, SEVERAL] = None,
    folds: Annotated[Sequence[int] | None, SEVERAL] = None,
    leave_one_site_out: bool = False,
    jobs: Annotated[int, Parameter(alias="-j")] = 1,
    overwrite: bool = False,
    tables_only: bool = False,
    dry_run: bool = False,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> int:
    """Train methods, seeds and folds, and write the paper's tables and a page; finished runs are kept.

    Example: fedbcs benchmark paper --sites nuclei=nuclei.json --methods fedavg fedbcs --rounds 50

    Interrupted, every run leaves a checkpoint, and the same command resumes (without --overwrite).

    Args:
        config: a YAML file, or the name of a shipped benchmark, which lists the trainings and their comparisons
        overrides: keys of a run, laid over every run
        output: folder (default: runs/CONFIG)
        sites: site list of each task, as TASK=FILE, or FILE where there is one task
        tasks: only these tasks
        methods: only these trainings, and no sweep
        parts: only these tables
        seeds: of every training
        folds: of the site lists
        leave_one_site_out: also train every method without each site in turn, and test it there
        jobs: number of parallel runs, each in its own process
        overwrite: start every run again
        tables_only: only write tables and page from the finished runs
        dry_run: list the runs and their work, and stop
    """
    from fedbcs_monai.benchmark import write_benchmark
    from fedbcs_monai.benchmark.read_plan import read_suite
    from fedbcs_monai.benchmark.status import statuses_of
    from fedbcs_monai.files import check_folder_can_be

    console = verbosity.console()
    choice = choice_of(overrides, sites, tasks, methods, parts, seeds, folds, leave_one_site_out, trust)
    benchmark = read_suite(config, folder_or(output, config), choice)
    if dry_run:
        print_plan(benchmark, jobs, overwrite, console)
        return 0
    check_folder_can_be(benchmark.output)
    failures: Sequence[Failure] = ()
    if tables_only:
        statuses_of(benchmark)  # refuses runs of other settings
    else:
        failures = _run(benchmark, jobs, overwrite, console)
    for failure in failures:
        text = f"{failure.run.name} failed: {failure.reason}; see {failure.log}"
        console.failure("benchmark", text, run=failure.run.name, reason=failure.reason, log=failure.log)
    for path in write_benchmark(benchmark) if len(failures) < len(benchmark.runs) else ():
        console.result("wrote", path=path)
    return 1 if failures else 0


def choice_of(
    overrides: Sequence[str] = (),
    sites: Sequence[str] | None = None,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | None = None,
    parts: Sequence[Part] | None = None,
    seeds: Sequence[int] | None = None,
    folds: Sequence[int] | None = None,
    leave_one_site_out: bool = False,
    trust: Sequence[str] = (),
) -> "Choice":
    """What the options select of the benchmark."""
    from fedbcs_monai.benchmark.read_plan import Choice

    named = [word.rpartition("=") for word in sites or ()]
    lists = {task: Path(path) for task, _, path in named}
    if len(lists) < len(named):
        raise UserError(f"--sites {' '.join(sites or ())}: names one task's site list more than once; give it once")
    left_out = leave_one_site_out or "leave_one_out" in (parts or ())
    return Choice(
        sites=lists,
        tasks=tasks,
        seeds=seeds,
        folds=folds,
        methods=methods,
        parts=[*parts, *(["leave_one_out"] if left_out else [])] if parts else None,
        leave_one_out=left_out,
        overrides=overrides_of(overrides),
        trust=trust,
    )


def _run(benchmark: "BenchmarkPlan", jobs: int, overwrite: bool, console: "QuietConsole") -> "Sequence[Failure]":
    """Train the unfinished runs."""
    from fedbcs_monai.benchmark import run_benchmark
    from fedbcs_monai.cli.benchmark_progress import PrintedProgress

    try:
        with console.progress("benchmark") as progress:
            return run_benchmark(
                benchmark, jobs=jobs, overwrite=overwrite, callbacks=PrintedProgress(console, progress)
            )
    except KeyboardInterrupt:
        console.interrupted(benchmark.output, "the same command" + (", without --overwrite" if overwrite else ""))
        raise


def print_plan(benchmark: "BenchmarkPlan", jobs: int, overwrite: bool, console: "QuietConsole") -> None:
    """Every run with its status, its steps and the estimated time."""
    from fedbcs_monai.benchmark import Estimate, check_jobs, steps_per_round
    from fedbcs_monai.benchmark.status import seconds_of, statuses_of
    from fedbcs_monai.report import duration
    from fedbcs_monai.runs.setup import require_all
    from fedbcs_monai.runs.status import RunStatus

    check_jobs(jobs)
    known: dict[str, list[Samples]] = {}
    estimate = Estimate()
    statuses = statuses_of(benchmark, overwrite)
    rows: list[list[Entry]] = []
    waiting, steps = [], 0
    for planned in benchmark.runs:
        require_all(planned.settings)
        work = planned.settings.rounds * steps_per_round(planned.settings, known)
        rows.append([planned.name, statuses[planned.name].value, planned.settings.rounds, work])
        if statuses[planned.name] is RunStatus.FINISHED:
            estimate.learn(planned, seconds_of(planned))
        else:
            waiting.append(planned)
            steps += work
    columns = {"run": "run", "stage": "stage", "rounds": "rounds", "optimizer_steps": "optimizer steps"}
    console.table("runs", "runs", columns, rows)
    text = f"{len(waiting)} of {len(rows)} runs, {steps:,} optimizer steps at most"
    console.result("to_run", text, runs=len(waiting), of=len(rows), optimizer_steps=steps)
    left_s = estimate.left(waiting, {}, jobs)
    text = f"about {duration(left_s)}" if math.isfinite(left_s) else "not known before a run is done"
    console.result("time", text, left_s=left_s)
    console.result("would_write", folder=benchmark.output)
