"""Check an image and its label: what MONAI would load without a word and get wrong, each in one line with a remedy."""

import gzip
import hashlib
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.data import ITKReader
from numpy.typing import NDArray

from fedbcs_monai.data import pictures
from fedbcs_monai.errors import UserError

NIFTI_SUFFIXES = (".nii.gz", ".nii")
PAIR_SUFFIXES = (".hdr", ".img")
ITK_SUFFIXES = (".nrrd", ".mha")
SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES, *pictures.SUFFIXES)

_SHIFT_VOXELS = 0.1  # grids that differ by less than a tenth of a voxel are one grid
_FORM_VOXELS = 1.0  # a qform's quaternion, in single precision, moves the corners of an oblique volume by half a voxel


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


class Grid(NamedTuple):
    """The voxels of a file and, except for pictures, where they lie: an affine to RAS in mm."""

    array: NDArray[Any]
    affine: NDArray[np.float64] | None


def read_image(path: Path) -> Grid:
    """Read an image whole, as it lies in its file.

    Raises:
        UserError: it cannot be read, or is no sound image; the first problem, naming file and remedy.
    """
    try:
        grid = _read(path, path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend or remove it") from None
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
            grids[kind] = _read(path, content)
        except OSError as error:
            problems.append(f"{path}: cannot be read ({error.strerror}); mend or remove it")
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


def _read(path: Path, content: bytes) -> Grid:
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return _read_nifti(path, content)
    if name.endswith(PAIR_SUFFIXES):
        return _read_nifti(path, _as_one_file(path))
    if name.endswith(ITK_SUFFIXES):
        return _read_itk(path)
    return Grid(np.asarray(pictures.open_picture(path)), None)


def _read_nifti(path: Path, content: bytes) -> Grid:
    try:
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)  # to the end, so that the checksum is compared
        kind = nib.Nifti2Image if b"n+2" in content[4:8] else nib.Nifti1Image
        file = kind.from_bytes(content)
        array = np.asanyarray(file.dataobj)
        sform, qform = (form(coded=True)[0] for form in (file.get_sform, file.get_qform))
    except Exception as error:  # what gzip, zlib and nibabel raise has no common ancestor
        raise UserError(f"{path}: not a readable NIfTI file ({_first_line(error)}); export it again") from None
    if sform is None and qform is None:
        raise UserError(f"{path}: no orientation (sform and qform codes are 0); export it with its geometry")
    affine = np.asarray(file.affine, np.float64)
    zooms = np.asarray(file.header.get_zooms()[:3], np.float64)
    if np.isfinite(affine).all() and not np.allclose(np.linalg.norm(affine[:3, :3], axis=0)[: len(zooms)], zooms, 1e-3):
        raise UserError(
            f"{path}: voxel size {_triple(zooms)} mm contradicts its own orientation matrix; export it again"
        )
    if sform is not None and qform is not None:
        shift = _shift_voxels(sform, qform, array.shape)
        if not shift < _FORM_VOXELS:
            raise UserError(f"{path}: sform and qform differ by up to {shift:.1f} voxels; keep the right one only")
    return Grid(array, affine)


def _as_one_file(path: Path) -> bytes:
    """A NIfTI pair, header and voxels in two files, as the content of one."""
    try:
        pair = nib.load(path)
        if not isinstance(pair, nib.Nifti1Pair | nib.Nifti2Pair):
            raise ValueError("an Analyze file, which does not say where its voxels lie")
        kind = nib.Nifti2Image if isinstance(pair, nib.Nifti2Pair) else nib.Nifti1Image
        array = np.asanyarray(pair.dataobj)
        image = kind(array, None, pair.header)
        image.set_data_dtype(array.dtype)
        content: bytes = image.to_bytes()
        return content
    except Exception as error:  # what nibabel raises has no common ancestor
        raise UserError(f"{path}: not a readable NIfTI pair ({_first_line(error)}); export it as .nii.gz") from None


def _read_itk(path: Path) -> Grid:
    reader = ITKReader()
    try:
        array, meta = reader.get_data(reader.read(str(path)))
    except Exception as error:  # ITK raises bare RuntimeError, and others from its template lookup
        raise UserError(f"{path}: not a readable image ({_first_line(error)}); export it again") from None
    return Grid(np.asarray(array), np.asarray(meta["affine"], np.float64))


def _image_problems(path: Path, grid: Grid) -> list[str]:
    array, problems = grid.array, _shape_problems(path, grid)
    if array.dtype.kind not in "buif":
        return [*problems, f"{path}: voxels of type {array.dtype}; export one number for each voxel"]
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        problems.append(f"{path}: holds NaN or infinite voxels; replace them and export it again")
    elif array.size and array.min() == array.max():
        problems.append(f"{path}: every voxel is {array.flat[0]:g}; export it again or remove the case")
    return problems


def _label_problems(path: Path, grid: Grid) -> list[str]:
    array, problems = grid.array, _shape_problems(path, grid)
    if array.dtype.kind not in "buif":
        return [*problems, f"{path}: labels of type {array.dtype}; export one number for each voxel"]
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


def _shape_problems(path: Path, grid: Grid) -> list[str]:
    if grid.affine is None:
        return []
    shape, affine = grid.array.shape, grid.affine
    if len(shape) != 3:
        return [f"{path}: expected one volume of three axes, got shape {_sizes(shape)}; split it into volumes"]
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        return [f"{path}: its orientation matrix is singular or not finite; export it with its geometry"]
    return []


def _grid_problems(image: Path, label: Path, first: Grid, second: Grid) -> list[str]:
    """What keeps a label from lying on its image, voxel by voxel."""
    if (first.affine is None) != (second.affine is None):
        return [f"{label}: a picture and a volume do not match; use one kind of file for image and label"]
    axes = 2 if first.affine is None else 3
    sizes = first.array.shape[:axes], second.array.shape[:axes]
    if sizes[0] != sizes[1]:
        came, wanted = _sizes(sizes[1]), _sizes(sizes[0])
        return [f"{label}: its size {came} is not the image's {wanted}; draw or resample it on {image}"]
    if first.affine is None or second.affine is None or _shape_problems(image, first) or _shape_problems(label, second):
        return []
    shift = _shift_voxels(first.affine, second.affine, sizes[0])
    if not shift < _SHIFT_VOXELS:
        return [f"{label}: lies up to {shift:.1f} voxels away from its image; resample it on the grid of {image}"]
    return []


def _shift_voxels(first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """The farthest that a corner moves from one grid to the other, in voxels of the smallest edge of the first."""
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
    corners[:, : len(shape[:3])] *= np.asarray(shape[:3]) - 1
    moved_mm = np.linalg.norm(((first - second) @ corners.T)[:3], axis=0).max()
    return float(moved_mm / np.linalg.norm(first[:3, :3], axis=0).min())


def _sizes(shape: tuple[int, ...]) -> str:
    return " x ".join(str(size) for size in shape)


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
