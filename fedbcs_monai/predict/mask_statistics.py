"""Mask statistics: volumes and components of a mask, and warnings for its reader."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from fedbcs_monai.predict.intended_input import ANY_INPUT, IntendedInput
from fedbcs_monai.predict.source import Source

_THICKER = 1.2  # an axis whose steps are longer than all others' by a fifth is the one that slices follow
MAX_FOREGROUND = 0.9  # nothing that is segmented here fills nine tenths of an image


def mask_statistics(mask: NDArray[np.uint8], probabilities: NDArray[np.float32], source: Source) -> dict[str, Any]:
    """Statistics of a mask.

    Args:
        mask: class numbers on the grid of the source.
        probabilities: of each class, background first, on the same grid.
        source: the image.

    Returns:
        ``foreground_fraction``, and ``classes`` from the number of each to ``volume_ml`` (``area_px`` in a picture);
        ``components``, those that touch at a corner being one; ``bounding_box``, the first and last voxel along each
        axis, counted from 0; and ``mean_probability`` of the class where it was found. The last two are None where
        nothing was.
    """
    each = {
        str(number): _of_class(mask == number, probabilities[number], source) for number in range(1, len(probabilities))
    }
    return {"foreground_fraction": float((mask > 0).mean()), "classes": each}


def warnings(mask: NDArray[np.uint8], source: Source, made_for: IntendedInput = ANY_INPUT, cut: str = "") -> list[str]:
    """What is unusual about a mask or its image, one sentence each.

    Args:
        mask: class numbers on the grid of the source.
        source: the image.
        made_for: what the model states; where it says no plane, that of `cut`, and without one axial.
        cut: the plane in which the model cuts every volume, as in `plane_of`.
    """
    foreground = mask > 0
    found = [*source.notes, *warnings_of_fraction(float(foreground.mean()))]
    if source.affine is not None:
        found += _kind_warnings(source.affine, source, made_for, cut) + _edge_warnings(foreground)
    return found


def warnings_of_fraction(foreground: float) -> list[str]:
    """What is unusual about the fraction of an image that was marked."""
    if not foreground:
        return ["nothing was found"]
    return [f"{foreground:.0%} of the image was marked"] if foreground > MAX_FOREGROUND else []


def plane_of(affine: NDArray[np.float64], cut: str = "") -> str:
    """The plane that the slices of a volume lie nearest to.

    Args:
        affine: from voxels to RAS in mm.
        cut: the plane in which a model cuts every volume, so that the order of the file's axes does not matter: the
            slices are then those of the thickest axis, and of this plane where no axis is clearly the thickest.
            Empty: the slices follow the last axis of the file.
    """
    axis, directions = 2, affine[:3, :3]
    if cut:
        steps = np.linalg.norm(directions, axis=0)
        axis = int(steps.argmax())
        if np.count_nonzero(steps * _THICKER > steps[axis]) > 1:
            return cut
    normal = np.cross(directions[:, axis - 2], directions[:, axis - 1])
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def _of_class(part: NDArray[np.bool_], probability: NDArray[np.float32], source: Source) -> dict[str, Any]:
    box = ndimage.find_objects(part.astype(np.uint8))
    where = box[0] if box else tuple(slice(0, 0) for _ in part.shape)
    inside = part[where]
    count = int(inside.sum())
    components = int(ndimage.label(inside, ndimage.generate_binary_structure(part.ndim, part.ndim))[1])
    return {
        **_size(count, source),
        "components": components,
        "bounding_box": [[axis.start, axis.stop - 1] for axis in where] if count else None,
        "mean_probability": float(probability[where][inside].mean(dtype=np.float64)) if count else None,
    }


def _size(count: int, source: Source) -> dict[str, float]:
    if source.affine is None:
        return {"area_px": count}
    voxel_mm3 = abs(np.linalg.det(source.affine[:3, :3]))
    return {"volume_ml": float(count * voxel_mm3 / 1000)}


def _kind_warnings(affine: NDArray[np.float64], source: Source, made_for: IntendedInput, cut: str) -> list[str]:
    found, plane, trained = [], plane_of(affine, cut), made_for.plane or cut or "axial"
    if plane != trained:
        which = "its slices" if cut else "the slices along the last axis"
        found.append(f"{which} are {plane}; a model trained on {trained} slices may fail")
    modality = source.series.modality if source.series is not None else ""
    if modality and made_for.modality not in ("", modality):
        found.append(f"it is {modality}, and this model was made for {made_for.modality}")
    return found


def _edge_warnings(foreground: NDArray[np.bool_]) -> list[str]:
    edges = [foreground.take(end, axis).any() for axis in range(3) for end in (0, -1)]
    return ["the prediction reaches the edge of the volume, where it may be cut off"] if any(edges) else []
