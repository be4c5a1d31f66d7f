"""Output files: their names, and writing them all or none."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from PIL import Image

from fedbcs_monai import files
from fedbcs_monai.data.check import SUFFIXES
from fedbcs_monai.data.readers import PAIR_SUFFIXES
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import Part

_ENDINGS = (*SUFFIXES, *PAIR_SUFFIXES, ".dcm", ".ima", ".dicom")

FILE_SUFFIXES = (*_ENDINGS, ".json", ".html", ".csv", ".zip", ".pdf")
"""Of what a user means as a file; an output of such a name is never made a folder."""

_LONGEST_NAME = 255  # bytes, on the usual file systems
_LONGEST_ENDING = 20  # of "_probability.nii.gz", and some


@contextmanager
def together(folder: Path) -> Iterator[Part]:
    """Files that appear together or not at all, as `files.together` writes them.

    They replace older files of their names. The last says that all are there, so an older one of its name goes first.
    Until then they lie in a hidden folder of this call's own, which no other process touches.

    Raises:
        UserError: what the system refuses.
    """
    try:
        with files.naming(folder), files.together(folder) as part:
            yield part
    except OSError as error:
        where = error.filename or folder
        raise UserError(f"{where}: cannot be written ({error.strerror}); choose another output") from None


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
    """Whether a file's name ends with one of the suffixes, in upper or lower case."""
    return path.name.lower().endswith(suffixes)
