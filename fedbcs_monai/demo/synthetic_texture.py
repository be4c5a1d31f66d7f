"""Synthetic texture: random fields for the grain, deformation and shading of the synthetic images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Field = NDArray[Any]  # of floats; float32 for volumes, where memory counts


def noise(rng: np.random.Generator, shape: Sequence[int], sigma: float | Sequence[float] | Field) -> Field:
    """Draw Gaussian noise of a given smoothness, periodic along every axis.

    Args:
        rng: Source of randomness.
        shape: Number of pixels or voxels along each axis.
        sigma: Standard deviation of the smoothing in pixels, one number or one per axis. 0 is white noise.

    Returns:
        A float32 array of ``shape`` with mean 0 and standard deviation 1.

    >>> field = noise(np.random.default_rng(0), (32, 32), sigma=3.0)
    >>> field.shape, round(float(field.std()), 3)
    ((32, 32), 1.0)
    """
    field: Field = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma, mode="wrap", truncate=3.0
    )
    field -= field.mean()
    return field / max(float(field.std()), 1e-6)


def ramp(level: Field, width: float = 1.0) -> Field:
    """Turn a signed distance into cover: 0 outside, 1 inside, 1/2 on the edge, over ``width`` of the same unit."""
    cover: Field = np.clip(level / width + 0.5, 0.0, 1.0)
    return cover
