"""Measures: what is told of a mask, and what should make its reader look twice."""

from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedbcs_monai.clinical.images import Source

MOST_FOREGROUND = 0.9  # nothing that is segmented here fills nine tenths of an image


def measures(mask: NDArray[np.uint8], source: Source, classes: int) -> dict[str, Any]:
    """Statistics of a mask.

    Args:
        mask: class numbers on the grid of the source.
        source: the image.
        classes: number of classes, background among them.

    Returns:
        ``foreground_fraction``, and ``classes`` from the number of each to its ``volume_ml`` (``area_px`` in a picture)
        and ``components``, those that touch at a corner being one.
    """
    each = {str(number): _of_class(mask == number, source) for number in range(1, classes)}
    return {"foreground_fraction": float((mask > 0).mean()), "classes": each}


def warnings(mask: NDArray[np.uint8], source: Source) -> list[str]:
    """What is unusual about a mask or the geometry of its image, one sentence each."""
    found, foreground = [], mask > 0
    if not foreground.any():
        found.append("nothing was found")
    if foreground.mean() > MOST_FOREGROUND:
        found.append(f"{foreground.mean():.0%} of the image was marked")
    if source.affine is not None:
        found += _volume_warnings(foreground, source)
    return found


def _of_class(part: NDArray[np.bool_], source: Source) -> dict[str, Any]:
    count = int(part.sum())
    components = int(ndimage.label(part, ndimage.generate_binary_structure(part.ndim, part.ndim))[1])
    if source.affine is None:
        return {"area_px": count, "components": components}
    voxel_mm3 = abs(np.linalg.det(source.affine[:3, :3]))
    return {"volume_ml": float(count * voxel_mm3 / 1000), "components": components}


def _volume_warnings(foreground: NDArray[np.bool_], source: Source) -> list[str]:
    found = []
    edges = [foreground.take(end, axis).any() for axis in range(3) for end in (0, -1)]
    if any(edges):
        found.append("the prediction reaches the edge of the volume, where it may be cut off")
    plane = ("sagittal", "coronal", "axial")[int(nib.orientations.io_orientation(source.affine)[2, 0])]
    if plane != "axial":
        found.append(f"the slices along the last axis are {plane}; a model trained on axial slices may fail")
    unit = source.header.get_xyzt_units()[0] if source.header is not None else "mm"
    if unit not in ("mm", "unknown"):
        found.append(f"the file gives lengths in {unit}; they were taken for mm, so the volume may be wrong")
    return found
