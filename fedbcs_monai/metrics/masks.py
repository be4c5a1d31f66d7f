"""Mask metrics: Dice, HD95 and ASSD in mm, defined for empty masks too.

| masks          | Dice | HD95, ASSD                |
|----------------|------|---------------------------|
| both empty     | 1    | 0                         |
| one of them    | 0    | the diagonal of the image |
| spacing unknown| as is| NaN                       |

A missed organ costs the diagonal, so that leaving out is never better than trying. MONAI alone gives NaN, 0 or infinity
there, with a warning.
"""

from collections.abc import Sequence
from math import dist, nan
from typing import NamedTuple

import numpy as np
import torch
from monai.metrics import get_mask_edges, get_surface_distance
from numpy.typing import NDArray
from torch import Tensor

Mask = Tensor | NDArray[np.generic]


class SurfaceDistances(NamedTuple):
    """Distances between the surfaces of two masks in mm."""

    hd95_mm: float
    assd_mm: float


class Scores(NamedTuple):
    """How well a prediction agrees with its reference."""

    dice: float
    hd95_mm: float
    assd_mm: float


def dice(pred: Mask, ref: Mask) -> float:
    """Dice of two masks of the same shape; 1 if both are empty.

    >>> dice(np.array([True, True, False]), np.array([True, False, False]))
    0.6666666666666666
    """
    return _dice(*_pair(pred, ref))


def slice_dice(pred: Mask, ref: Mask) -> float:
    """Mean Dice of the slices of a volume in which at least one of the masks has foreground; 1 if both are empty.

    Args:
        pred: mask of shape `(H, W, D)`.
        ref: mask of the same shape; slices run along the last axis.
    """
    pred, ref = _pair(pred, ref)
    if pred.ndim != 3:
        raise ValueError(f"slice_dice expects masks of shape (H, W, D), got {tuple(pred.shape)}")
    scores = [_dice(p, r) for p, r in zip(pred.unbind(-1), ref.unbind(-1), strict=True) if p.any() or r.any()]
    return sum(scores) / len(scores) if scores else 1.0


def surface_distances(pred: Mask, ref: Mask, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """95th percentile Hausdorff and average symmetric surface distance.

    Surfaces and distances are MONAI's, measured once for both numbers; they equal its `compute_hausdorff_distance` and
    `compute_average_surface_distance`, which in MONAI 1.6 warn about an argument of their own.

    The surface is made of the foreground pixels with a background pixel beside them (4 or 6 neighbours); outside the
    image is background. Distances run between pixel centres. HD95 is the larger of the two directed 95th percentiles,
    interpolated linearly; ASSD is the mean over the pixels of both surfaces.

    Args:
        pred: mask of shape `(H, W)` or `(H, W, D)`.
        ref: mask of the same shape.
        spacing_mm: distance between pixels along each axis of the masks, in their order.
    """
    pred, ref = _pair(pred, ref)
    spacing = [float(step) for step in spacing_mm]
    if len(spacing) != pred.ndim or not all(0 < step < float("inf") for step in spacing):
        raise ValueError(f"expected {pred.ndim} positive spacings for a mask of {pred.ndim} axes, got {spacing}")
    if not pred.any() and not ref.any():
        return SurfaceDistances(0.0, 0.0)
    if not pred.any() or not ref.any():
        diagonal_mm = dist([0.0] * pred.ndim, [n * step for n, step in zip(pred.shape, spacing, strict=True)])
        return SurfaceDistances(diagonal_mm, diagonal_mm)
    edges = get_mask_edges(pred.numpy(), ref.numpy())
    there, back = (get_surface_distance(*pair, spacing=spacing) for pair in (edges, edges[::-1]))
    hd95_mm = max(np.percentile(there, 95), np.percentile(back, 95))
    return SurfaceDistances(float(hd95_mm), float(np.concatenate([there, back]).mean(dtype=np.float64)))


def score(pred: Mask, ref: Mask, spacing_mm: Sequence[float] | None) -> Scores:
    """Dice and surface distances of two masks; without a spacing the distances are NaN."""
    distances = SurfaceDistances(nan, nan) if spacing_mm is None else surface_distances(pred, ref, spacing_mm)
    return Scores(dice(pred, ref), *distances)


def _dice(pred: Tensor, ref: Tensor) -> float:
    size = int(pred.sum()) + int(ref.sum())
    return 2 * int((pred & ref).sum()) / size if size else 1.0


def _pair(pred: Mask, ref: Mask) -> tuple[Tensor, Tensor]:
    if tuple(pred.shape) != tuple(ref.shape):
        raise ValueError(f"prediction and reference differ in shape: {tuple(pred.shape)} and {tuple(ref.shape)}")
    return _mask(pred, "prediction"), _mask(ref, "reference")


def _mask(mask: Mask, name: str) -> Tensor:
    """A boolean tensor on the CPU. Probabilities are refused: nearly all of them would count as true."""
    values = mask.detach().cpu() if isinstance(mask, Tensor) else np.asarray(mask)
    foreground = values == 1
    if not bool((foreground | (values == 0)).all()):
        raise ValueError(f"the {name} must be boolean or hold only 0 and 1; threshold it first")
    return torch.as_tensor(foreground).as_subclass(Tensor)
