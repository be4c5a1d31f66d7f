"""Outputs: files that appear together or not at all, and their names."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile

from PIL import Image

from fedbcs_monai.data.check import PAIR_SUFFIXES, SUFFIXES
from fedbcs_monai.errors import UserError

_ENDINGS = (*SUFFIXES, *PAIR_SUFFIXES, ".dcm", ".ima", ".dicom")

FILE_SUFFIXES = (*_ENDINGS, ".json", ".html", ".csv", ".zip", ".pdf")
"""Of what a user means as a file; an output of such a name is never made a folder."""

_LONGEST_NAME = 255  # bytes, on the usual file systems
_LONGEST_ENDING = 20  # of "_probability.nii.gz", and some

Part = Callable[[Path], Path]
"""From where a file will lie to the hidden file to be written until then."""


@contextmanager
def together(folder: Path) -> Iterator[Part]:
    """Write several files into a folder: all of them appear when the block ends well, none when it does not.

    They replace older files of their names. The last says that all are there, so an older one of its name goes first.
    Until then they lie in a hidden folder of this call's own, which no other process touches.

    Raises:
        UserError: what the system refuses.
    """
    parts: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=folder, prefix=".fedbcs-", ignore_cleanup_errors=True) as hidden:

            def part(final: Path) -> Path:
                return parts.setdefault(final, Path(hidden) / final.name)

            yield part
            for path in parts.values():
                _to_disk(path)
            for final in list(parts)[-1:]:
                final.unlink(missing_ok=True)
            for final, path in parts.items():
                path.replace(final)
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where}: cannot be written ({error.strerror}); choose another output") from None


@contextmanager
def made_folder(path: Path) -> Iterator[None]:
    """A folder for outputs that can be written into, made before any work is done for them.

    What was made of it goes again if nothing came to lie in it.

    Raises:
        UserError: what the system refuses.
    """
    made = _make_folder(path)
    try:
        yield
    finally:
        for folder in made:
            with suppress(OSError):  # one that is not empty stays
                folder.rmdir()


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
    ending = next((suffix for suffix in _ENDINGS if ends_with(path, (suffix,))), "")
    return path.name[: len(path.name) - len(ending)]


def fitting(name: str) -> str:
    """A name to which the ending of any output can be added; one that is too long for that keeps its beginning.

    >>> fitting("case 1"), len(fitting("x" * 300))
    ('case 1', 235)
    """
    room = _LONGEST_NAME - _LONGEST_ENDING
    known = os.fsencode(name)
    if len(known) <= room:
        return name
    digest = hashlib.sha256(known).hexdigest()[:8]
    while len(os.fsencode(f"{name}~{digest}")) > room:
        name = name[:-1]
    return f"{name}~{digest}"


def ends_with(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Whether a file's name ends with one of the suffixes, in whatever case."""
    return path.name.lower().endswith(suffixes)


def _make_folder(path: Path) -> list[Path]:
    """Make a folder that can be written into; it and those above it that were not there, the deepest first."""
    try:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise UserError(f"{path}: cannot be a folder of outputs ({error.strerror}); choose another output") from None
    return missing


def _to_disk(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
