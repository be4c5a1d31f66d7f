"""Tensors: arithmetic on dictionaries of named tensors, and their checked files."""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from fedbcs_monai.files import BLANK, DIGEST, DamagedError, check_digest, insert_digest, whole

Tensors = Mapping[str, Tensor]

PIECE = 1 << 22
"""Elements of a piece of a tensor: a multiple of what a CPU adds at once, for a mean in pieces with the same bits."""


@dataclass(frozen=True)
class Pieces:
    """A tensor in flat pieces of `PIECE` elements, of which the last may have fewer; each is read when it is asked for.

    Args:
        readers: what reads each piece.
        shape: of the tensor.
    """

    readers: Sequence[Callable[[], Tensor]]
    shape: tuple[int, ...]

    def __call__(self) -> Tensor:
        """Read the whole tensor."""
        return torch.cat([read() for read in self.readers]).reshape(self.shape)


class Stored(Mapping[str, Tensor]):
    """Named tensors that lie elsewhere; each is read whenever it is looked at, so that holding them costs no memory.

    Args:
        readers: from a name to what reads the tensor, which may be its `Pieces`.
    """

    def __init__(self, readers: Mapping[str, Callable[[], Tensor]]) -> None:
        self._readers = dict(readers)

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor."""
        return self._readers[name]()

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter(self._readers)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._readers)

    def pieces(self, name: str) -> Pieces:
        """A tensor in pieces."""
        reader = self._readers[name]
        return reader if isinstance(reader, Pieces) else pieces_of(reader())


def pieces_of(tensor: Tensor) -> Pieces:
    """A contiguous tensor in pieces that share its memory."""
    return Pieces([partial(_itself, piece) for piece in _split(tensor)], tuple(tensor.shape))


def _split(tensor: Tensor) -> tuple[Tensor, ...]:
    return torch.split(tensor.flatten(), PIECE)


def _itself(tensor: Tensor) -> Tensor:
    return tensor


def mean(parts: Iterable[tuple[Tensors, float]]) -> dict[str, Tensor]:
    """Weighted mean, name by name (McMahan et al., AISTATS 2017, Algorithm 1).

    Sums are kept in float64 and one part is held at a time, so memory does not grow with the number of parts. Parts
    that are `Stored` are added up piece by piece, and take no memory worth mentioning beside the mean itself.
    Tensors that are not floating point (counters) are copied from the part with the largest weight, the first such.
    The last bits depend on the order of the parts: callers fix it.

    Args:
        parts: pairs of named tensors and a weight > 0; the weights need not sum to one.

    Raises:
        ValueError: no parts, a weight that is not positive and finite, or parts whose names or shapes differ.
    """
    sums: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    total = largest = 0.0
    parts = iter(parts)
    for tensors, weight in parts:
        if isinstance(tensors, Stored) and not kinds:
            return _mean_of_stored([(tensors, weight), *parts])
        if not 0 < weight < float("inf"):
            raise ValueError(f"a weight in a mean must be positive and finite, got {weight}")
        if not kinds:
            kinds = {name: tensor.dtype for name, tensor in tensors.items()}
            sums = {
                name: torch.zeros_like(t, dtype=torch.float64) if t.is_floating_point() else t.clone()
                for name, t in tensors.items()
            }
        elif (differing := kinds.keys() ^ tensors.keys()) or (
            differing := {name for name in kinds if sums[name].shape != tensors[name].shape}
        ):
            raise ValueError(f"cannot average tensors whose names or shapes differ: {', '.join(sorted(differing)[:5])}")
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                sums[name].add_(tensor, alpha=weight)
            elif weight > largest:
                sums[name].copy_(tensor)
        total, largest = total + weight, max(largest, weight)
    if not total:
        raise ValueError("cannot average nothing: no update was given")
    return {name: (s.div_(total).to(kinds[name]) if s.is_floating_point() else s) for name, s in sums.items()}


def _mean_of_stored(parts: Sequence[tuple[Tensors, float]]) -> dict[str, Tensor]:
    names = parts[0][0].keys()
    if differing := {name for tensors, _ in parts for name in tensors.keys() ^ names}:
        raise ValueError(f"cannot average tensors whose names or shapes differ: {', '.join(sorted(differing)[:5])}")
    return {name: _mean_by_pieces(name, parts) for name in names}


def _mean_by_pieces(name: str, parts: Sequence[tuple[Tensors, float]]) -> Tensor:
    tensors = [(t.pieces(name) if isinstance(t, Stored) else pieces_of(t[name]), weight) for t, weight in parts]
    first = tensors[0][0]
    if any(pieces.shape != first.shape for pieces, _ in tensors):
        raise ValueError(f"cannot average tensors whose names or shapes differ: {name}")
    found = torch.empty(first.shape, dtype=first.readers[0]().dtype)
    for number, piece in enumerate(_split(found)):
        piece.copy_(mean(({name: pieces.readers[number]()}, weight) for pieces, weight in tensors)[name])
    return found


def combine(fn: Callable[..., Tensor], *parts: Tensors) -> dict[str, Tensor]:
    """Apply ``fn`` to the tensors of the same name in every part."""
    first, *others = parts
    return {name: fn(tensor, *(other[name] for other in others)) for name, tensor in first.items()}


def prefixed(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """File tensors under ``prefix/``.

    >>> list(prefixed("decoder", {"1": torch.zeros(2)}))
    ['decoder/1']
    """
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Tensors) -> dict[str, Tensor]:
    """Take out what was filed under ``prefix/``, with the prefix removed.

    >>> list(under("decoder", {"decoder/1": torch.zeros(2), "encoder/1": torch.zeros(2)}))
    ['1']
    """
    return {name.removeprefix(f"{prefix}/"): t for name, t in tensors.items() if name.startswith(f"{prefix}/")}


def joined(parts: Iterable[Tensors]) -> dict[str, Tensor]:
    """Rows of every name, part after part: vectors (D,) and matrices (n, D) to one matrix.

    >>> joined([{"1": torch.zeros(2)}, {}, {"1": torch.ones(3, 2)}])["1"].shape
    torch.Size([4, 2])
    """
    rows: dict[str, list[Tensor]] = {}
    for tensors in parts:
        for name, tensor in tensors.items():
            rows.setdefault(name, []).append(tensor.reshape(-1, tensor.shape[-1]))
    return {name: torch.cat(found) for name, found in sorted(rows.items())}


def detached(tensors: Tensors) -> dict[str, Tensor]:
    """Copies on the CPU that no later training step can change: plain tensors, whatever MONAI has made of them."""
    return {name: tensor.detach().as_subclass(Tensor).to("cpu", copy=True) for name, tensor in tensors.items()}


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write named tensors as safetensors, whole or not at all, without a copy of them in memory.

    The file holds its own SHA-256 in its metadata.

    Raises:
        OSError: what the system refuses.
    """
    with whole(path) as part:
        save(part, tensors, {DIGEST: BLANK})
        insert_digest(part)


def save(path: Path, tensors: Tensors, metadata: Mapping[str, str]) -> None:
    """Write a safetensors file as any other is written: with its usual mode, and with `OSError` for what is refused."""
    path.touch()
    mode = path.stat().st_mode
    try:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, dict(metadata))
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from None
    path.chmod(mode)  # newer versions of safetensors let nobody but the owner read


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file, sorted by name: the library gives them in an order of chance.

    A file without a SHA-256, which an older version or another program has written, is taken with a warning.

    Raises:
        DamagedError: it is not the file that was written.
    """
    content = path.read_bytes()
    digest = check_digest(path, content)
    tensors = decoded(path, content)
    if not digest:
        warnings.warn(
            f"{path}: holds no SHA-256 of itself, so damage cannot be seen; this version writes one", stacklevel=2
        )
    return tensors


def decoded(path: Path, content: bytes) -> dict[str, Tensor]:
    """The tensors in the content of a safetensors file, sorted by name.

    Raises:
        DamagedError: it is none.
    """
    try:
        tensors: dict[str, Tensor] = load(content)
    except (SafetensorError, ValueError) as error:
        raise DamagedError(f"{path}: damaged, not a safetensors file ({error}); restore it from a copy") from None
    return dict(sorted(tensors.items()))
