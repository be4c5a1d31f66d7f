"""Stage: how far a planned run has come."""

from enum import Enum

from fedbcs_monai.benchmark.plan import PlannedRun, Suite
from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.checkpoint import newest_round
from fedbcs_monai.runs.loop import changed_keys
from fedbcs_monai.runs.reader import is_finished as has_ended
from fedbcs_monai.runs.reader import read_summary
from fedbcs_monai.runs.schema import CHECKPOINTS, CONFIG


class Stage(Enum):
    """How far a run has come."""

    NEW = "new"
    BEGUN = "begun"
    FINISHED = "finished"


def stage_of(run: PlannedRun) -> Stage:
    """How far a run has come: finished, begun with a checkpoint to go on from, or new.

    Raises:
        UserError: its folder holds a run of another configuration.
    """
    changed = _changed(run)
    if changed:
        said = f"{run.folder}: was run with other values of {', '.join(changed)}"
        raise UserError(f"{said}; give those, replace it with --overwrite, or name another -o")
    if _ended(run):
        return Stage.FINISHED
    return Stage.BEGUN if newest_round(run.folder / CHECKPOINTS) else Stage.NEW


def stages_of(suite: Suite, overwrite: bool = False) -> dict[str, Stage]:
    """From the name of a run to how far it has come; with ``overwrite`` all are new.

    Raises:
        UserError: a run folder holds a run of another configuration.
    """
    return {run.name: Stage.NEW if overwrite else stage_of(run) for run in suite.runs}


def is_finished(run: PlannedRun) -> bool:
    """Whether a run has come to its end, under the configuration that is planned."""
    return not _changed(run) and _ended(run)


def seconds_of(run: PlannedRun) -> float:
    """What a finished run took; nothing for one that is not finished."""
    return read_summary(run.folder).seconds if has_ended(run.folder) else 0.0


def _changed(run: PlannedRun) -> list[str]:
    """Keys in which a folder holds another run; nothing where it holds none."""
    if not (run.folder / CONFIG).is_file():
        return []
    done = max(_rounds(run), newest_round(run.folder / CHECKPOINTS))
    return [*changed_keys(run.folder, run.settings), *(["rounds"] if done > run.settings.rounds else [])]


def _ended(run: PlannedRun) -> bool:
    if not has_ended(run.folder):
        return False
    summary, patience = read_summary(run.folder), run.settings.patience
    return bool(summary.rounds == run.settings.rounds or 0 < patience <= summary.rounds - summary.selected_round)


def _rounds(run: PlannedRun) -> int:
    """The rounds of a run that has ended; 0 of one that has not."""
    return read_summary(run.folder).rounds if has_ended(run.folder) else 0
