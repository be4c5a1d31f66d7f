"""Status: which runs of a benchmark are new, started or finished."""

from fedbcs_monai.benchmark.plan import BenchmarkPlan, PlannedRun
from fedbcs_monai.runs import status
from fedbcs_monai.runs.reader import is_finished as has_ended
from fedbcs_monai.runs.reader import read_summary
from fedbcs_monai.runs.status import RunStatus


def status_of(run: PlannedRun) -> RunStatus:
    """As `fedbcs_monai.runs.status.status_of`."""
    return status.status_of(run.folder, run.settings)


def statuses_of(benchmark: BenchmarkPlan, overwrite: bool = False) -> dict[str, RunStatus]:
    """From the name of a run to how far it has come; with ``overwrite`` all are new.

    Raises:
        UserError: a run folder holds a run of other settings.
    """
    return {run.name: RunStatus.NEW if overwrite else status_of(run) for run in benchmark.runs}


def is_finished(run: PlannedRun) -> bool:
    """Whether a run has finished under the planned settings."""
    return status.is_finished_as(run.folder, run.settings)


def seconds_of(run: PlannedRun) -> float:
    """Duration of a finished run in seconds; 0 for an unfinished one."""
    return read_summary(run.folder).seconds if has_ended(run.folder) else 0.0
