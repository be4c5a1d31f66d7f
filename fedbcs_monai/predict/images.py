"""Images: read files with their geometry, and write masks on the same grid."""

import gzip
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import itk
import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedbcs_monai.data import pictures
from fedbcs_monai.data.check import read_image
from fedbcs_monai.data.readers import ITK_SUFFIXES, NIFTI_SUFFIXES, PAIR_SUFFIXES
from fedbcs_monai.predict.output_files import ends_with, png
from fedbcs_monai.predict.source import Source

VOLUME_SUFFIXES = (*NIFTI_SUFFIXES, *PAIR_SUFFIXES, *ITK_SUFFIXES)
PICTURE_SUFFIXES = pictures.SUFFIXES

# What a mask shares with its image. Descriptions, names and extensions stay behind: they can carry the patient.
_NIFTI_GEOMETRY = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z"),
)


def read_source(path: Path) -> Source:
    """Read an image, refusing what would be segmented wrongly without notice.

    Raises:
        UserError: it is not sound, as `fedbcs_monai.data.check` has it.
    """
    return Source(path, *read_image(path), notes=_notes(path))


def mask_suffixes(image: Path) -> tuple[str, ...]:
    """How the name of what lies on an image's grid may end, the usual ending first; of a DICOM series as NIfTI."""
    if ends_with(image, ITK_SUFFIXES):
        return tuple(sorted(ITK_SUFFIXES, key=lambda suffix: not ends_with(image, (suffix,))))
    return (".png",) if ends_with(image, PICTURE_SUFFIXES) else (".nii.gz", ".nii")


def content_of(array: NDArray[Any], source: Source, suffix: str) -> bytes:
    """An array on the grid of a source as the content of a file, with the source's geometry and nothing else of it.

    Args:
        array: uint8 class numbers or float32 probabilities; in a picture's file these are 0 or 255, and 0 to 255.
        source: the image.
        suffix: one of `mask_suffixes`, or of NIfTI for any volume.
    """
    if source.affine is None:
        scaled = np.where(array > 0, 255, 0) if array.dtype == np.uint8 else np.round(array * 255)
        return png(Image.fromarray(scaled.astype(np.uint8)))
    if suffix in NIFTI_SUFFIXES:
        content = _nifti(array, source.affine, source.header)
        return gzip.compress(content, mtime=0) if suffix.endswith(".gz") else content
    return _itk(array, source.affine, suffix)


def _notes(path: Path) -> tuple[str, ...]:
    """NRRD alone may leave open which way the patient lies; ITK then takes the axes for left, posterior, superior."""
    if not ends_with(path, (".nrrd",)):
        return ()
    with path.open("rb") as file:
        fields = file.read(4096).split(b"\n\n")[0].splitlines()
    named = any(field.startswith((b"space:", b"space dimension:")) for field in fields)
    return () if named else ("the file does not say which way the patient lies, so left and right may be wrong",)


def _nifti(array: NDArray[Any], affine: NDArray[np.float64], header: Any) -> bytes:
    kind = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    own = kind.header_class()
    own.set_data_dtype(array.dtype)
    own.set_data_shape(array.shape)
    if header is None:
        own.set_xyzt_units("mm")
        own.set_qform(affine, "unknown")  # its quaternion, in single precision, would be off by tenths of a voxel
        own.set_sform(affine, "scanner")
    else:
        for name in _NIFTI_GEOMETRY:
            own[name] = header[name]
    content: bytes = kind(array, None, own).to_bytes()
    return content


def _itk(array: NDArray[Any], affine: NDArray[np.float64], suffix: str) -> bytes:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = itk.image_from_array(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection(itk.matrix_from_array(np.ascontiguousarray(lps[:3, :3] / spacing)))
    with TemporaryDirectory() as folder:  # ITK writes only to paths
        path = Path(folder) / f"mask{suffix}"
        itk.imwrite(image, str(path), compression=True)
        return path.read_bytes()
