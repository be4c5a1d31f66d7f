"""DICOM RTSTRUCT: a mask as closed planar contours, for radiotherapy."""

from collections.abc import Mapping, Sequence
from datetime import datetime

import highdicom as hd
import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage

from fedbcs_monai.predict.dicom.geometry import is_multiframe
from fedbcs_monai.predict.dicom.referenced_images import ReferencedImages, in_charset, referenced_images
from fedbcs_monai.predict.dicom.seg import MANUFACTURER, SERIES_NUMBER, coded
from fedbcs_monai.predict.dicom.series import quiet
from fedbcs_monai.predict.dicom.volume import Stack
from fedbcs_monai.version import __version__

_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyInstanceUID", "StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_COLOURS = ([255, 230, 0], [0, 200, 255], [255, 90, 90], [120, 255, 120])


def written(
    mask: NDArray[np.uint8],
    stack: Stack,
    structures: Sequence[str],
    model: Mapping[str, str],
    images: ReferencedImages | None = None,
) -> Dataset:
    """A mask as an RT structure set (PS3.3 A.19), one region of interest for each class.

    Contours run halfway between voxels inside and outside, so that the voxels inside them are those of the mask. A
    plane with holes has contours of the type ``CLOSEDPLANAR_XOR``.

    Args:
        mask: class numbers (X, Y, Z) on the grid of the stack.
        stack: of `read_series`.
        structures: names of the classes, background left out.
        model: ``name`` and ``version`` of the algorithm.
        images: of the stack, where `referenced_images` has read them already.
    """
    with quiet():
        found = images or referenced_images(stack)
        sources = found.images
        made = _head(sources[0])
        made.StructureSetROISequence, made.ROIContourSequence, made.RTROIObservationsSequence = [], [], []
        made.ReferencedFrameOfReferenceSequence = [_frame_of_reference(sources)]
        for number, name in enumerate(structures, start=1):
            region, observation = (
                _region(number, name, sources[0].FrameOfReferenceUID, model),
                _observation(number, name),
            )
            made.StructureSetROISequence.append(region)
            made.RTROIObservationsSequence.append(observation)
            made.ROIContourSequence.append(_contours(number, mask == number, stack, sources))
        in_charset(made, found.charset)
        return made


def _head(image: Dataset) -> Dataset:
    now = datetime.now()
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID = RTStructureSetStorage, hd.UID()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    for keyword in _PATIENT_AND_STUDY:
        if keyword in image:
            made[keyword] = image[keyword]
    made.Modality, made.SeriesInstanceUID, made.SeriesNumber = "RTSTRUCT", hd.UID(), SERIES_NUMBER + 1
    made.SeriesDescription = "Automatic segmentation, for research"
    made.FrameOfReferenceUID, made.PositionReferenceIndicator = image.FrameOfReferenceUID, ""
    made.OperatorsName, made.Manufacturer, made.ManufacturerModelName = "", MANUFACTURER, MANUFACTURER
    made.SoftwareVersions, made.InstanceNumber = __version__, 1
    made.StructureSetLabel, made.ApprovalStatus = "SEGMENTATION", "UNAPPROVED"
    made.StructureSetDate = made.InstanceCreationDate = now.strftime("%Y%m%d")
    made.StructureSetTime = made.InstanceCreationTime = now.strftime("%H%M%S")
    return made


def _frame_of_reference(images: Sequence[Dataset]) -> Dataset:
    series = Dataset()
    series.SeriesInstanceUID = images[0].SeriesInstanceUID
    series.ContourImageSequence = [_reference(image) for image in images]
    study = Dataset()
    study.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"  # Detached Study Management, retired and still asked for
    study.ReferencedSOPInstanceUID = images[0].StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame = Dataset()
    frame.FrameOfReferenceUID = images[0].FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return reference


def _region(number: int, name: str, frame: str, model: Mapping[str, str]) -> Dataset:
    region = Dataset()
    region.ROINumber, region.ROIName, region.ReferencedFrameOfReferenceUID = number, name[:64], frame
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = f"{model['name']} {model['version']}"[:64]
    return region


def _observation(number: int, name: str) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = number
    observation.RTROIInterpretedType, observation.ROIInterpreter = "ORGAN", ""
    code = coded(name)
    observation.RTROIIdentificationCodeSequence = [hd.sr.CodedConcept(code.value, code.scheme_designator, code.meaning)]
    return observation


def _contours(number: int, part: NDArray[np.bool_], stack: Stack, images: Sequence[Dataset]) -> Dataset:
    made = Dataset()
    made.ReferencedROINumber, made.ROIDisplayColor = number, _COLOURS[(number - 1) % len(_COLOURS)]
    affine = np.asarray(stack.geometry.affine, np.float64)
    contours = []
    for z in np.flatnonzero(part.any((0, 1))):
        outlines = _outlines(part[:, :, z])
        kind = "CLOSED_PLANAR" if len(outlines) == 1 or not _has_hole(part[:, :, z]) else "CLOSEDPLANAR_XOR"
        of_plane = _image_at(affine @ [0, 0, z, 1], images)
        for outline in outlines:
            voxels = np.column_stack([outline, np.full(len(outline), z), np.ones(len(outline))])
            contours.append(_contour((voxels @ affine.T)[:, :3], kind, of_plane))
    if contours:
        made.ContourSequence = contours
    return made


def _contour(points: NDArray[np.float64], kind: str, image: Dataset | None) -> Dataset:
    contour = Dataset()
    if image is not None:
        contour.ContourImageSequence = [_reference(image)]
    contour.ContourGeometricType, contour.NumberOfContourPoints = kind, len(points)
    contour.ContourData = [f"{value:.6f}".rstrip("0").rstrip(".") for value in points.ravel()]
    return contour


def _outlines(plane: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Closed outlines (N, 2) in x and y, without repeating the first point; x and y are the first and second axis."""
    padded = np.pad(plane, 1).astype(np.float64)
    lines = contour_generator(z=padded.T).lines(0.5)
    return [np.asarray(line)[:-1] - 1 for line in lines]


def _has_hole(plane: NDArray[np.bool_]) -> bool:
    return bool((ndimage.binary_fill_holes(plane) & ~plane).any())


def _image_at(place: NDArray[np.float64], images: Sequence[Dataset]) -> Dataset | None:
    """The single-slice image whose first pixel lies there."""
    if is_multiframe(images[0]):
        return None
    return min(images, key=lambda image: np.linalg.norm(np.array(image.ImagePositionPatient, float) - place[:3]))
