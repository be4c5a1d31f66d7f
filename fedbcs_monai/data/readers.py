"""Readers: read an image file with its geometry, the same way for training and prediction.

What MONAI would load silently and wrongly is refused here, each in one line with a remedy.
"""

import gzip
import math
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from monai.data import ImageReader, ITKReader
from monai.utils import SpaceKeys
from numpy.typing import NDArray

from fedbcs_monai.data import pictures
from fedbcs_monai.errors import UserError

NIFTI_SUFFIXES = (".nii.gz", ".nii")
PAIR_SUFFIXES = (".hdr", ".img")
ITK_SUFFIXES = (".nrrd", ".mha")
NUMBERS = "buif"
"""Kinds of voxels that are one number each."""

_FORM_VOXELS = 1.0  # a qform's quaternion, in single precision, moves the corners of an oblique volume by half a voxel
_LARGEST = float(np.finfo(np.float32).max)
_MILLIMETRES = (0, 2)  # in xyzt_units: nothing said, and mm
_GZIP = b"\x1f\x8b"


class Grid(NamedTuple):
    """The voxels of a file and where they lie.

    Fields:
        array: (X, Y, Z), or (H, W) or (H, W, 3) of a picture.
        affine: from voxels to RAS in mm; None for pictures.
        header: of a NIfTI file.
    """

    array: NDArray[Any]
    affine: NDArray[np.float64] | None
    header: Any = None


class VolumeReader(ImageReader):  # type: ignore[misc]  # MONAI is untyped
    """Read volumes for MONAI's `LoadImage` as prediction reads them: NIfTI, also in pairs or compressed, NRRD and MHA.

    Metadata are the place of the voxels and nothing else of the file's header.
    """

    def verify_suffix(self, filename: Any) -> bool:
        """Whether every file name ends as a volume's does."""
        suffixes = (*NIFTI_SUFFIXES, *PAIR_SUFFIXES, *ITK_SUFFIXES)
        return all(str(name).lower().endswith(suffixes) for name in _names(filename))

    def read(self, data: Any, **_: Any) -> tuple[Path, ...]:
        """The paths only: LoadImage buries in a page of traces whatever is raised here, so `get_data` opens them."""
        return tuple(Path(name) for name in _names(data))

    def get_data(self, img: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """The voxels and their metadata.

        Raises:
            UserError: several files for one image, or one that is not a sound volume.
        """
        if len(img) != 1:
            raise UserError(f"{img[0]} and {len(img) - 1} more: one image is one file; give each a case of its own")
        grid = read_grid(img[0])
        for problem in volume_problems(img[0], grid):
            raise UserError(problem)
        return grid.array, {
            "affine": grid.affine,
            "original_affine": grid.affine,
            "spatial_shape": np.asarray(grid.array.shape),
            "original_channel_dim": float("nan"),  # MONAI's word for no channel
            "space": SpaceKeys.RAS,
        }


def read_grid(path: Path) -> Grid:
    """Read a file whole.

    Raises:
        UserError: it cannot be read, or contradicts itself.
    """
    try:
        return grid_of(path, path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); repair or remove it") from None


def grid_of(path: Path, content: bytes) -> Grid:
    """What the content of a file says; of a picture, a pair and ITK's kinds the file is read again.

    Raises:
        UserError: it cannot be read, or contradicts itself.
        OSError: as of any file.
    """
    name = path.name.lower()
    if name.endswith(NIFTI_SUFFIXES):
        return _read_nifti(path, content)
    if name.endswith(PAIR_SUFFIXES):
        return _read_nifti(path, _as_one_file(path))
    if name.endswith(ITK_SUFFIXES):
        return _read_itk(path)
    return Grid(np.asarray(pictures.open_picture(path)), None)


def volume_problems(path: Path, grid: Grid) -> list[str]:
    """What keeps voxels from being one finite number each, and those of a volume from lying in a grid of three axes."""
    problems, array = _shape_problems(path, grid), grid.array
    if array.dtype.kind not in NUMBERS:
        return [*problems, f"{path}: voxels of type {array.dtype}; export one number for each voxel"]
    if array.dtype.kind == "f" and array.size:
        low, high = float(array.min()), float(array.max())  # NaN if any is
        if not np.isfinite([low, high]).all():
            problems.append(f"{path}: holds NaN or infinite voxels; replace them and export it again")
        elif max(high, -low, high - low) > _LARGEST:
            problems.append(f"{path}: holds voxels beyond single precision (3e38); rescale them and export it again")
    return problems


def _shape_problems(path: Path, grid: Grid) -> list[str]:
    if grid.affine is None:
        return []
    shape, affine = grid.array.shape, grid.affine
    if len(shape) != 3:
        return [f"{path}: expected one volume of three axes, got shape {sizes_text(shape)}; split it into volumes"]
    if affine.shape != (4, 4) or not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        return [f"{path}: its orientation matrix is singular or not finite; export it with its geometry"]
    return []


def shift_voxels(first: NDArray[np.float64], second: NDArray[np.float64], shape: tuple[int, ...]) -> float:
    """The farthest that a corner moves from one grid to the other, in voxels of the smallest edge of the first."""
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], np.float64)
    corners[:, : len(shape[:3])] *= np.asarray(shape[:3]) - 1
    moved_mm = np.linalg.norm(((first - second) @ corners.T)[:3], axis=0).max()
    return float(moved_mm / np.linalg.norm(first[:3, :3], axis=0).min())


def _read_nifti(path: Path, content: bytes) -> Grid:
    try:
        if content[:2] == _GZIP:
            content = gzip.decompress(content)  # to the end, so that the checksum is compared
        kind = nib.Nifti2Image if b"n+2" in content[4:8] else nib.Nifti1Image
        raw = kind.header_class.from_fileobj(BytesIO(content), check=False)
        _check_header(path, raw, len(content), raw.single_vox_offset)
        file = kind.from_bytes(content)
        array = np.asanyarray(file.dataobj)
        sform, qform = (form(coded=True)[0] for form in (file.get_sform, file.get_qform))
    except UserError:
        raise
    except Exception as error:  # what gzip, zlib and nibabel raise has no common ancestor
        raise UserError(f"{path}: not a readable NIfTI file ({_first_line(error)}); export it again") from None
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if sform is None and qform is None:
        raise UserError(f"{path}: no orientation (sform and qform codes are 0); export it with its geometry")
    affine = np.asarray(file.affine, np.float64)
    zooms = np.asarray(file.header.get_zooms()[:3], np.float64)
    if np.isfinite(affine).all() and not np.allclose(np.linalg.norm(affine[:3, :3], axis=0)[: len(zooms)], zooms, 1e-3):
        raise UserError(
            f"{path}: voxel size {_triple(zooms)} mm contradicts its own orientation matrix; export it again"
        )
    if sform is not None and qform is not None:
        shift = shift_voxels(sform, qform, array.shape)
        if not shift < _FORM_VOXELS:
            raise UserError(f"{path}: sform and qform differ by up to {shift:.1f} voxels; keep the right one only")
    return Grid(array, affine, file.header)


def _check_header(path: Path, raw: Any, size: int, least: int) -> None:
    """Refuse what nibabel would correct or ignore silently; it reports a truncated file itself.

    Args:
        path: for messages.
        raw: the header as it was written.
        size: of the file with the voxels, in bytes.
        least: where voxels can begin in it.

    Raises:
        UserError: a voxel size of 0, voxels inside the header or more of them than it says, or lengths not in mm.
    """
    shape, begin, unit = raw.get_data_shape(), int(raw["vox_offset"]), int(raw["xyzt_units"]) % 8
    zooms = np.asarray(raw["pixdim"][1 : 1 + min(len(shape), 3)], float)
    more = size - begin - math.prod(shape) * raw.get_data_dtype().itemsize
    if (zooms == 0).any() or not np.isfinite(zooms).all():
        raise UserError(f"{path}: voxel size {_triple(zooms)} mm; export it with its geometry")
    if begin < least:
        raise UserError(f"{path}: its voxels would begin inside its header (vox_offset {begin}); export it again")
    if more > 0:
        raise UserError(f"{path}: holds {more} bytes more than its {sizes_text(shape)} voxels are; export it again")
    if unit not in _MILLIMETRES:
        named = {1: "metres", 3: "micrometres"}.get(unit, "an unknown unit")
        raise UserError(f"{path}: states lengths in {named} (xyzt_units); convert them, or state mm if they are in mm")


def _as_one_file(path: Path) -> bytes:
    """A NIfTI pair, header and voxels in two files, as the content of one."""
    try:
        pair = nib.load(path)
        if not isinstance(pair, nib.Nifti1Pair | nib.Nifti2Pair):
            raise ValueError("an Analyze file, which does not say where its voxels lie")
        header, voxels = (Path(pair.file_map[part].filename) for part in ("header", "image"))
        with header.open("rb") as file:
            _check_header(path, type(pair).header_class.from_fileobj(file, check=False), voxels.stat().st_size, 0)
        kind = nib.Nifti2Image if isinstance(pair, nib.Nifti2Pair) else nib.Nifti1Image
        array = np.asanyarray(pair.dataobj)
        image = kind(array, None, pair.header)
        image.set_data_dtype(array.dtype)
        content: bytes = image.to_bytes()
        return content
    except UserError:
        raise
    except Exception as error:  # what nibabel raises has no common ancestor
        raise UserError(f"{path}: not a readable NIfTI pair ({_first_line(error)}); export it as .nii.gz") from None


def _read_itk(path: Path) -> Grid:
    reader = ITKReader()
    try:
        array, meta = reader.get_data(reader.read(str(path)))
    except Exception as error:  # ITK raises bare RuntimeError, and others from its template lookup
        raise UserError(f"{path}: not a readable image ({_first_line(error)}); export it again") from None
    return Grid(np.asarray(array), np.asarray(meta["affine"], np.float64))


def sizes_text(shape: tuple[int, ...]) -> str:
    """As in 384 x 384 x 19."""
    return " x ".join(str(size) for size in shape)


def _triple(values: NDArray[np.float64]) -> str:
    return " x ".join(f"{value:g}" for value in values)


def _names(data: Any) -> tuple[Any, ...]:
    return tuple(data) if isinstance(data, list | tuple) else (data,)


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
