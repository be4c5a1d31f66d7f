"""DICOM geometry: check from the headers whether a series is one regular volume, and its orientation."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

PLANES = ("sagittal", "coronal", "axial")
"""By the axis of the patient that the slices follow: left, posterior, superior."""

_UNEVEN = 0.01  # of the usual distance of slices; what highdicom takes for regular
_ROUNDED_MM = 0.1  # from an image's place at equal distances: positions rounded to 0.1 mm lie within 0.09 mm of it
_ROUNDED = 0.1  # and of the usual distance of slices, so that a slice that is missing is never taken for rounding
_TURNED = 1e-3  # of a direction cosine
_SHEARED = 1e-3  # of the cosine between the stack and its normal
_DISTINGUISHING = {
    "DiffusionBValue": "b-value",
    "EchoTime": "echo time",
    "TemporalPositionIdentifier": "time point",
    "TriggerTime": "trigger time",
    "InversionTime": "inversion time",
    "AcquisitionNumber": "acquisition",
    "AcquisitionTime": "acquisition time",
    "ContentTime": "time",
    "ImageType": "image type",
}
"""What may differ between two images at one place, the most informative first."""


class Header(NamedTuple):
    """A file and its header without pixels."""

    path: Path
    data: Dataset


def fault_of(headers: Sequence[Header]) -> str:
    """Why the images of a series are not one volume; empty if they are, as far as headers tell.

    The geometry of a multi-frame image is left to highdicom, which reads it.
    """
    if any(is_multiframe(header.data) for header in headers):
        return "" if len(headers) == 1 else f"holds {len(headers)} multi-frame images; give one of their files"
    for check in (_readable, _grey, _mosaic, _of_one_kind, _parallel, _regular):
        if found := check(headers):
            return found
    return ""


def is_multiframe(data: Dataset) -> bool:
    """Whether an image holds several slices."""
    frames = int(data.get("NumberOfFrames") or 0)
    return frames > 1 or (frames == 1 and "PerFrameFunctionalGroupsSequence" in data)


def plane_of(data: Dataset) -> str:
    """The anatomical plane nearest to an image's; empty if unknown."""
    holder = data
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if is_multiframe(data) and data.get(groups) and data[groups][0].get("PlaneOrientationSequence"):
            holder = data[groups][0].PlaneOrientationSequence[0]
    try:
        directions = [float(cosine) for cosine in holder.get("ImageOrientationPatient") or ()]
    except (TypeError, ValueError):
        return ""
    return PLANES[int(np.abs(_normal(directions)).argmax())] if len(directions) == 6 else ""


def _readable(headers: Sequence[Header]) -> str:
    wanted = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
    for path, data in headers:
        for keyword, count in wanted.items():
            try:
                values = [float(value) for value in _values(data, keyword)]
            except (TypeError, ValueError):
                return f"{path.name}: {keyword} is not numbers (a decimal comma?); export the series again"
            if len(values) != count or not np.isfinite(values).all():
                return f"{path.name}: has no {keyword}, so that nobody knows where it lies; export the series again"
            if keyword == "PixelSpacing" and min(values) <= 0:
                return f"{path.name}: PixelSpacing is {values[0]:g} x {values[1]:g} mm; export the series again"
        directions = np.asarray(data.ImageOrientationPatient, float)
        if abs(np.linalg.norm(_normal(directions)) - 1) > _TURNED:
            return f"{path.name}: ImageOrientationPatient is not two directions at right angles; export it again"
    return ""


def _values(data: Dataset, keyword: str) -> Sequence[Any]:
    found = data.get(keyword)
    if found is None:
        return ()
    return [found] if isinstance(found, str) or not hasattr(found, "__iter__") else list(found)


def _grey(headers: Sequence[Header]) -> str:
    for path, data in headers:
        if int(data.get("SamplesPerPixel") or 1) != 1 or data.get("PhotometricInterpretation") == "PALETTE COLOR":
            return f"{path.name}: a colour image; this is not a scan to be measured in"
    return ""


def _mosaic(headers: Sequence[Header]) -> str:
    for path, data in headers:
        if "MOSAIC" in [str(part).upper() for part in _values(data, "ImageType")]:
            return (
                f"{path.name}: a Siemens mosaic, many slices side by side in one image; "
                "convert it to NIfTI (dcm2niix), or export it as enhanced multi-frame"
            )
    return ""


def _of_one_kind(headers: Sequence[Header]) -> str:
    sizes = {(data.get("Rows"), data.get("Columns")) for _, data in headers}
    if len(sizes) > 1:
        return f"its images have {len(sizes)} matrix sizes; it is not one volume"
    spacings = np.array([data.PixelSpacing for _, data in headers], float)
    if np.ptp(spacings, axis=0).max() > 1e-5:
        return "its images differ in pixel spacing; it is not one volume"
    kinds = {data.get("PhotometricInterpretation") for _, data in headers}
    return "some of its images are MONOCHROME1 and some are not; it is not one volume" if len(kinds) > 1 else ""


def _parallel(headers: Sequence[Header]) -> str:
    directions = np.array([data.ImageOrientationPatient for _, data in headers], float)
    turned = len(np.unique(np.round(directions / (2 * _TURNED)), axis=0))
    if np.ptp(directions, axis=0).max() > _TURNED:
        return f"its images lie in {max(turned, 2)} directions (a localizer?); it is not one volume"
    return ""


def _regular(headers: Sequence[Header]) -> str:
    """Slices at equal distances along their normal, one image at each."""
    if len(headers) == 1:
        return ""
    places = np.array([data.ImagePositionPatient for _, data in headers], float)
    normal = _normal(headers[0].data.ImageOrientationPatient)
    along = places @ normal
    order = np.argsort(along, kind="stable")
    steps = np.diff(along[order])
    usual = float(np.median(steps))
    repeated = steps < max(usual, np.ptp(along) / len(headers)) * _UNEVEN
    if repeated.any():
        return _repeated([headers[at] for at in order], repeated)
    if _sheared(places[order], normal) and not _only_rounded(places[order], normal):
        return "its slices are shifted against each other (a tilted gantry?); resample it to a straight grid first"
    uneven = int(np.abs(steps - usual).argmax())
    if abs(steps[uneven] - usual) > usual * _UNEVEN and not _only_rounded(places[order], normal):
        between = " and ".join(headers[at].path.name for at in order[uneven : uneven + 2])
        return f"between {between} lie {steps[uneven]:.2f} mm, elsewhere {usual:.2f} mm; is a slice missing?"
    return ""


def even_places(positions: Sequence[Sequence[float]], directions: Sequence[float]) -> NDArray[np.float64]:
    """Where images whose positions were rounded lie: at equal distances along their normal, (N, 3) in mm.

    Args:
        positions: of each image, in any order.
        directions: of their rows and columns.

    Returns:
        The places that fit the positions best, in the order given; the positions where these are regular as they are.
    """
    places, normal = np.array(positions, float), _normal(directions)
    order = np.argsort(places @ normal, kind="stable")
    steps = np.diff(places[order] @ normal)
    if np.abs(steps - steps.mean()).max() <= steps.mean() * _UNEVEN and not _sheared(places[order], normal):
        return places
    even = np.empty_like(places)
    even[order] = _fitted(places[order], normal)
    return even


def _sheared(places: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    """Whether images, in their order along the normal, follow a line that is not the normal."""
    stack = places[-1] - places[0]
    return bool(abs(stack @ normal) / np.linalg.norm(stack) < 1 - _SHEARED)


def _only_rounded(places: NDArray[np.float64], normal: NDArray[np.float64]) -> bool:
    """Whether images, in their order along the normal, lie as near to equal distances as rounded positions do."""
    step = abs(places[-1] @ normal - places[0] @ normal) / (len(places) - 1)
    moved = np.linalg.norm(places - _fitted(places, normal), axis=1)
    return bool(moved.max() <= min(_ROUNDED_MM, step * _ROUNDED))


def _fitted(places: NDArray[np.float64], normal: NDArray[np.float64]) -> NDArray[np.float64]:
    """Equal distances along the normal, nearest to the places in the sense of least squares."""
    normal = normal / np.linalg.norm(normal)
    count = np.arange(len(places)) - (len(places) - 1) / 2
    step = count @ (places @ normal) / (count @ count)
    fitted: NDArray[np.float64] = places.mean(0) + np.outer(count * step, normal)
    return fitted


def _repeated(ordered: Sequence[Header], repeated: NDArray[np.bool_]) -> str:
    """Two or more images at one place, and in what they differ."""
    first = int(repeated.argmax())
    one, other = ordered[first], ordered[first + 1]
    distinguishing = [
        name for keyword, name in _DISTINGUISHING.items() if one.data.get(keyword) != other.data.get(keyword)
    ]
    places: dict[int, int] = defaultdict(int)
    for at in np.cumsum(np.concatenate([[0], ~repeated])):
        places[int(at)] += 1
    most = max(places.values())
    why = f"they differ in {distinguishing[0]}" if distinguishing else "are these copies, or two series in one"
    return f"{most} images lie at one place ({one.path.name} and {other.path.name}: {why}); give those of one volume"


def _normal(directions: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    values = np.asarray(directions, float)
    return np.cross(values[:3], values[3:]) if values.size == 6 else np.zeros(3)
