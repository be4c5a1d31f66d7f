"""Stage: how far a planned run has come, and to carry it out from there."""

import json
from enum import Enum
from typing import Any

from fedbcs_monai.drivers.simulate import train
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.run import changed_keys
from fedbcs_monai.federated.suite import PlannedRun
from fedbcs_monai.federated.watch import Watch


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
    folder = run.folder
    if not (folder / "config.json").is_file():
        return Stage.NEW
    summary = _summary(run)
    rounds = summary.get("rounds", 0)
    changed = [*changed_keys(folder, run.config), *(["rounds"] if rounds > run.config["rounds"] else [])]
    if changed:
        said = f"{folder}: was run with other values of {', '.join(changed)}"
        raise UserError(f"{said}; replace it with --overwrite, or name another -o")
    patience = run.config.get("patience", 0)
    if rounds == run.config["rounds"] or (summary and 0 < patience <= rounds - summary["selected_round"]):
        return Stage.FINISHED
    return Stage.BEGUN if any((folder / "checkpoints").glob("round_*.json")) else Stage.NEW


def seconds_of(run: PlannedRun) -> float:
    """What a finished run took; nothing for one that is not finished."""
    return float(_summary(run).get("seconds", 0))


def _summary(run: PlannedRun) -> dict[str, Any]:
    """What a finished run says of itself; nothing for one that is not finished."""
    path = run.folder / "summary.json"
    summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return summary


def carry_out(run: PlannedRun, overwrite: bool = False, watch: Watch | None = None) -> None:
    """Train and test a run in this process, from where it was left.

    Args:
        run: which.
        overwrite: begin anew whatever is there.
        watch: hears of progress.

    Raises:
        UserError: what the user can mend.
    """
    begun = not overwrite and stage_of(run) is Stage.BEGUN
    left = (run.folder / "rounds.csv").is_file()  # of a run that ended before its first checkpoint
    train(run.config, resume=begun, overwrite=left and not begun, watch=watch)
