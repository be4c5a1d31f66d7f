"""Folders: list the files of a folder, and recognize DICOM by its first bytes."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

from fedbcs_monai.data.check import SUFFIXES
from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.output_files import ends_with

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")

_FIRST_GROUPS = (0x0002, 0x0008)
_LAST_ELEMENT = 0x0018  # SOPInstanceUID: a header begins with this or something before it
_LONGEST = 1024  # bytes of any element up to there


def files_below(folder: Path) -> list[Path]:
    """All files of a tree, sorted; also below links to folders. Hidden ones and DICOMDIR, an index, are left out."""
    return sorted(path for path in _walk(folder, set()) if path.name.upper() != "DICOMDIR")


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its preamble, by how its first element begins, or by its name.

    Raises:
        UserError: it cannot be read, and may be a slice of a series.
    """
    try:
        with path.open("rb") as file:
            head = file.read(132)
    except OSError as error:
        if ends_with(path, SUFFIXES):
            return False  # it fails alone, when it is read
        raise UserError(f"{path}: cannot be read ({error.strerror}); repair or remove it") from None
    return head[128:] == b"DICM" or ends_with(path, DICOM_SUFFIXES) or begins_with_element(head)


def begins_with_element(head: bytes) -> bool:
    """Whether bytes begin as a DICOM header without a preamble does (PS3.5, 7.1).

    That is with an element of group 2 or 8, its number in either byte order, and a value representation or a length.
    """
    if len(head) < 8:
        return False
    for order in "<>":
        group, element, length = struct.unpack(f"{order}HHI", head[:8])
        if group in _FIRST_GROUPS and element <= _LAST_ELEMENT:
            return (head[4:6].isalpha() and head[4:6].isupper()) or length <= _LONGEST
    return False


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files of a tree; a folder that links lead to twice is read once."""
    if folder.resolve() in seen:
        return
    seen.add(folder.resolve())
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(folder / entry.name, seen)
        elif entry.is_file():
            yield folder / entry.name
