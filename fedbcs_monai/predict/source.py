"""Source: an image in memory with the geometry of its file or series."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from numpy.typing import NDArray


class Source(NamedTuple):
    """An image as stored in its file or series.

    Fields:
        path: as it was given.
        array: voxels (X, Y, Z), or pixels (H, W) or (H, W, 3).
        affine: from voxels to RAS in mm; None for pictures.
        header: of a NIfTI file.
        series: of a DICOM study, its `fedbcs_monai.predict.dicom.volume.Stack`.
        notes: what its reader found unusual, one sentence each.
    """

    path: Path
    array: NDArray[Any]
    affine: NDArray[np.float64] | None
    header: Any = None
    series: Any = None
    notes: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the grid of a mask: (X, Y, Z) or (H, W)."""
        return self.array.shape[: 2 if self.affine is None else 3]

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Along each axis; None for pictures, whose resolution is not to be trusted."""
        if self.affine is None:
            return None
        x, y, z = (float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z

    def tensor(self) -> MetaTensor:
        """The image as MONAI's `LoadImage` gives it: float32, colours last, with the metadata that transforms read."""
        affine = np.eye(4) if self.affine is None else self.affine
        meta: dict[str, Any] = {
            "filename_or_obj": str(self.path),
            "original_affine": affine,
            "spatial_shape": np.asarray(self.shape),
            "original_channel_dim": "no_channel" if self.array.ndim == len(self.shape) else -1,
        }
        if self.affine is None:
            meta["mode"] = "I;16" if self.array.dtype.itemsize == 2 else "L" if self.array.ndim == 2 else "RGB"
        return MetaTensor(torch.as_tensor(self.array.astype(np.float32)), affine=torch.as_tensor(affine), meta=meta)
