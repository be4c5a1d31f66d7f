"""Execution: runs of a benchmark in parallel processes, so that a crash or a leak stays in its own."""

import logging
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple, cast

from msgspec.structs import replace

from fedbcs_monai.benchmark.estimate import Estimate
from fedbcs_monai.benchmark.plan import BenchmarkPlan, PlannedRun
from fedbcs_monai.benchmark.status import seconds_of, statuses_of
from fedbcs_monai.benchmark.worker import Ended, work
from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.status import RunStatus

_LOG = logging.getLogger(__name__)

TRAINED = 0.95
"""Part of a run that is training; the rest is testing."""

KILLED = -9
"""Exit code of a process that the system has ended, in most cases for lack of memory."""


class Failure(NamedTuple):
    """A failed run: its name, the reason, and the file with details."""

    run: PlannedRun
    reason: str
    log: Path


class BenchmarkCallbacks:
    """Progress events of a benchmark; by default none are shown."""

    def on_benchmark_begin(self, total: int, finished: int) -> None:
        """Called with the number of planned runs, and of those already finished."""

    def on_run_start(self, run: PlannedRun, status: RunStatus) -> None:
        """A run starts or resumes."""

    def on_progress(self, done: float, total: int) -> None:
        """So many runs are done, parts of runs among them."""

    def on_run_end(self, run: PlannedRun, seconds: float, done: int, total: int, left_s: float) -> None:
        """A run is done: its number, and the remaining time in seconds, NaN while unknown."""

    def on_run_failed(self, failure: Failure) -> None:
        """A run has failed; the others continue."""


def run_benchmark(
    benchmark: BenchmarkPlan, *, jobs: int = 1, overwrite: bool = False, callbacks: BenchmarkCallbacks | None = None
) -> list[Failure]:
    """Execute the unfinished runs of a benchmark, several at once, each in its own process.

    A run that fails does not stop the others. Interrupted, every run under way leaves a checkpoint, and the same call
    resumes there. With one thread per run its bits do not depend on ``jobs``.

    Args:
        benchmark: what to run; every run's output goes to ``logs`` in its folder.
        jobs: how many runs at once; a run whose ``threads`` are 0 gets its share of the processors.
        overwrite: start every run again.
        callbacks: receives the progress.

    Raises:
        UserError: a run folder holds a run of another configuration; nothing has been started.
    """
    check_jobs(jobs)
    crew = _Crew(benchmark, statuses_of(benchmark, overwrite), jobs, overwrite, callbacks or BenchmarkCallbacks())
    try:
        crew.work()
    finally:
        crew.stop()
    return crew.failures


def check_jobs(jobs: int) -> None:
    """Refuse to run nothing at once.

    Raises:
        UserError: how many it must be.
    """
    if jobs < 1:
        raise UserError(f"jobs is {jobs}: it must be 1 or more")


class _Job:
    """A run under way."""

    def __init__(self, run: PlannedRun, process: BaseProcess, log: Path) -> None:
        self.run, self.process, self.log = run, process, log
        self.began, self.done = time.perf_counter(), 0.0


class _Crew:
    """The processes of a benchmark."""

    def __init__(
        self,
        benchmark: BenchmarkPlan,
        statuses: Mapping[str, RunStatus],
        jobs: int,
        overwrite: bool,
        callbacks: BenchmarkCallbacks,
    ) -> None:
        self.statuses, self.jobs, self.overwrite, self.callbacks = statuses, jobs, overwrite, callbacks
        self.logs = benchmark.output / "logs"
        self.context = _context()
        self.stopping: Event = self.context.Event()
        self.estimate = Estimate()
        self.total = len(benchmark.runs)
        self.waiting = deque(run for run in benchmark.runs if statuses[run.name] is not RunStatus.FINISHED)
        self.running: dict[Connection, _Job] = {}
        self.failures: list[Failure] = []
        for run in benchmark.runs:
            if statuses[run.name] is RunStatus.FINISHED:
                self.estimate.learn(run, seconds_of(run))

    def work(self) -> None:
        """Start runs as slots become free, and receive their messages until all are done."""
        self.callbacks.on_benchmark_begin(self.total, self.total - len(self.waiting))
        while self.waiting or self.running:
            while self.waiting and len(self.running) < self.jobs:
                self.start(self.waiting.popleft())
            for connection in wait(list(self.running)):
                self.hear(cast(Connection, connection))

    def start(self, run: PlannedRun) -> None:
        """Start a run's process."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{run.name}.txt"
        shared = PlannedRun(run.name, replace(run.settings, threads=run.settings.threads or _threads(self.jobs)))
        ours, theirs = self.context.Pipe(duplex=False)
        process = self.context.Process(  # type: ignore[attr-defined]
            target=work, args=(shared, self.overwrite, log, theirs, self.stopping), name=run.name
        )
        with _deaf_to_interrupts():
            process.start()
        theirs.close()
        self.running[ours] = _Job(run, process, log)
        _LOG.info("%s: its process has started", run.name)
        self.callbacks.on_run_start(run, self.statuses[run.name])

    def hear(self, connection: Connection) -> None:
        """Receive a message of a run: its progress, or how it ended."""
        job = self.running[connection]
        try:
            said = connection.recv()
        except EOFError:
            job.process.join()
            killed = "; perhaps it ran out of memory" if job.process.exitcode == KILLED else ""
            said = Ended(f"its process ended with code {job.process.exitcode}{killed}")
        if isinstance(said, Ended):
            self.end(connection, said.reason)
        else:
            job.done = TRAINED * said
        parts = sum(job.done for job in self.running.values())
        self.callbacks.on_progress(self.total - len(self.waiting) - len(self.running) + parts, self.total)

    def end(self, connection: Connection, reason: str | None) -> None:
        """A run has ended, well or for a reason."""
        job = self.running.pop(connection)
        connection.close()
        job.process.join()
        _LOG.info("%s: its process has ended with code %s", job.run.name, job.process.exitcode)
        if reason is not None:
            self.failures.append(Failure(job.run, reason, job.log))
            self.callbacks.on_run_failed(self.failures[-1])
            return
        seconds = time.perf_counter() - job.began
        self.estimate.learn(job.run, seconds)
        under_way = {other.run.name: (other.run, other.done) for other in self.running.values()}
        done = self.total - len(self.waiting) - len(self.running) - len(self.failures)
        left_s = self.estimate.left(self.waiting, under_way, self.jobs)
        self.callbacks.on_run_end(job.run, seconds, done, self.total, left_s)

    def stop(self) -> None:
        """Have every run write its checkpoint and end."""
        self.stopping.set()
        for job in self.running.values():
            job.process.join()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """What is started here ignores Ctrl-C, as it inherits that."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's alone
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _threads(jobs: int) -> int:
    """A run's share of the processors."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, processors // jobs)


def _context() -> BaseContext:
    """How processes are made: on Linux from one that has imported everything, which saves seconds per run."""
    if sys.platform != "linux":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([work.__module__])
    return context
