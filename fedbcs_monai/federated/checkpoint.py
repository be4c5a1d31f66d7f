"""Checkpoints: the server's state and every site's to disk and back, atomically."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.data.sites import sha256
from fedbcs_monai.errors import UserError
from fedbcs_monai.messages import State
from fedbcs_monai.tensors import Tensors, prefixed, read_tensors, under, write_atomically, write_tensors


class Checkpoint(NamedTuple):
    """A federation between two rounds.

    Args:
        state: the server's.
        sites: from a site's name to what it keeps for itself.
        history: plain numbers that a driver goes on with, such as the best round so far.
    """

    state: State
    sites: Mapping[str, Tensors]
    history: Mapping[str, Any]


def write_checkpoint(folder: Path, checkpoint: Checkpoint, keep: int = 2) -> Path:
    """Write one round's checkpoint; all but the newest ``keep`` are removed (0: none is).

    The tensors go into ``round_0003.safetensors``, the rest and the tensors' SHA-256 into ``round_0003.json``, written
    last: a checkpoint whose JSON is there is whole.
    """
    stem = folder / f"round_{checkpoint.state.round:04d}"
    tensors = {**prefixed("weights", checkpoint.state.weights), **prefixed("shared", checkpoint.state.shared)}
    for name, kept in checkpoint.sites.items():
        tensors |= prefixed(f"sites/{name}", kept)
    write_tensors(stem.with_suffix(".safetensors"), tensors)
    content = {
        "round": checkpoint.state.round,
        "sites": sorted(checkpoint.sites),
        "history": dict(checkpoint.history),
        "sha256": digest(stem.with_suffix(".safetensors")),
    }
    write_atomically(stem.with_suffix(".json"), json.dumps(content, indent=1).encode())
    for older in _rounds(folder)[:-keep] if keep else ():
        _remove(older)
    return stem.with_suffix(".json")


def read_checkpoint(folder: Path, round: int | None = None) -> Checkpoint:
    """Read the newest checkpoint, or that of one round.

    Raises:
        UserError: there is none, or its files are not those that were written.
    """
    found = [path for path in _rounds(folder) if round is None or _round(path) == round]
    if not found:
        raise UserError(f"{folder}: no checkpoint{'' if round is None else f' of round {round}'}; train from the start")
    path = found[-1]
    file = path.with_suffix(".safetensors")
    content = _content(path)
    if not file.is_file() or digest(file) != content["sha256"]:
        raise UserError(f"{file}: damaged or missing; remove {path.name} to go on from the round before")
    tensors = read_tensors(file)
    state = State(content["round"], under("weights", tensors), under("shared", tensors))
    return Checkpoint(state, {name: under(f"sites/{name}", tensors) for name in content["sites"]}, content["history"])


def newest_round(folder: Path) -> int:
    """The round of the newest checkpoint; 0 where there is none."""
    return max(map(_round, _rounds(folder)), default=0)


def _content(path: Path) -> dict[str, Any]:
    """What the JSON of a checkpoint holds."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        content = None
    if not isinstance(content, dict) or not content.keys() >= {"round", "sites", "history", "sha256"}:
        raise UserError(f"{path}: damaged; remove it to go on from the round before")
    return content


def drop_checkpoints_after(folder: Path, round: int) -> None:
    """Remove what a run that goes back to an earlier round will write anew."""
    for path in _rounds(folder):
        if _round(path) > round:
            _remove(path)


def _remove(path: Path) -> None:
    path.unlink()
    path.with_suffix(".safetensors").unlink(missing_ok=True)


def _rounds(folder: Path) -> list[Path]:
    return sorted(folder.glob("round_*.json"), key=_round)


def _round(path: Path) -> int:
    return int(path.stem.removeprefix("round_"))


def digest(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits; empty if there is no such file."""
    return sha256(path) if path.is_file() else ""
