"""``fedbcs benchmark``: train a suite, and write its tables and its page."""

import math
import sys
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path

from fedbcs_monai.benchmark import (
    Estimate,
    Failure,
    SuiteWatch,
    check_jobs,
    run_suite,
    steps_a_round,
    write_benchmark,
)
from fedbcs_monai.benchmark.plan import PlannedRun, Suite
from fedbcs_monai.benchmark.read_plan import Choice, read_suite
from fedbcs_monai.benchmark.status import Stage, seconds_of, stages_of
from fedbcs_monai.cli.console import Entry, Quiet, voice
from fedbcs_monai.cli.train import overrides_of
from fedbcs_monai.data import Samples
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import check_folder_can_be
from fedbcs_monai.report import duration
from fedbcs_monai.runs.setup import require_all


def run(options: Namespace) -> int:
    """Train what is not finished, then write tables and page; 1 when a run failed."""
    say = voice(options)
    suite = read_suite(options.config, options.output or Path("runs") / Path(options.config).stem, choice_of(options))
    if options.dry_run:
        say_plan(suite, options.jobs, options.overwrite, say)
        return 0
    check_folder_can_be(suite.output)
    failures: list[Failure] = []
    if options.tables_only:
        stages_of(suite)  # refuses runs of other settings
    else:
        try:
            with say.progress("benchmark") as progress:
                watch = Saying(say, progress)
                failures = run_suite(suite, jobs=options.jobs, overwrite=options.overwrite, watch=watch)
        except KeyboardInterrupt:
            again = "the same command, without --overwrite" if options.overwrite else "the same command"
            say.result(f"interrupted; go on with {again}", folder=suite.output)
            raise
    for failure in failures:
        print(f"fedbcs benchmark: {failure.run.name} failed: {failure.reason}; see {failure.log}", file=sys.stderr)
    for path in write_benchmark(suite) if len(failures) < len(suite.runs) else ():
        say.result("wrote", path=path)
    return 1 if failures else 0


def choice_of(options: Namespace) -> Choice:
    """What the options ask of the suite."""
    named = [word.rpartition("=") for word in options.sites or ()]
    sites = {task: Path(path) for task, _, path in named}
    if len(sites) < len(named):
        raise UserError(f"--sites {' '.join(options.sites)}: names one task's site list more than once; give it once")
    left_out = options.leave_one_site_out or "leave_one_out" in (options.parts or ())
    return Choice(
        sites=sites,
        tasks=options.tasks,
        seeds=options.seeds,
        folds=options.folds,
        methods=options.methods,
        parts=[*options.parts, *(["leave_one_out"] if left_out else [])] if options.parts else None,
        leave_one_out=left_out,
        overrides=overrides_of(options.overrides),
        trust=options.trust,
    )


class Saying(SuiteWatch):
    """Says how a suite goes: a bar over all of it, and a line a run."""

    def __init__(self, say: Quiet, progress: Callable[[float, float], None]) -> None:
        self.say, self.progress = say, progress

    def begun(self, total: int, finished: int) -> None:
        """So many runs, so many of them finished before."""
        self.say.note(f"{total} runs, {finished} of them finished before")
        self.progress(finished, total)

    def started(self, run: PlannedRun, stage: Stage) -> None:
        """A run starts."""
        self.say.note(f"{run.name}: {'goes on' if stage is Stage.BEGUN else 'starts'}")

    def moved(self, done: float, total: int) -> None:
        """The bar."""
        self.progress(done, total)

    def finished(self, run: PlannedRun, seconds: float, done: int, total: int, left_s: float) -> None:
        """A run is done."""
        left = f"; about {duration(left_s)} left" if math.isfinite(left_s) and done < total else ""
        self.say.note(f"{run.name}: done in {duration(seconds)}, {done} of {total}{left}")

    def failed(self, failure: Failure) -> None:
        """A run has failed."""
        self.say.note(f"{failure.run.name}: failed")


def say_plan(suite: Suite, jobs: int, overwrite: bool, say: Quiet) -> None:
    """Every run with its stage and its steps, and what is known of the time."""
    check_jobs(jobs)
    known: dict[str, list[Samples]] = {}
    estimate = Estimate()
    stages = stages_of(suite, overwrite)
    rows: list[list[Entry]] = []
    waiting, steps = [], 0
    for planned in suite.runs:
        require_all(planned.settings)
        work = planned.settings.rounds * steps_a_round(planned.settings, known)
        rows.append([planned.name, stages[planned.name].value, planned.settings.rounds, work])
        if stages[planned.name] is Stage.FINISHED:
            estimate.learn(planned, seconds_of(planned))
        else:
            waiting.append(planned)
            steps += work
    say.table("runs", ["run", "stage", "rounds", "optimizer steps"], rows)
    say.result("to run", runs=f"{len(waiting)} of {len(rows)} runs", steps=f"{steps:,} optimizer steps at most")
    left_s = estimate.left(waiting, {}, jobs)
    say.result("time", left=f"about {duration(left_s)}" if math.isfinite(left_s) else "not known before a run is done")
    say.result("would write", folder=suite.output)
