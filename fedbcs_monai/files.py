"""Files: atomic writes, and SHA-256 digests to detect changes."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

from fedbcs_monai.errors import UserError

HIDDEN = ".fedbcs-", ".part"
"""How the name of a folder begins and ends in which files are written before they take their places."""

DIGEST, BLANK = "fedbcs_digest", f"sha256:{'0' * 64}"
"""The key under which a file holds its own SHA-256, and what stands there while it is computed."""

_HEAD = 256  # bytes of a file, among which its own digest is
_DIGEST = re.compile(rb'"fedbcs_digest": ?"sha256:([0-9a-f]{64})"')

Part = Callable[[Path], Path]
"""From where a file will lie to where it is to be written until then."""


class DamagedError(UserError):
    """A file is not the one that was written."""


# Whole or not at all.


@contextmanager
def together(folder: Path, sync: bool = True) -> Iterator[Part]:
    """Write several files into a folder: all of them appear when the block ends well, none when it does not.

    They replace older files of their names. The last says that all are there, so an older one of its name goes first.
    Until then they lie in a hidden folder. One that a killed process has left is never read; `sweep` removes it.

    Args:
        folder: of the files; made if need be.
        sync: wait until the disk has them, so that they outlive a crash of the machine.

    Raises:
        OSError: what the system refuses.
    """
    parts: dict[Path, Path] = {}
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder, prefix=HIDDEN[0], suffix=HIDDEN[1], ignore_cleanup_errors=True) as hidden:

        def part(final: Path) -> Path:
            parts[final] = Path(hidden) / final.name
            return parts[final]

        yield part
        for final, path in parts.items():
            _refuse_folder(final)
            if sync:
                _to_disk(path)
        for last in list(parts)[1:][-1:]:  # a single file replaces the older one at once
            last.unlink(missing_ok=True)
        for final, path in parts.items():
            path.replace(final)


@contextmanager
def whole(path: Path, sync: bool = True) -> Iterator[Path]:
    """Write a file elsewhere; it takes its place when the block ends well, and leaves what is there when it does not.

    Args:
        path: of the file.
        sync: as for `together`.

    Raises:
        OSError: what the system refuses; it names the file.
    """
    with naming(path), together(path.parent, sync) as part:
        yield part(path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with whole(path) as part:
        part.write_bytes(content)


def replace_folder(path: Path, made: Path) -> None:
    """Put a folder, or a file, in the place of another, which comes back if that fails."""
    if not path.exists():
        made.rename(path)
        return
    with TemporaryDirectory(dir=path.parent, prefix=HIDDEN[0], suffix=HIDDEN[1]) as hidden:
        older = Path(hidden) / path.name
        path.rename(older)
        try:
            made.rename(path)
        except BaseException:
            older.rename(path)
            raise


def sweep(folder: Path) -> None:
    """Remove what killed processes have left of files in a folder and those below it, which nobody else is writing."""
    for left in folder.rglob(f"{HIDDEN[0]}*{HIDDEN[1]}"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """What the system refuses inside names this file; by itself it names none when the disk is full."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and (error.filename is None or HIDDEN[0] in str(error.filename)):
            error.filename, error.filename2 = str(path), None
        raise


# Before any work.


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


def check_folder_can_be(path: Path) -> None:
    """Refuse a folder for outputs that could not be made or written into; nothing is changed.

    Raises:
        UserError: what the system refuses.
    """
    with made_folder(path):
        pass


def check_file_can_be(path: Path) -> None:
    """Refuse a file for output that could not be written; nothing is changed.

    Raises:
        UserError: it is a folder, or what the system refuses.
    """
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name a file in it with -o")
    check_folder_can_be(path.parent)


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


def _refuse_folder(path: Path) -> None:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))


def _to_disk(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


# Known again.


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def insert_digest(path: Path) -> None:
    """Put a file's SHA-256 into it, where it has `BLANK` under `DIGEST`; it is that of the file with `BLANK`."""
    with path.open("rb+") as file:
        place = _DIGEST.search(file.read(_HEAD))
        assert place is not None and place[1] == b"0" * 64
        digest = sha256(path)
        file.seek(place.start(1))
        file.write(digest.encode())


def check_digest(path: Path, content: bytes) -> bool:
    """Refuse a file that differs in any byte from the one that `insert_digest` left.

    Key and value tell each other apart from a file that never had a digest: where one of them is damaged, the other
    still says that there was one.

    Args:
        path: of the file.
        content: all of it.

    Returns:
        Whether it has a digest.

    Raises:
        DamagedError: it has one, of another content.
    """
    place = _DIGEST.search(content, 0, _HEAD)
    if place is None and not any(sign in content[:_HEAD] for sign in (b'"fedbcs_digest"', b'"sha256:')):
        return False
    if place is None or _digest_without(content, place.start(1)) != place[1].decode():
        raise DamagedError(f"{path}: damaged, its content is not that of its SHA-256; restore it from a copy")
    return True


def _digest_without(content: bytes, start: int) -> str:
    """SHA-256 of a content with zeros in the place of its digest."""
    rest = memoryview(content)
    digest = hashlib.sha256(rest[:start])
    digest.update(b"0" * 64)
    digest.update(rest[start + 64 :])
    return digest.hexdigest()


def write_sum(path: Path) -> None:
    """Write a file's SHA-256 beside it, as ``sha256sum`` does: ``model.pt.sha256``."""
    write_whole(sum_file(path), f"{sha256(path)}  {path.name}\n".encode())


def check_sum(path: Path, content: bytes) -> None:
    """Refuse a file that does not match the SHA-256 beside it; without one it is accepted.

    Args:
        path: of the file.
        content: all of it.

    Raises:
        DamagedError: it is another one.
    """
    beside = sum_file(path)
    if not beside.is_file():
        return
    if beside.read_bytes() != f"{hashlib.sha256(content).hexdigest()}  {path.name}\n".encode():
        raise DamagedError(
            f"{path}: is not the file whose SHA-256 is in {beside.name}; restore it from a copy, or remove "
            f"{beside.name} if you have changed it yourself"
        )


def sum_file(path: Path) -> Path:
    """The path of a file's SHA-256."""
    return path.with_name(f"{path.name}.sha256")


def check_case(item: Mapping[str, Any], *kinds: str) -> None:
    """Refuse a case whose files have changed since they were listed; without a listed SHA-256 it is accepted.

    A file is hashed once in a process, and again when its size or time of change is another.

    Args:
        item: of `SiteData.items`.
        kinds: ``image``, ``label``; none: both, as far as the case has them.

    Raises:
        UserError: one has changed, or cannot be read.
    """
    for kind, listed in item.get("sha256", {}).items():
        if kind in (kinds or item):
            _check_listed(item["case"], kind, Path(item[kind]), listed)


def _check_listed(case: str, kind: str, path: Path, listed: str) -> None:
    again = "restore it, or write the site list again with `fedbcs sites`"
    try:
        now = path.stat()
        same = _sha256_once(path, now.st_size, now.st_mtime_ns) == listed
    except OSError as error:
        raise UserError(f"case {case}: {kind} {path} cannot be read ({error.strerror}); {again}") from None
    if not same:
        raise UserError(f"case {case}: {kind} {path} has changed since it was listed; {again}")


@cache
def _sha256_once(path: Path, size: int, time_ns: int) -> str:
    return sha256(path)
