"""Outputs: files that appear together or not at all, and their names."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryFile

from PIL import Image

from fedbcs_monai.data.check import PAIR_SUFFIXES, SUFFIXES
from fedbcs_monai.errors import UserError

_ENDINGS = (*SUFFIXES, *PAIR_SUFFIXES, ".dcm", ".ima", ".dicom")

Part = Callable[[Path], Path]
"""From where a file will lie to the hidden file to be written until then."""


@contextmanager
def together(folder: Path) -> Iterator[Part]:
    """Write several files into a folder: all of them appear when the block ends well, none when it does not.

    Raises:
        UserError: what the system refuses.
    """
    parts: dict[Path, Path] = {}

    def part(final: Path) -> Path:
        parts[final] = final.with_name(f".{final.name}.part")
        return parts[final]

    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield part
        for path in parts.values():
            _to_disk(path)
        for final, path in parts.items():
            path.replace(final)
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where}: cannot be written ({error.strerror}); choose another output") from None
    finally:
        for path in parts.values():
            path.unlink(missing_ok=True)


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
