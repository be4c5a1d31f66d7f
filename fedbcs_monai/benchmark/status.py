"""Stage: how far a planned run has come."""

from enum import Enum
from typing import Any

from fedbcs_monai.benchmark.plan import PlannedRun, Suite
from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.checkpoint import newest_round
from fedbcs_monai.runs.loop import changed_keys
from fedbcs_monai.runs.writer import read_json


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
    return Stage.BEGUN if newest_round(run.folder / "checkpoints") else Stage.NEW


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
    return float(_summary(run).get("seconds", 0))


def _changed(run: PlannedRun) -> list[str]:
    """Keys in which a folder holds another run; nothing where it holds none."""
    if not (run.folder / "config.json").is_file():
        return []
    done = max(_summary(run).get("rounds", 0), newest_round(run.folder / "checkpoints"))
    return [*changed_keys(run.folder, run.settings), *(["rounds"] if done > run.settings.rounds else [])]


def _ended(run: PlannedRun) -> bool:
    summary, patience = _summary(run), run.settings.patience
    if not summary:
        return False
    rounds = summary.get("rounds", 0)
    selected = summary.get("selected_round", rounds)
    return bool(rounds == run.settings.rounds or 0 < patience <= rounds - selected)


def _summary(run: PlannedRun) -> dict[str, Any]:
    """What a finished run says of itself; nothing for one that is not finished."""
    path = run.folder / "summary.json"
    return read_json(path) if path.is_file() else {}
