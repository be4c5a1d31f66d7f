"""Memory: current and peak memory of a process, and whether freed memory returns to the system."""

import ctypes
import gc
import sys
from collections.abc import Mapping
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of mallopt(3)."""


def peak_bytes() -> int | None:
    """The most memory a run has held at once: of the GPU where one is used, else of its process (resident set).

    None where that is not known: it is read from ``/proc``, which only Linux has.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return max(torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count()))
    return process_bytes("VmHWM")


def process_bytes(key: str, process: int | str = "self") -> int | None:
    """Linux's numbers of a process's memory: ``VmRSS`` now, ``VmHWM`` at most; None elsewhere."""
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
    _tune({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def give_back_freed_memory() -> None:
    """Have large blocks go back to the system as soon as they are freed: for processes that carry messages.

    Left to itself glibc moves the bound up to 32 MiB, and keeps smaller blocks for the thread that freed them. Where
    messages come and go in many threads that can be several times what is in use. A lower bound than that of 16 MiB
    doubles the time that it takes to carry a network of 30 MiB. What Python has loaded so far is taken out of its
    collections of garbage (`collect_garbage`), which may then be frequent.
    """
    gc.freeze()
    _tune({M_MMAP_THRESHOLD: 2**24})


def collect_garbage() -> None:
    """Collect reference cycles, and return free heap pages to the system where glibc allows."""
    gc.collect()
    if library := _glibc():
        library.malloc_trim(0)


def _tune(parameters: Mapping[int, int]) -> None:
    if library := _glibc():
        for parameter, value in parameters.items():
            library.mallopt(parameter, value)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform == "linux" else None
    return library if library and hasattr(library, "gnu_get_libc_version") else None
