"""Memory: how much a process holds and has held at most, and whether it gives back what it frees."""

import ctypes
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of mallopt(3)."""


def peak_bytes() -> int | None:
    """The most memory a run has held at once: of the GPU where one is used, else of its process (resident set).

    None where that is not known: it is read from ``/proc``, which only Linux has.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return int(torch.cuda.max_memory_allocated())
    return process_bytes("VmHWM")


def process_bytes(key: str, process: int | str = "self") -> int | None:
    """What Linux says of a process's memory: ``VmRSS`` now, ``VmHWM`` at most; None elsewhere."""
    # Not `ru_maxrss`: on Linux a new process inherits that from the one that started it.
    status = Path(f"/proc/{process}/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)


def keep_freed_memory() -> None:
    """Have the C library keep large blocks that are freed, for the next tensors of their size.

    glibc takes a block of more than 32 MiB from the system and gives it back when it is freed. A training step makes
    feature maps of that size over and over, and having their pages mapped each time can take a third of it. Kept, they
    also fit less tightly, so a process holds more memory. Without glibc nothing happens.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "gnu_get_libc_version"):
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, -1)
