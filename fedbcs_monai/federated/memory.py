"""Memory: how much a process holds, and has held at most."""

from pathlib import Path

import torch


def peak_bytes() -> int | None:
    """The most memory a run has held at once: of the GPU where one is used, else of its process (resident set).

    None where that is not known: it is read from ``/proc``, which only Linux has.
    """
    if torch.cuda.is_available() and torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return int(torch.cuda.max_memory_allocated())
    return process_bytes("VmHWM")


def process_bytes(key: str) -> int | None:
    """What Linux says of this process's memory: ``VmRSS`` now, ``VmHWM`` at most; None elsewhere."""
    # Not `ru_maxrss`: on Linux a new process inherits that from the one that started it.
    status = Path("/proc/self/status")
    lines = status.read_text(encoding="ascii").splitlines() if status.is_file() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{key}:")), None)
