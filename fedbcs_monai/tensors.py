"""Maths on dictionaries of named tensors."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load, save
from torch import Tensor

Tensors = Mapping[str, Tensor]


def mean(parts: Iterable[tuple[Tensors, float]]) -> dict[str, Tensor]:
    """Weighted mean, name by name (McMahan et al., AISTATS 2017, Algorithm 1).

    Sums are kept in float64 and one part is held at a time, so memory does not grow with the number of parts.
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
    for tensors, weight in parts:
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
                sums[name].add_(tensor.to(torch.float64), alpha=weight)
            elif weight > largest:
                sums[name].copy_(tensor)
        total, largest = total + weight, max(largest, weight)
    if not total:
        raise ValueError("cannot average nothing: no update was given")
    return {name: (s / total).to(kinds[name]) if s.is_floating_point() else s for name, s in sums.items()}


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
    """Copies on the CPU that no later training step can change."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def write_atomically(path: Path, content: bytes) -> None:
    """Write a whole file or nothing: temporary file beside it, fsync, rename."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def write_tensors(path: Path, tensors: Tensors) -> None:
    """Write named tensors as safetensors, atomically."""
    write_atomically(path, save({name: tensor.contiguous() for name, tensor in tensors.items()}))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read named tensors from a safetensors file."""
    tensors: dict[str, Tensor] = load(path.read_bytes())
    return tensors
