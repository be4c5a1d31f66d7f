"""Benchmark progress: the state of all runs as lines or JSON records, with one progress bar."""

import math
from collections.abc import Callable

from fedbcs_monai.benchmark import BenchmarkCallbacks, Failure
from fedbcs_monai.benchmark.plan import PlannedRun
from fedbcs_monai.cli.console import QuietConsole
from fedbcs_monai.report import duration
from fedbcs_monai.runs.status import RunStatus


class PrintedProgress(BenchmarkCallbacks):
    """Prints the progress of a benchmark."""

    def __init__(self, console: QuietConsole, progress: Callable[[float, float], None]) -> None:
        self.console, self.progress = console, progress

    def on_benchmark_begin(self, total: int, finished: int) -> None:
        """The number of runs, and of those already finished."""
        self.console.event("begun", f"{total} runs, {finished} of them finished before", runs=total, finished=finished)
        self.progress(finished, total)

    def on_run_start(self, run: PlannedRun, status: RunStatus) -> None:
        """A run starts."""
        resumed = status is RunStatus.BEGUN
        text = f"{run.name}: {'resumes' if resumed else 'starts'}"
        self.console.event("run_started", text, run=run.name, resumed=resumed)

    def on_progress(self, done: float, total: int) -> None:
        """The bar."""
        self.progress(done, total)

    def on_run_end(self, run: PlannedRun, seconds: float, done: int, total: int, left_s: float) -> None:
        """A run is done."""
        left = f"; about {duration(left_s)} left" if math.isfinite(left_s) and done < total else ""
        text = f"{run.name}: done in {duration(seconds)}, {done} of {total}{left}"
        self.console.event("run_finished", text, run=run.name, seconds=seconds, done=done, of=total, left_s=left_s)

    def on_run_failed(self, failure: Failure) -> None:
        """A run has failed."""
        self.console.event("run_failed", f"{failure.run.name}: failed", run=failure.run.name)
