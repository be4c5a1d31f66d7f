"""DICOM volume: read a series as one volume in patient coordinates, assembled by highdicom."""

import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
)

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.dicom.geometry import even_places, is_multiframe
from fedbcs_monai.predict.dicom.series import WHO, Series, quiet
from fedbcs_monai.predict.source import Source

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_VALID_UID = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+")
_NEED_LIBJPEG = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
_REFERRED = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID", "SOPClassUID")


class Stack(NamedTuple):
    """Where the voxels of a series lie, and which files it is.

    Fields:
        files: of its images.
        modality: as DICOM names it.
        geometry: of the array (X, Y, Z), in LPS.
        unfit: why no DICOM object can refer to these images; empty if one can.
    """

    files: tuple[Path, ...]
    modality: str
    geometry: hd.VolumeGeometry
    unfit: str


def read_series(series: Series, path: Path) -> Source:
    """Read a series as one volume: columns, rows, and slices in the direction that makes it right-handed, as in ITK.

    Args:
        series: of `find_series`.
        path: what the user gave, for messages.

    Raises:
        UserError: it is not one regular volume, or its pixels cannot be decoded.
    """
    if series.fault:
        raise UserError(f"{path}: {series.fault}")
    with quiet():
        images = [_image(file) for file in series.files]
        frames = {str(image.get("FrameOfReferenceUID", "")) for image in images}
        unfit = _unfit(images, frames)
        volume = _volume(images, path)
    geometry = volume.get_geometry()
    affine = _LPS_TO_RAS @ np.asarray(geometry.affine, np.float64)
    notes = (*_notes(images, frames), *([unfit] if unfit else []))
    stack = Stack(series.files, series.intended_input.modality, geometry, unfit)
    return Source(path, volume.array, affine, None, stack, notes)


def _image(file: Path) -> Dataset:
    image = Dataset()
    try:
        image = with_syntax(dcmread(file, force=True))
        image.pixel_array  # noqa: B018  # decoded now, so that what fails is known by its file
    except Exception as error:  # what pydicom and its decoders raise has no common ancestor
        what = f"{type(error).__name__}; {_remedy(image)}"
        raise UserError(f"{file}: its pixels cannot be decoded ({what})") from None
    return image


def _remedy(image: Dataset) -> str:
    """What may help where pixels cannot be decoded; one family of encodings needs a decoder that is licensed apart."""
    syntax = getattr(image, "file_meta", Dataset()).get("TransferSyntaxUID", "")
    if syntax in _NEED_LIBJPEG and find_spec("libjpeg") is None:
        return "lossless or 12-bit JPEG needs a decoder under the GPL: pip install 'fedbcs-monai[dicom-jpeg]'"
    return "is the file whole, and are the packages of fedbcs-monai[dicom] installed?"


def with_syntax(image: Dataset) -> Dataset:
    """A file without the header that names its encoding is in the one that its elements were found to be in."""
    if "TransferSyntaxUID" not in image.file_meta:
        implicit, little = image.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        image.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    return image


def _volume(images: Sequence[Dataset], path: Path) -> hd.Volume:
    """The images as (X, Y, Z)."""
    for image in images:  # one for all, where a de-identification gave each image its own; `_notes` reports it
        if "FrameOfReferenceUID" in images[0]:
            image.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    try:
        evened(images)
        if is_multiframe(images[0]):
            volume = hd.Image.from_dataset(images[0]).get_volume(dtype=np.float32, apply_real_world_transform=False)
        else:
            volume = hd.get_volume_from_series(
                images, dtype=np.float32, apply_real_world_transform=False, orientation_tol=1e-3
            )
    except Exception as error:  # highdicom raises ValueError, AttributeError, KeyError and its own
        raise UserError(f"{path}: not one regular volume ({_said(error, images[0])})") from None
    upright = volume.permute_spatial_axes((2, 1, 0))
    return upright.ensure_handedness(hd.AxisHandedness.RIGHT_HANDED, flip_axis=2)


def evened(images: Sequence[Dataset]) -> None:
    """Put images whose positions were rounded at equal distances, where highdicom takes them for one volume."""
    if len(images) > 1:
        places = even_places([image.ImagePositionPatient for image in images], images[0].ImageOrientationPatient)
        for image, place in zip(images, places, strict=True):
            image.ImagePositionPatient = place.tolist()


def _said(error: Exception, image: Dataset) -> str:
    """A library's message, without quoted values, and only if it does not name the patient."""
    text = re.sub(r"(['\"]).*?\1", "...", " ".join(str(error).split()))
    quoted = any(str(image.get(keyword) or "\0") in text for keyword in WHO)
    return type(error).__name__ if quoted or not text else text


def _notes(images: Sequence[Dataset], frames: set[str]) -> list[str]:
    found = []
    if images[0].get("PhotometricInterpretation") == "MONOCHROME1":
        found.append("its grey values are stored as MONOCHROME1, where low is bright; they were inverted")
    if len(frames) > 1:
        found.append(f"its images name {len(frames)} frames of reference; their places are regular, so one was assumed")
    if len(images) == 1 and not is_multiframe(images[0]):
        found.append("it is a single slice; give the whole folder if there are more")
    return found


def _unfit(images: Sequence[Dataset], frames: set[str]) -> str:
    for image in images:
        for keyword in _REFERRED:
            if not _is_uid(str(image.get(keyword, ""))):
                return f"its {keyword} breaks DICOM's rules (missing, long, or a leading zero): nothing can refer to it"
    return "its images name different frames of reference: nothing can refer to them all" if len(frames) > 1 else ""


def _is_uid(text: str) -> bool:
    return len(text) <= 64 and bool(_VALID_UID.fullmatch(text))
