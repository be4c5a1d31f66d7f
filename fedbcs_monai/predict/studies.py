"""Studies: the images that the inputs of a call name, each with a unique output name."""

import csv
import glob
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.data.check import SUFFIXES
from fedbcs_monai.errors import UserError, discreet_reason
from fedbcs_monai.predict.folders import files_below, is_dicom
from fedbcs_monai.predict.images import PICTURE_SUFFIXES, VOLUME_SUFFIXES, mask_suffixes, read_source
from fedbcs_monai.predict.intended_input import ANY_INPUT, IntendedInput
from fedbcs_monai.predict.output_files import ends_with, stem
from fedbcs_monai.predict.source import Source

_LARGE_FILE = 2**24  # bytes from which a TIFF may be too large to be segmented whole
STATISTICS = "_statistics.json"
_OUTPUTS = ("_mask", "_probability", "_overlay", "_preview", "_seg", "_rtstruct")
_COLUMNS = ("image", "name", "series")


class AcceptedImages(NamedTuple):
    """What a model segments: pictures or volumes, and what it states of them."""

    pictures: bool
    intended_input: IntendedInput = ANY_INPUT

    @property
    def suffixes(self) -> tuple[str, ...]:
        """Of its files."""
        return PICTURE_SUFFIXES if self.pictures else VOLUME_SUFFIXES

    def __str__(self) -> str:
        also = "" if self.pictures else ", or DICOM"
        return f"this model segments {'pictures' if self.pictures else 'volumes'} ({', '.join(self.suffixes)}{also})"


class Study(NamedTuple):
    """One image to segment.

    Fields:
        name: of its outputs; from the file or folder that the user named, never from what is written in it.
        path: of the file, or the folder of a DICOM series.
        series: of a DICOM study, its `fedbcs_monai.predict.dicom.series.Series`.
        notes: what was unusual about its folder, one sentence each.
    """

    name: str
    path: Path
    series: Any = None
    notes: tuple[str, ...] = ()

    def read(self) -> Source:
        """The image in memory.

        Raises:
            UserError: it is not sound.
        """
        if self.large:
            raise UserError(f"{self.path}: too large for memory; `fedbcs predict` segments it strip by strip")
        if self.series is None:
            return read_source(self.path)
        source: Source = dicom_module("volume").read_series(self.series, self.path)
        return source._replace(notes=(*source.notes, *self.notes))

    @property
    def pictures(self) -> bool:
        """Whether it is a picture."""
        return self.series is None and ends_with(self.path, PICTURE_SUFFIXES)

    @property
    def large(self) -> bool:
        """Whether it is a TIFF too large to be segmented whole."""
        if self.series is not None or not ends_with(self.path, (".tif", ".tiff")):
            return False
        try:
            tiff = import_module("fedbcs_monai.predict.large_image.tiff")
        except ModuleNotFoundError as error:
            if self.path.stat().st_size < _LARGE_FILE:
                return False
            raise UserError(f"{self.path}: large TIFF needs {error.name}: pip install 'fedbcs-monai[tiff]'") from None
        try:
            height, width = tiff.size_of(self.path)
        except UserError:
            return False  # whoever reads it says so
        return bool(height * width > tiff.LARGE)

    @property
    def mask_suffixes(self) -> tuple[str, ...]:
        """How the name of its mask may end."""
        if self.large:
            return (".tif", ".tiff")
        return mask_suffixes(Path(self.name) if self.series is not None else self.path)


class Found(NamedTuple):
    """What the inputs name.

    Fields:
        studies: to be segmented.
        skipped: names of files that the model cannot read.
        failed: from an input to the reason.
        earlier: names of files in a folder of images that an earlier call has written.
    """

    studies: list[Study]
    skipped: list[str]
    failed: dict[Path, str]
    earlier: list[str]


class Request(NamedTuple):
    """A path that was named, on its own or in a table; ``name`` is that of its outputs, where it has one."""

    path: Path
    name: str
    series: tuple[str, ...]


def requested(inputs: Sequence[str | Path], series: Sequence[str] = ()) -> list[Request]:
    """What the inputs of `find_studies` name, before any of it is read.

    Raises:
        UserError: an input that is not there, a pattern that nothing matches, or a table that cannot be used.
    """
    return [request for one in inputs for request in _requests(str(one), tuple(series))]


def find_studies(inputs: Sequence[str | Path], accepted: AcceptedImages, series: Sequence[str] = ()) -> Found:
    """What the inputs name.

    An input is an image; a folder with images directly in it; a DICOM file or a folder or tree of them; a pattern with
    ``*``, ``?`` or ``[]``; or a CSV with the column ``image``, and if wanted ``name`` and ``series``, whose paths are
    relative to it. Of a folder hidden files and outputs of earlier calls are left out.

    Args:
        inputs: at least one.
        accepted: what the model segments.
        series: which DICOM series are meant, as `fedbcs_monai.predict.dicom.series.choose` has it.

    Raises:
        UserError: an only input that gives nothing; of several, those that do are in `Found.failed`. Two studies
            whose outputs would have one name.
    """
    requests = requested(inputs, series)
    studies: list[Study] = []
    skipped: list[str] = []
    earlier: list[str] = []
    failed: dict[Path, str] = {}
    for request in requests:
        try:
            found, others, ours = _readable(request, accepted)
        except UserError as error:
            if len(requests) == 1:
                raise
            failed[request.path] = str(error)
        else:
            studies += found
            skipped += others
            earlier += ours
    return Found(_named_apart(studies), skipped, failed, earlier)


def _requests(given: str, series: tuple[str, ...]) -> list[Request]:
    path = Path(given)
    if path.suffix.lower() == ".csv" and path.is_file():
        return _table(path, series)
    if path.exists():
        return [Request(path, "", series)]
    if glob.has_magic(given):
        matching = sorted(glob.glob(given, recursive=True))  # noqa: PTH207  # patterns from the root too
        if matching:
            return [Request(Path(match), "", series) for match in matching]
        raise UserError(f"{given}: nothing matches this pattern")
    raise UserError(f"{given}: there is no such file or folder")


def _table(path: Path, series: tuple[str, ...]) -> list[Request]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a readable table ({error}); save it as CSV in UTF-8") from None
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if header.count(";") > header.count(",") else ",")
    columns = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
    if "image" not in columns:
        raise UserError(f"{path}: no column image; it has {', '.join(columns) or 'no header'}")
    found = []
    for row in rows:
        image, name, own = ((row.get(columns.get(column, "")) or "").strip() for column in _COLUMNS)
        if not image or Path(name).name != name:
            what = f"name {name!r} is none for a file" if image else "lacks its image"
            raise UserError(f"{path}: line {rows.line_num}: {what}; correct it")
        found.append(Request(path.parent / image, name, tuple(own.split()) or series))
    if not found:
        raise UserError(f"{path}: names no image")
    return found


def _readable(request: Request, accepted: AcceptedImages) -> tuple[list[Study], list[str], list[str]]:
    try:
        return _studies(request, accepted)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{request.path}: cannot be read ({error.strerror}); repair or remove it") from None
    except Exception as error:  # one input never costs another
        raise UserError(f"{request.path}: {discreet_reason(error)}") from None


def _studies(request: Request, accepted: AcceptedImages) -> tuple[list[Study], list[str], list[str]]:
    """The studies of one request, the names of other images beside them, and of what earlier calls have written."""
    path = request.path
    if path.is_file():
        if ends_with(path, accepted.suffixes):
            return [Study(request.name or stem(path), _of_pair(path))], [], []
        if not accepted.pictures and is_dicom(path):
            return _series(request, [path], [], accepted), [], []
        raise UserError(f"{path}: {accepted}; give it one, or choose a model for this image")
    if not path.is_dir():
        raise UserError(f"{path}: there is no such file or folder")
    there = [file for file in sorted(path.iterdir()) if file.is_file() and not file.name.startswith(".")]
    earlier = _earlier(path, there)
    files = [file for file in there if file not in earlier]
    images = [file for file in files if ends_with(file, accepted.suffixes) and _of_pair(file) == file]
    below = [] if accepted.pictures else [file for file in files_below(path) if file not in earlier]
    series = [file for file in below if is_dicom(file)]
    ours = [file.name for file in there if file in earlier and ends_with(file, (*accepted.suffixes, ".dcm"))]
    if series and images and not request.series:
        raise UserError(
            f"{path}: holds {len(images)} image files such as {images[0].name} and {len(series)} DICOM files; "
            "name the file or folder that is meant, or a DICOM --series"
        )
    if series and (request.series or not images):
        dicom = set(series)
        beside = [file for file in below if file not in dicom and not ends_with(file, SUFFIXES)]
        return _series(request, series, beside, accepted), [], ours
    skipped = [file.name for file in files if ends_with(file, SUFFIXES) and file not in images]
    if not images:
        others = f"holds only others, such as {skipped[0]}" if skipped else "holds no image"
        more = f" but outputs of an earlier call, such as {ours[0]}" if ours else ""
        raise UserError(f"{path}: {others}{more}; {accepted}, directly in the folder")
    if request.name and len(images) > 1:
        raise UserError(f"{path}: holds {len(images)} images, which cannot all be named {request.name}")
    return [Study(request.name or stem(image), image) for image in images], skipped, ours


def _earlier(folder: Path, files: Sequence[Path]) -> set[Path]:
    """Which files of a folder an earlier call has written: statistics name them, or they are named after an image."""
    named = {folder / Path(name).name for file in files if file.name.endswith(STATISTICS) for name in _written(file)}
    stems = {stem(file) for file in files if ends_with(file, SUFFIXES)} | {folder.resolve().name}
    after = {file for file in files if _source_name(file) in stems}
    return {file for file in files if file in named | after}


def _written(statistics: Path) -> list[str]:
    """The files that statistics name; none where it is no such file."""
    try:
        return [str(name) for name in json.loads(statistics.read_text(encoding="utf-8"))["files"].values()]
    except (AttributeError, KeyError, OSError, TypeError, ValueError):
        return []


def _source_name(file: Path) -> str | None:
    """The name of the image that an output of this name would be of; None if it is none of an output."""
    name = stem(file)
    ending = next((ending for ending in _OUTPUTS if name.endswith(ending)), None)
    return None if ending is None or not ends_with(file, (*SUFFIXES, ".dcm")) else name.removesuffix(ending)


def _series(request: Request, files: Sequence[Path], others: Sequence[Path], accepted: AcceptedImages) -> list[Study]:
    """The series that are meant among DICOM files; the others of their folder are counted."""
    dicom = dicom_module("series")
    found = dicom.find_series(files)
    chosen = dicom.choose(found, request.series, accepted.intended_input, request.path)
    notes = _passed_over(len(others), len(files) - sum(len(one.files) for one in found))
    name = request.name or stem(request.path.resolve())
    return [Study(f"{name}_{one.number}" if len(chosen) > 1 else name, request.path, one, notes) for one in chosen]


def _passed_over(no_dicom: int, no_image: int) -> tuple[str, ...]:
    counts = [(no_dicom, "no DICOM"), (no_image, "DICOM without an image of the patient")]
    said = " and ".join(f"{count} that {'is' if count == 1 else 'are'} {what}" for count, what in counts if count)
    return (f"files of its folder were passed over: {said}; is none of them a slice?",) if said else ()


def _named_apart(studies: list[Study]) -> list[Study]:
    """Names that are one get the folders before them that differ; also where upper and lower case are one.

    Raises:
        UserError: they are one even so.
    """
    names = [study.name for study in studies]
    for depth in range(1, max((len(study.path.resolve().parts) for study in studies), default=0)):
        if not _repeated(names):
            break
        names = [
            "_".join([*study.path.resolve().parent.parts[-depth:], study.name])
            if study.name.casefold() in _repeated([one.name for one in studies])
            else study.name
            for study in studies
        ]
    if repeated := _repeated(names):
        same = [study.path for study, name in zip(studies, names, strict=True) if name.casefold() in repeated]
        raise UserError(
            f"{same[0].parent}: {' and '.join(path.name for path in same[:2])} would get masks of one name; "
            "rename one of them"
        )
    return [study._replace(name=name) for study, name in zip(studies, names, strict=True)]


def _repeated(names: Iterable[str]) -> set[str]:
    return {name for name, count in Counter(name.casefold() for name in names).items() if count > 1}


def _of_pair(path: Path) -> Path:
    """A NIfTI pair is named by its header."""
    header = path.with_suffix(".hdr")
    return header if path.suffix.lower() == ".img" and header.is_file() else path


def dicom_module(name: str) -> Any:
    """A module of `fedbcs_monai.predict.dicom`, whose packages are optional."""
    try:
        return import_module(f"fedbcs_monai.predict.dicom.{name}")
    except ModuleNotFoundError as error:
        raise UserError(f"DICOM needs {error.name}: pip install 'fedbcs-monai[dicom]'") from None
