"""Referenced images: the attributes that SEG and RTSTRUCT copy from their images, corrected where invalid."""

import codecs
import math
import re
from collections.abc import Iterator, Sequence
from io import BytesIO
from typing import Any, NamedTuple

from pydicom import DataElement, Dataset, config, dcmread
from pydicom.charset import STAND_ALONE_ENCODINGS, convert_encodings, decode_bytes, encode_string, python_encoding
from pydicom.datadict import dictionary_VM, keyword_for_tag
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import DA, DT, TEXT_VR_DELIMS, TM, PersonName, validate_value

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.dicom.geometry import is_multiframe
from fedbcs_monai.predict.dicom.series import quiet
from fedbcs_monai.predict.dicom.volume import Stack, evened, with_syntax

UTF8 = "ISO_IR 192"
_MAY_BE_EMPTY = (
    *("AccessionNumber", "PatientBirthDate", "PatientID", "PatientName", "PatientSex"),
    *("ReferringPhysicianName", "StudyDate", "StudyID", "StudyTime", "PositionReferenceIndicator"),
)
"""What every object has, possibly empty; a de-identification may have removed it."""

_IDENTITY = ("PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID")
"""What archives match objects by: an entry that is only too long is repeated, for one that is cut matches nothing."""

_COPIED_GROUPS = (0x0010, 0x0012, 0x0038)  # patient, clinical trial, visit
_COPIED = {
    *_MAY_BE_EMPTY,
    *("ReferringPhysicianIdentificationSequence", "ConsultingPhysicianName", "IssuerOfAccessionNumberSequence"),
    *("ConsultingPhysicianIdentificationSequence", "StudyDescription", "PhysiciansOfRecord", "RequestingService"),
    *("PhysiciansOfRecordIdentificationSequence", "NameOfPhysiciansReadingStudy", "ReferencedStudySequence"),
    *("PhysiciansReadingStudyIdentificationSequence", "RequestingServiceCodeSequence", "ProcedureCodeSequence"),
    *("ReasonForPerformedProcedureCodeSequence", "ReferencedPatientSequence", "AdmittingDiagnosesDescription"),
    *("AdmittingDiagnosesCodeSequence", "Manufacturer", "ManufacturerModelName", "SoftwareVersions"),
    *("DeviceSerialNumber", "InstitutionName", "InstitutionalDepartmentName", "InstitutionAddress", "StationName"),
    *("AcquisitionDateTime", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
}
"""Of the study and the equipment, which lie in groups with much else."""

_MOMENTS = {"DA": DA, "DT": DT, "TM": TM}
_CHECKED = ("AE", "AS", "CS", "LO", "LT", "SH", "ST", "UC", "UI", "UR", "UT", *_MOMENTS)
_SEXES = {"MALE": "M", "FEMALE": "F", "OTHER": "O"}
_REPLACED = "\ufffd"  # in place of what could not be decoded
_ISO_NAME = re.compile(r"ISO(?:.?2022)?.?IR.?(\d+)", re.IGNORECASE)
_BY_CODEC = {
    codecs.lookup(codec).name: f"ISO 2022 IR {term[7:]}" if term.startswith("ISO_IR") and term != UTF8 else term
    for term, codec in python_encoding.items()
    if term.startswith("ISO_IR") or term in STAND_ALONE_ENCODINGS
}


class ReferencedImages(NamedTuple):
    """What a DICOM object needs of its images.

    Fields:
        images: without their pixels; what is copied of the first breaks no rule that a library would stop at.
        charset: what the SpecificCharacterSet of the images means, in DICOM's spelling; empty where there is none.
        notes: what was corrected, one sentence each. They name attributes and never contain their values.
    """

    images: list[Dataset]
    charset: list[str]
    notes: tuple[str, ...]


def referenced_images(stack: Stack) -> ReferencedImages:
    """The images of a stack, for objects that refer to them.

    Raises:
        UserError: a file that has gone since it was read.
    """
    with quiet():
        return _referenced_images(stack)


def _referenced_images(stack: Stack) -> ReferencedImages:
    try:
        images = [with_syntax(dcmread(file, stop_before_pixels=True, force=True)) for file in stack.files]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be read again ({error.strerror})") from None
    evened(images)
    first = images[0]
    charset = standard_charset(first.get("SpecificCharacterSet"))
    encodings = convert_encodings(charset or [""])
    notes = [*_corrected(first, encodings), *_doubts(first, charset)]
    for keyword in _MAY_BE_EMPTY:
        if keyword not in first:
            setattr(first, keyword, "")
    for image in images:
        _with_spacing(image, stack)
    return ReferencedImages(images, charset or [], tuple(notes))


def in_charset(made: Dataset, charset: Sequence[str]) -> None:
    """State the character set of an object that is complete: the one of its images, or UTF-8 if that lacks a letter."""
    encodings = convert_encodings(list(charset) or [""])
    terms = list(charset) if all(_holds(element, encodings) for element in made.iterall()) else [UTF8]
    if terms:
        made.SpecificCharacterSet = terms if len(terms) > 1 else terms[0]
    elif "SpecificCharacterSet" in made:
        del made.SpecificCharacterSet


def content_of(made: Dataset) -> bytes:
    """An object as the content of a file."""
    content = BytesIO()
    with quiet():
        made.save_as(content, enforce_file_format=True)
    return content.getvalue()


def standard_charset(declared: Any) -> list[str] | None:
    """What a SpecificCharacterSet means, in the terms of PS3.3 C.12.1.1.2; None where nobody knows.

    The default repertoire alone is an empty list, and before others an empty term.

    >>> standard_charset("ISO-IR 100"), standard_charset("utf-8"), standard_charset(["", "ISO 2022 IR 87"])
    (['ISO_IR 100'], ['ISO_IR 192'], ['', 'ISO 2022 IR 87'])
    >>> standard_charset("ISO_IR 6"), standard_charset("ISO 2022 IR 149"), standard_charset("Klingon")
    ([], ['', 'ISO 2022 IR 149'], None)
    """
    written = [declared] if isinstance(declared, str) else list(declared or ())
    terms = [_term(str(one)) for one in written]
    if None in terms:
        return None
    found = [term for n, term in enumerate(terms) if term is not None and (n == 0 or (term and term not in terms[:n]))]
    if found and found[0] in STAND_ALONE_ENCODINGS:
        return found[:1]
    found = [term for term in found if term not in STAND_ALONE_ENCODINGS]
    if len(found) > 1 or not "".join(found):
        return found if "".join(found) else []
    alone = found[0].replace("ISO 2022 IR", "ISO_IR")
    return [alone] if alone in python_encoding else ["", found[0]]


def _term(written: str) -> str | None:
    """A single-byte or multi-byte set as a code extension, whichever way it is written; the default is empty."""
    text = written.strip(" \0")
    iso = _ISO_NAME.fullmatch(text)
    if not text or (iso and int(iso[1]) == 6):
        return ""
    if iso:
        terms = (f"ISO 2022 IR {int(iso[1])}", f"ISO_IR {int(iso[1])}")
        return next((term for term in terms if term in python_encoding), None)
    try:
        codec = codecs.lookup(text).name
    except (LookupError, ValueError):
        return None
    return "" if codec == "ascii" else _BY_CODEC.get(codec)


def _doubts(image: Dataset, charset: list[str] | None) -> Iterator[str]:
    """Warnings about texts in an unknown character set; these are copied byte for byte."""
    beyond = any(not str(element.value).isascii() for element in _copied(image) if element.VR != "SQ")
    if charset is None:
        yield "its images have an unknown SpecificCharacterSet; DICOM masks have the same bytes without it"
    elif not charset and beyond:
        yield "its images have letters that their SpecificCharacterSet lacks; DICOM masks have the same bytes"


def _copied(image: Dataset) -> Iterator[DataElement]:
    return (image[tag] for tag in _copied_tags(image))


def _copied_tags(image: Dataset) -> list[BaseTag]:
    return [tag for tag in list(image.keys()) if tag.group in _COPIED_GROUPS or keyword_for_tag(tag) in _COPIED]


def _corrected(image: Dataset, encodings: Sequence[str]) -> Iterator[str]:
    """Decode what is copied of an image, and take out what breaks the rules."""
    _decode_with(image, encodings)
    out, kept = [], []
    for tag in _copied_tags(image):
        keyword = keyword_for_tag(tag) or str(tag)
        if keyword == "PatientSex" and _is_text(image, tag) and image[tag].value:
            image[tag].value = _sex(image[tag].value)
            out += [] if image[tag].value else [keyword]
            continue
        if _is_sound(image, tag, encodings):
            continue
        if keyword in _IDENTITY and _is_text(image, tag):
            kept.append(keyword)
            continue
        out.append(keyword)
        del image[tag]
    if out:
        yield f"against DICOM's rules in its images, and left out of DICOM masks: {', '.join(out)}"
    if kept:
        yield f"against DICOM's rules in its images, and repeated in DICOM masks as it is: {', '.join(kept)}"


def _decode_with(data: Dataset, encodings: Sequence[str]) -> None:
    implicit, little = data.original_encoding
    data.set_original_encoding(implicit, little, list(encodings))


def _is_text(image: Dataset, tag: BaseTag) -> bool:
    """Whether a value is one text, or a name, whose bytes are known even where they cannot be decoded."""
    try:
        value = image[tag].value
    except Exception:  # what pydicom raises has no common ancestor
        return False
    return isinstance(value, PersonName) or (isinstance(value, str) and _REPLACED not in value)


def _is_sound(data: Dataset, tag: BaseTag, encodings: Sequence[str]) -> bool:
    """Whether a value and everything nested in it can be decoded and is valid for its VR."""
    try:
        element = data[tag]
        if element.VR == "SQ":
            return all(_is_sound_item(item, encodings) for item in element.value or ())
        values = list(element.value) if isinstance(element.value, MultiValue) else [element.value]
        if len(values) > 1 and not tag.is_private and dictionary_VM(tag) == "1":
            return False
        return all(_is_sound_value(element.VR, value) for value in values if value not in (None, ""))
    except Exception:  # what pydicom raises has no common ancestor
        return False


def _is_sound_item(item: Dataset, encodings: Sequence[str]) -> bool:
    if "SpecificCharacterSet" not in item:
        _decode_with(item, encodings)
    return all(_is_sound(item, tag, encodings) for tag in list(item.keys()))


def _is_sound_value(kind: str, value: Any) -> bool:
    """A value as pydicom has decoded it.

    Raises:
        ValueError: it is none of its kind.
    """
    if kind in ("DS", "IS"):
        return math.isfinite(float(str(value)))
    if kind in ("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"):
        validate_value(kind, value, config.RAISE)
    if kind == "PN":
        return _REPLACED not in str(value) and all(len(part) <= 64 for part in str(value).split("="))
    if kind in _CHECKED:
        validate_value(kind, str(value), config.RAISE)
        if kind in _MOMENTS:
            _MOMENTS[kind](str(value))
    return _REPLACED not in str(value)


def _sex(written: str) -> str:
    """As DICOM wants it; empty, which it allows, where it says something else."""
    sex = written.strip().upper()
    return sex if sex in _SEXES.values() else _SEXES.get(sex, "")


def _with_spacing(image: Dataset, stack: Stack) -> None:
    """See that highdicom finds distances to compare with those of the volume, which alone are written."""
    if is_multiframe(image):
        return
    if not _is_positive(image, "SliceThickness"):
        image.SliceThickness = round(float(stack.geometry.spacing[2]), 9)
    if not _is_positive(image, "SpacingBetweenSlices"):
        image.pop("SpacingBetweenSlices", None)


def _is_positive(image: Dataset, keyword: str) -> bool:
    try:
        return float(image[keyword].value) > 0
    except Exception:  # missing, empty, several, or no number: what pydicom raises has no common ancestor
        return False


def _holds(element: DataElement, encodings: Sequence[str]) -> bool:
    """Whether a text comes back as it was from being encoded."""
    if element.VR not in ("LO", "LT", "PN", "SH", "ST", "UC", "UT") or element.value in (None, ""):
        return True
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    for value in values:
        if isinstance(value, PersonName):
            if str(PersonName(value.encode(encodings), encodings)) != str(value):
                return False
        elif decode_bytes(encode_string(str(value), encodings), encodings, TEXT_VR_DELIMS) != str(value):
            return False
    return True
