"""Checkpoints: write and read the state of the server and of every site, atomically."""

import hashlib
import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State
from fedbcs_monai.files import BLANK, DIGEST, DamagedError, check_digest, insert_digest, sha256, sweep, whole
from fedbcs_monai.tensors import Tensors, decoded, prefixed, under, write_tensors

_LOG = logging.getLogger(__name__)


class Checkpoint(NamedTuple):
    """A federation between two rounds.

    Args:
        state: the server's.
        sites: from a site's name to what it keeps for itself.
        history: plain numbers that a backend resumes with, such as the best round so far.
    """

    state: State
    sites: Mapping[str, Tensors]
    history: Mapping[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write one round's checkpoint; all but the newest ``keep`` are removed (0: none is).

    The tensors go into ``round_0003.safetensors``, the rest, the SHA-256 of that file and its own into
    ``round_0003.json``, written last: a checkpoint whose JSON is there is whole.
    """
    stem = folder / f"round_{checkpoint.state.round:04d}"
    tensors = {**prefixed("weights", checkpoint.state.weights), **prefixed("shared", checkpoint.state.shared)}
    for name, kept in checkpoint.sites.items():
        tensors |= prefixed(f"sites/{name}", kept)
    write_tensors(stem.with_suffix(".safetensors"), tensors)
    content = {
        DIGEST: BLANK,
        "round": checkpoint.state.round,
        "sites": sorted(checkpoint.sites),
        "history": dict(checkpoint.history),
        "sha256": sha256(stem.with_suffix(".safetensors")),
    }
    with whole(stem.with_suffix(".json")) as part:
        part.write_bytes(json.dumps(content, indent=1).encode())
        insert_digest(part)
    for older in _rounds(folder)[:-keep] if keep else ():
        _remove(older)
    _LOG.debug("checkpoint of round %d in %s", checkpoint.state.round, folder)
    return stem.with_suffix(".json")


def read_checkpoint(folder: Path, round: int | None = None) -> Checkpoint:
    """Read the newest checkpoint that is not damaged, with a warning if that is not the newest; or that of one round.

    Raises:
        UserError: there is none, or all are damaged.
    """
    found = [path for path in _rounds(folder) if round is None or _round(path) == round]
    if not found:
        raise UserError(f"{folder}: no checkpoint{'' if round is None else f' of round {round}'}; train from the start")
    damaged: list[str] = []
    for path in reversed(found):
        try:
            checkpoint = _read(path)
        except DamagedError as error:
            damaged.append(str(error))
            continue
        if damaged:
            warnings.warn(f"{damaged[0]}; resumes from round {checkpoint.state.round} instead", stacklevel=2)
        return checkpoint
    others = [str(_round(path)) for path in _rounds(folder) if path not in found]
    way_out = f"resume from another round: {', '.join(others)}" if others else "train from the start, with --overwrite"
    raise UserError(f"{damaged[0]}{', and so are all before it' if len(damaged) > 1 else ''}; {way_out}")


def _read(path: Path) -> Checkpoint:
    content, file = _content(path), path.with_suffix(".safetensors")
    try:
        stored = file.read_bytes()
    except FileNotFoundError:
        raise DamagedError(f"{file}: missing") from None
    if hashlib.sha256(stored).hexdigest() != content["sha256"]:
        raise DamagedError(f"{file}: damaged")
    tensors = decoded(file, stored)
    state = State(content["round"], under("weights", tensors), under("shared", tensors))
    return Checkpoint(state, {name: under(f"sites/{name}", tensors) for name in content["sites"]}, content["history"])


def _content(path: Path) -> dict[str, Any]:
    """What the JSON of a checkpoint holds; one of an older version has no digest of itself."""
    stored = path.read_bytes()
    try:
        check_digest(path, stored)
        content = json.loads(stored)
    except ValueError:
        content = None
    if not isinstance(content, dict) or not content.keys() >= {"round", "sites", "history", "sha256"}:
        raise DamagedError(f"{path}: damaged")
    return content


def newest_round(folder: Path) -> int:
    """The round of the newest checkpoint; 0 where there is none."""
    return max(map(_round, _rounds(folder)), default=0)


def drop_checkpoints_after(folder: Path, round: int) -> None:
    """Remove what a run that goes back to an earlier round will write again, and what a killed one left unfinished."""
    sweep(folder)
    left = {path for path in _rounds(folder) if _round(path) <= round}
    for path in [*folder.glob("round_*.json"), *folder.glob("round_*.safetensors")]:
        if path.with_suffix(".json") not in left:
            path.unlink()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".safetensors").unlink(missing_ok=True)


def _rounds(folder: Path) -> list[Path]:
    return sorted(folder.glob("round_*.json"), key=_round)


def _round(path: Path) -> int:
    return int(path.stem.removeprefix("round_"))
