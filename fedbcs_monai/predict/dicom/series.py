"""DICOM series: group the files of a folder by series, and choose one."""

import logging
import warnings
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import MediaStorageDirectoryStorage

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.dicom.geometry import Header, fault_of, plane_of
from fedbcs_monai.predict.intended_input import IntendedInput

WHO = ("PatientID", "PatientName", "PatientBirthDate")
_DERIVED = ("SEG", "RTDOSE", "RTSTRUCT", "PR", "REG")
_DERIVED_CLASSES = ("1.2.840.10008.5.1.4.1.1.66", "1.2.840.10008.5.1.4.1.1.481.2", "1.2.840.10008.5.1.4.1.1.481.3")
_TAGS = (
    *("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID", *WHO),
    *("Modality", "SeriesNumber", "InstanceNumber", "StudyDate", "StudyTime", "ImageType", "RepetitionTime"),
    *("Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation", "PixelSpacing"),
    *("ImagePositionPatient", "ImageOrientationPatient", "DiffusionBValue", "EchoTime", "InversionTime", "TriggerTime"),
    *("TemporalPositionIdentifier", "AcquisitionNumber", "AcquisitionTime", "ContentTime"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
)


class Series(NamedTuple):
    """A DICOM series as a listing shows it. It never identifies the patient.

    Fields:
        number: what `--series` takes: the series number, or where several series share one, a running number.
        headers: of its images, by instance number.
        patient, study: running numbers in the listing.
        fault: why it is not one volume; empty if it is.
    """

    number: str
    headers: tuple[Header, ...]
    patient: int
    study: int
    fault: str

    @property
    def uid(self) -> str:
        """SeriesInstanceUID."""
        return str(self._first.get("SeriesInstanceUID", ""))

    @property
    def files(self) -> tuple[Path, ...]:
        """Of its images."""
        return tuple(header.path for header in self.headers)

    @property
    def intended_input(self) -> IntendedInput:
        """Modality and plane."""
        return IntendedInput(str(self._first.get("Modality", "")), plane_of(self._first))

    @property
    def _first(self) -> Dataset:
        return self.headers[0].data

    def line(self, several: bool) -> str:
        """One line of a listing."""
        data = self._first
        images = sum(int(header.data.get("NumberOfFrames") or 1) for header in self.headers)
        timing = [f"{name} {data.get(keyword):g}" for name, keyword in _TIMES.items() if _is_number(data.get(keyword))]
        parts = [
            *([f"patient {self.patient}", f"study {self.study}"] if several else []),
            " ".join(part for part in self.intended_input if part) or "unknown kind",
            f"{images} image{'s' * (images > 1)} of {data.get('Columns', '?')} x {data.get('Rows', '?')}",
            *timing,
            " ".join(str(part) for part in list(data.get("ImageType") or ())[:3]),
            self.fault and f"no volume: {self.fault}",
        ]
        return f"  {self.number}: {', '.join(part for part in parts if part)}"


_TIMES = {"TR": "RepetitionTime", "TE": "EchoTime"}


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom and highdicom from quoting what is in a file, in warnings and logs; what we use of it is checked."""
    loggers = [logging.getLogger(name) for name in ("pydicom", "highdicom")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def find_series(files: Iterable[Path]) -> list[Series]:
    """The image series among DICOM files, by patient, study and number; what holds no image is left out.

    Raises:
        UserError: a file that is not readable DICOM.
    """
    headers = [header for header in map(_header, sorted(files)) if _is_image(header.data)]
    if not headers:
        return []
    groups: dict[tuple[str, ...], list[Header]] = {}
    for header in headers:
        groups.setdefault(_identity(header.data), []).append(header)
    ordered = sorted(groups.items(), key=lambda item: _order(item[1][0].data))
    patients = _running(key[:3] for key, _ in ordered)
    studies = _running(key[3:4] for key, _ in ordered)
    numbers = _numbers([group[0].data for _, group in ordered])
    found = []
    for n, (key, group) in enumerate(ordered):
        sorted_group = tuple(sorted(group, key=lambda header: (_whole(header.data.get("InstanceNumber")), header.path)))
        found.append(Series(numbers[n], sorted_group, patients[key[:3]], studies[key[3:4]], fault_of(sorted_group)))
    return found


def choose(found: Sequence[Series], wanted: Sequence[str], stated: IntendedInput, where: Path) -> list[Series]:
    """The series that are meant.

    Args:
        found: of `find_series`.
        wanted: numbers or SeriesInstanceUIDs that the user named; ``all`` is every series that makes one volume.
        stated: the images that the model was trained for.
        where: for messages.

    Returns:
        Those wanted; or, where nothing was named, the only one that makes one volume and fits what the model states.

    Raises:
        UserError: a name that is none of them; or none, or more than one, fits: then it lists them.
    """
    if not found:
        raise UserError(f"{where}: its DICOM files contain no image")
    volumes = [series for series in found if not series.fault]
    if "all" in wanted:
        return volumes
    if wanted:
        return [_named(found, name, where) for name in dict.fromkeys(wanted)]
    fitting = [series for series in volumes if stated.fits(series.intended_input)]
    if len(fitting) == 1:
        return fitting
    if len(found) == 1 and found[0].fault:
        raise UserError(f"{where}: {found[0].fault}")
    if len(found) == 1:
        raise UserError(
            f"{where}: is {' '.join(found[0].intended_input)}, but this model is for {stated}; "
            f"--series {found[0].number} segments it anyway"
        )
    which = "none of them fits this model" if not fitting else f"{len(fitting)} of them may be meant"
    raise UserError(_listing(found, where, f"{which}; name one with --series"))


def _named(found: Sequence[Series], name: str, where: Path) -> Series:
    named = [series for series in found if name in (series.number, series.uid)]
    if len(named) != 1:
        raise UserError(_listing(found, where, f"--series {name} is {'none' if not named else 'not one'} of them"))
    if named[0].fault:
        raise UserError(f"{where}: series {name}: {named[0].fault}")
    return named[0]


def _listing(found: Sequence[Series], where: Path, problem: str) -> str:
    several = max(series.study for series in found) > 1 or max(series.patient for series in found) > 1
    patients = len({series.patient for series in found})
    who = f" of {patients} patients" if patients > 1 else ""
    lines = [series.line(several) for series in found]
    return "\n".join([f"{where}: holds {len(found)} DICOM series{who}; {problem}", *lines])


def _header(path: Path) -> Header:
    try:
        with quiet():
            data = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
            if "SOPClassUID" not in data and "Rows" not in data and not _is_index(data):
                raise InvalidDicomError
            list(data)  # pydicom decodes late; what cannot be decoded shows here
    except Exception as error:  # what pydicom raises has no common ancestor, and its text may quote the patient
        raise UserError(f"{path}: not a readable DICOM file ({type(error).__name__}); export it again") from None
    return Header(path, data)


def _is_index(data: Dataset) -> bool:
    """Whether it is a DICOMDIR, which says so in its file's header only."""
    return bool(data.file_meta.get("MediaStorageSOPClassUID") == MediaStorageDirectoryStorage)


def _is_image(data: Dataset) -> bool:
    """Whether it is a picture of the patient: no report, and no mask or dose that was made from one."""
    made = data.get("Modality") in _DERIVED or str(data.get("SOPClassUID", "")).startswith(_DERIVED_CLASSES)
    return "Rows" in data and "Columns" in data and not made


def _identity(data: Dataset) -> tuple[str, ...]:
    """Who, study and series: a series is one patient's, whatever its number says."""
    return tuple(str(data.get(keyword, "")) for keyword in (*WHO, "StudyInstanceUID", "SeriesInstanceUID"))


def _order(data: Dataset) -> tuple[object, ...]:
    """By patient, time of the study, and number; the number of the patient is used and not shown."""
    when = (str(data.get(keyword, "")) for keyword in (*WHO, "StudyDate", "StudyTime", "StudyInstanceUID"))
    return (*when, _whole(data.get("SeriesNumber")), str(data.get("SeriesInstanceUID", "")))


def _running(keys: Iterable[Hashable]) -> dict[Hashable, int]:
    return {key: n for n, key in enumerate(dict.fromkeys(keys), start=1)}


def _numbers(firsts: Sequence[Dataset]) -> list[str]:
    """Their series numbers if every one has its own; otherwise running numbers."""
    own = [str(data.get("SeriesNumber") or "") for data in firsts]
    return own if all(own) and len(set(own)) == len(own) else [str(n) for n in range(1, len(own) + 1)]


def _whole(value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        return 0


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)
