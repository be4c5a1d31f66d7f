"""Data check: faults of an image and its label that MONAI would load silently, each with a remedy."""

import hashlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fedbcs_monai.data import pictures
from fedbcs_monai.data.readers import (
    ITK_SUFFIXES,
    NIFTI_SUFFIXES,
    Grid,
    grid_of,
    read_grid,
    shift_voxels,
    sizes_text,
    volume_problems,
)
from fedbcs_monai.errors import UserError

SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *pictures.SUFFIXES)

_SHIFT_VOXELS = 0.1  # grids that differ by less than a tenth of a voxel are one grid


class PairReport(NamedTuple):
    """What a look at an image and its label found.

    Fields:
        problems: one line each, naming file and remedy; empty if the pair is sound.
        foreground: whether the label has any.
        sha256: of `image` and `label`.
    """

    problems: list[str]
    foreground: bool
    sha256: dict[str, str]


def read_image(path: Path) -> Grid:
    """Read a whole image, as stored in its file.

    Raises:
        UserError: it cannot be read, or is not a sound image; the first problem, naming file and remedy.
    """
    grid = read_grid(path)
    problems = _image_problems(path, grid)
    if problems:
        raise UserError(problems[0])
    return grid


def check_pair(image: Path, label: Path) -> PairReport:
    """Read an image and its label whole and look for what would harm training."""
    problems: list[str] = []
    digests: dict[str, str] = {}
    grids: dict[str, Grid] = {}
    for kind, path in (("image", image), ("label", label)):
        try:
            content = path.read_bytes()
            digests[kind] = hashlib.sha256(content).hexdigest()
            grids[kind] = grid_of(path, content)
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror}); repair or remove it")
        except UserError as error:
            problems.append(str(error))
    if "image" in grids:
        problems += _image_problems(image, grids["image"])
    foreground = False
    if "label" in grids:
        found = _label_problems(label, grids["label"])
        problems += found
        foreground = bool((grids["label"].array != 0).any())
    if len(grids) == 2:
        problems += _grid_problems(image, label, grids["image"], grids["label"])
    return PairReport(problems, foreground, digests)


def _image_problems(path: Path, grid: Grid) -> list[str]:
    array, problems = grid.array, volume_problems(path, grid)
    if not problems and array.size and array.min() == array.max():
        problems.append(f"{path}: every voxel is {array.flat[0]:g}; export it again or remove the case")
    return problems


def _label_problems(path: Path, grid: Grid) -> list[str]:
    array, problems = grid.array, volume_problems(path, grid)
    if problems:
        return problems
    if array.ndim == 3 and grid.affine is None:
        if (array != array[..., :1]).any():
            return [*problems, f"{path}: a coloured mask; save one class as grey, 0 and 255"]
        array = array[..., 0]
    top = array.max(initial=0)
    if top not in (0, 1, 255, 65535) or ((array != 0) & (array != top)).any():
        values = ", ".join(f"{value:g}" for value in np.unique(array)[:5])
        problems.append(
            f"{path}: holds {values}, ...; expected 0 and 1, or 0 and 255: threshold it or choose one class"
        )
    elif top and (array == top).all():
        problems.append(f"{path}: everything is foreground; draw the label again or remove the case")
    return problems


def _grid_problems(image: Path, label: Path, first: Grid, second: Grid) -> list[str]:
    """What keeps a label from lying on its image, voxel by voxel."""
    if (first.affine is None) != (second.affine is None):
        return [f"{label}: a picture and a volume do not match; use one kind of file for image and label"]
    axes = 2 if first.affine is None else 3
    sizes = first.array.shape[:axes], second.array.shape[:axes]
    if sizes[0] != sizes[1]:
        came, wanted = sizes_text(sizes[1]), sizes_text(sizes[0])
        return [f"{label}: its size {came} is not the image's {wanted}; draw or resample it on {image}"]
    if first.affine is None or second.affine is None or volume_problems(image, first) or volume_problems(label, second):
        return []
    shift = shift_voxels(first.affine, second.affine, sizes[0])
    if not shift < _SHIFT_VOXELS:
        return [f"{label}: lies up to {shift:.1f} voxels away from its image; resample it on the grid of {image}"]
    return []
