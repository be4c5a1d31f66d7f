"""Images: found in a folder, read with their geometry, and masks written on the same grid."""

import gzip
from collections import Counter
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import itk
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedbcs_monai.data import pictures
from fedbcs_monai.data.check import ITK_SUFFIXES, NIFTI_SUFFIXES, SUFFIXES, read_image
from fedbcs_monai.errors import UserError
from fedbcs_monai.tensors import write_atomically

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *ITK_SUFFIXES)

# What a mask shares with its image. Descriptions, names and extensions stay behind: they can carry the patient.
_NIFTI_GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


class Source(NamedTuple):
    """An image as it lies in its file.

    Fields:
        path: as it was given.
        array: voxels (X, Y, Z), or pixels (H, W) or (H, W, 3).
        affine: from voxels to RAS in mm; None for pictures.
        header: of a NIfTI file.
    """

    path: Path
    array: NDArray[Any]
    affine: NDArray[np.float64] | None
    header: Any = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the grid that a mask lies on: (X, Y, Z) or (H, W)."""
        return self.array.shape[: 2 if self.affine is None else 3]

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Along each axis; None for pictures, whose resolution is not to be trusted."""
        if self.affine is None:
            return None
        x, y, z = (float(step) for step in np.linalg.norm(self.affine[:3, :3], axis=0))
        return x, y, z


class Found(NamedTuple):
    """Images to segment, by name, and names of those that the model cannot read."""

    images: list[Path]
    skipped: list[str]


def find_images(inputs: Path, wants_pictures: bool) -> Found:
    """The image of that path, or those directly in that folder; hidden files are left out.

    Args:
        inputs: an image or a folder.
        wants_pictures: whether the model reads pictures, or volumes.

    Raises:
        UserError: there is none that the model reads, or two would give masks of one name.
    """
    kind, suffixes = ("pictures", pictures.SUFFIXES) if wants_pictures else ("volumes", VOLUME_SUFFIXES)
    wanted = f"this model segments {kind} ({', '.join(suffixes)})"
    if inputs.is_file():
        if not ends_with(inputs, suffixes):
            raise UserError(f"{inputs}: {wanted}; give it one, or choose a model for this image")
        return Found([inputs], [])
    if not inputs.is_dir():
        raise UserError(f"{inputs}: there is no such file or folder")
    files = [path for path in sorted(inputs.iterdir()) if path.is_file() and not path.name.startswith(".")]
    images = [path for path in files if ends_with(path, suffixes)]
    skipped = [path.name for path in files if ends_with(path, SUFFIXES) and path not in images]
    if not images:
        others = f"holds only others, such as {skipped[0]}" if skipped else "holds no image"
        raise UserError(f"{inputs}: {others}; {wanted}, directly in the folder")
    _distinct(images)
    return Found(images, skipped)


def read_source(path: Path) -> Source:
    """Read an image, refusing what would be segmented wrongly without a word.

    Raises:
        UserError: it is not sound, as `fedbcs_monai.data.check` has it.
    """
    grid = read_image(path)
    return Source(path, *grid, header=_nifti_header(path) if ends_with(path, NIFTI_SUFFIXES) else None)


def mask_suffixes(image: Path) -> tuple[str, ...]:
    """How the name of an image's mask may end, the usual ending first."""
    if ends_with(image, NIFTI_SUFFIXES):
        return (".nii.gz", ".nii")
    if ends_with(image, ITK_SUFFIXES):
        return tuple(sorted(ITK_SUFFIXES, key=lambda suffix: not ends_with(image, (suffix,))))
    return (".png",)


def write_mask(path: Path, mask: NDArray[np.uint8], source: Source) -> None:
    """Write a mask with the geometry of its image, whole or not at all.

    A volume holds class numbers; a picture is black, with everything that is not background white.

    Args:
        path: ends as one of `mask_suffixes`.
        mask: on the grid of the source.
        source: the image.

    Raises:
        UserError: the file cannot be written.
    """
    if ends_with(path, NIFTI_SUFFIXES):
        content = _nifti(mask, source.header)
        content = gzip.compress(content, mtime=0) if ends_with(path, (".gz",)) else content
    elif source.affine is not None:
        content = _itk(mask, source.affine, path.suffix.lower())
    else:
        content = png(Image.fromarray(np.where(mask > 0, 255, 0).astype(np.uint8)))
    write(path, content)


def write(path: Path, content: bytes) -> None:
    """Write a file atomically; what the system refuses is the user's to mend."""
    try:
        write_atomically(path, content)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another output") from None


def make_folder(path: Path) -> None:
    """Make a folder for outputs, before any work is done for them."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be made a folder ({error.strerror}); choose another output") from None


def remove(path: Path) -> None:
    """Remove an older output, if it is there."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"{path}: cannot be replaced ({error.strerror}); choose another output") from None


def png(picture: Image.Image) -> bytes:
    """A picture as the content of a PNG file."""
    content = BytesIO()
    picture.save(content, "PNG")
    return content.getvalue()


def stem(path: Path) -> str:
    """The name of an image without its ending.

    >>> stem(Path("a/case 1.T2.nii.gz"))
    'case 1.T2'
    """
    ending = next((suffix for suffix in SUFFIXES if ends_with(path, (suffix,))), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def ends_with(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name ends with one of the suffixes, in whatever case."""
    return path.name.lower().endswith(suffixes)


def _distinct(images: list[Path]) -> None:
    """Refuse two images whose outputs would have one name, also where upper and lower case are one."""
    count = Counter(stem(path).casefold() for path in images)
    same = [path.name for path in images if count[stem(path).casefold()] > 1]
    if same:
        raise UserError(f"{images[0].parent}: {' and '.join(same[:2])} would get masks of one name; rename one of them")


def _nifti_header(path: Path) -> Any:
    try:
        return nib.load(path).header
    except Exception as error:  # what gzip, zlib and nibabel raise has no common ancestor
        reason = f"{type(error).__name__}; does its name tell whether it is compressed?"
        raise UserError(f"{path}: not a readable NIfTI file ({reason}); export it again") from None


def _nifti(mask: NDArray[np.uint8], header: Any) -> bytes:
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    own = kind.header_class()
    own.set_data_dtype(np.uint8)
    own.set_data_shape(mask.shape)
    for name in _NIFTI_GEOMETRY:
        own[name] = header[name]
    content: bytes = kind(mask, None, own).to_bytes()
    return content


def _itk(mask: NDArray[np.uint8], affine: NDArray[np.float64], suffix: str) -> bytes:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(mask.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    with TemporaryDirectory() as folder:  # ITK writes only to paths
        path = Path(folder) / f"mask{suffix}"
        itk.imwrite(image, str(path), compression=True)
        return path.read_bytes()
