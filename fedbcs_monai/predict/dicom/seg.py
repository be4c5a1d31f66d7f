"""DICOM SEG: a mask as segments that reference their source images."""

from collections.abc import Mapping, Sequence

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from fedbcs_monai.predict.dicom.referenced_images import ReferencedImages, in_charset, referenced_images
from fedbcs_monai.predict.dicom.series import quiet
from fedbcs_monai.predict.dicom.volume import Stack
from fedbcs_monai.version import __version__

MANUFACTURER = "fedbcs_monai"
SERIES_NUMBER = 9001


def written(
    mask: NDArray[np.uint8],
    stack: Stack,
    structures: Sequence[str],
    model: Mapping[str, str],
    images: ReferencedImages | None = None,
) -> Dataset:
    """A mask as a DICOM segmentation (PS3.3 A.51), one binary segment for each class, also where it is empty.

    Patient, study and frame of reference are those of the images, as the standard wants it.

    Args:
        mask: class numbers (X, Y, Z) on the grid of the stack.
        stack: of `read_series`.
        structures: names of the classes, background left out.
        model: ``name`` and ``version`` of the algorithm.
        images: of the stack, where `referenced_images` has read them already.
    """
    with quiet():
        images = images or referenced_images(stack)
        volume = stack.geometry.with_array(mask).permute_spatial_axes((2, 1, 0))
        made: Dataset = hd.seg.Segmentation(
            source_images=images.images,
            pixel_array=volume,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(number, name, model) for number, name in enumerate(structures, start=1)],
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=MANUFACTURER,
            software_versions=__version__,
            device_serial_number="0",
            content_description="Automatic segmentation, for research",
            content_label="SEGMENTATION",
            series_description=f"{', '.join(structures)}: automatic segmentation, for research"[:64],
            omit_empty_frames=bool(mask.any()),
            specific_character_set=None,  # highdicom knows fewer than DICOM; `in_charset` states it
        )
        in_charset(made, images.charset)
        return made


def coded(name: str) -> Code:
    """The SNOMED CT code of a structure by its English name, as DICOM lists it; tissue where it has none of that name.

    >>> coded("prostate").value, coded("left ventricle").value, coded("class 1").meaning
    ('41216001', '87878005', 'Tissue')
    """
    keyword = _keyword(name)
    code: Code = getattr(codes.SCT, keyword) if keyword in codes.SCT.dir() else codes.SCT.Tissue
    return code


def _category(name: str) -> Code:
    """Of PS3.16 CID 7150."""
    if coded(name) == codes.SCT.Tissue:
        category: Code = codes.cid7150.Tissue
    elif _keyword(name) in codes.cid7159.dir():
        category = codes.cid7150.MorphologicallyAbnormalStructure
    else:
        category = codes.cid7150.AnatomicalStructure
    return category


def _keyword(name: str) -> str:
    """As pydicom writes the meaning of a code."""
    return "".join(word[:1].upper() + word[1:] for word in name.replace("_", " ").split())


def _segment(number: int, name: str, model: Mapping[str, str]) -> hd.seg.SegmentDescription:
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name[:64],
        segmented_property_category=_category(name),
        segmented_property_type=coded(name),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=model["name"][:64],
            family=codes.cid7162.ArtificialIntelligence,
            version=model["version"][:64],
            source=MANUFACTURER,
        ),
        tracking_uid=hd.UID(),
        tracking_id=name[:64],
    )
