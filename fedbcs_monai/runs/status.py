"""Status: whether the run in a folder is new, started or finished, and whether its settings match."""

from enum import Enum
from pathlib import Path

from fedbcs_monai.config import renamed, settings_of
from fedbcs_monai.data import digest_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.checkpoint import newest_round
from fedbcs_monai.runs.reader import is_finished, read_environment, read_json, read_summary
from fedbcs_monai.runs.schema import CHECKPOINTS, CONFIG
from fedbcs_monai.settings import KEYS, Settings, keys_that


class RunStatus(Enum):
    """How far a run has come."""

    NEW = "new"
    BEGUN = "begun"
    FINISHED = "finished"


def status_of(folder: Path, settings: Settings) -> RunStatus:
    """How far a run has come: finished, started with a checkpoint to resume from, or new.

    Raises:
        UserError: the folder holds a run of other settings.
    """
    changed = _changed(folder, settings)
    if changed:
        said = f"{folder}: was run with other values of {', '.join(changed)}"
        raise UserError(f"{said}; give those, replace it with --overwrite, or name another -o")
    if _has_ended(folder, settings):
        return RunStatus.FINISHED
    return RunStatus.BEGUN if newest_round(folder / CHECKPOINTS) else RunStatus.NEW


def is_finished_as(folder: Path, settings: Settings) -> bool:
    """Whether a folder holds the finished run of these settings."""
    return not _changed(folder, settings) and _has_ended(folder, settings)


def changed_keys(folder: Path, settings: Settings) -> list[str]:
    """Keys in which a run has other settings; those apart that a resumed run may have otherwise.

    A site list is the same if its cases are, and lie in the same parts; where that is not known, if its path is.
    """
    free = set(keys_that("resume"))
    if "@rounds" in str(settings.schedule):  # then the number of rounds decides every round's learning rate
        free.discard("rounds")
    written = renamed(read_json(folder / CONFIG), str(folder), warn=False)
    before = settings_of({key: value for key, value in written.items() if key in KEYS})
    then, cases = read_environment(folder).get("cases"), cases_digest(settings)
    if then and cases:
        free.add("sites")
    changed = [key for key in KEYS if key not in free and getattr(before, key) != getattr(settings, key)]
    changed = sorted([*changed, *(written.keys() - KEYS)])
    return [*changed, "sites (its cases or their parts)"] if "sites" in free and then != cases else changed


def cases_digest(settings: Settings) -> str | None:
    """Which cases are in which parts; None where the sites are elsewhere."""
    return digest_sites(Path(settings.sites)) if settings.sites else None


def _changed(folder: Path, settings: Settings) -> list[str]:
    """Keys in which a folder holds another run; nothing where it holds none."""
    if not (folder / CONFIG).is_file():
        return []
    rounds = read_summary(folder).rounds if is_finished(folder) else 0
    done = max(rounds, newest_round(folder / CHECKPOINTS))
    return [*changed_keys(folder, settings), *(["rounds"] if done > settings.rounds else [])]


def _has_ended(folder: Path, settings: Settings) -> bool:
    """Whether a run has had all its rounds, or has lost patience."""
    if not is_finished(folder):
        return False
    summary = read_summary(folder)
    return summary.rounds == settings.rounds or 0 < settings.patience <= summary.rounds - summary.selected_round
