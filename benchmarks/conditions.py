"""Conditions: under what a benchmark ran, and how its numbers are printed."""

import json
import os
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.memory import process_bytes
from fedbcs_monai.runs.writer import processor

PACKAGES = ("fedbcs-monai", "torch", "monai", "numpy", "finch-clust")
IDLE = 0.3
"""Load average of the last minute up to which a machine counts as idle."""


def script(main: Callable[[], None]) -> None:
    """Run a benchmark. What its user can correct is one line, and exit code 2."""
    try:
        main()
    except UserError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        sys.exit(2)


def conditions(device: torch.device, seed: int) -> dict[str, Any]:
    """Command, versions, hardware, seed and load; to be called before anything is measured."""
    found: dict[str, Any] = {
        "command": " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "hardware": {
            "cpu": processor(),
            "cores": os.cpu_count(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        },
        "threads": torch.get_num_threads(),
        "seed": seed,
        "load_before": round(os.getloadavg()[0], 2),
    }
    if found["load_before"] > IDLE:
        warn(f"load average {found['load_before']}: this machine is not idle, times below are noisy")
    return found


def close(found: dict[str, Any], own: float = 0.0) -> None:
    """Add the load average at the end, and warn when it is more than the benchmark's own threads."""
    found["load_after"] = round(os.getloadavg()[0], 2)
    if found["load_after"] > (own or found["threads"]) + IDLE:
        warn(f"load average {found['load_after']} at the end: something else was running, times are noisy")


def describe(found: Mapping[str, Any]) -> str:
    """The conditions as lines of Markdown."""
    hardware, versions = found["hardware"], ", ".join(f"{name} {v}" for name, v in found["versions"].items())
    return "\n".join(
        [
            f"- command: `{found['command']}`",
            f"- versions: {versions}",
            f"- hardware: {hardware['device']}, {hardware['cpu']}, {hardware['cores']} cores,"
            f" {hardware['memory_gib']} GiB; {found['threads']} threads",
            f"- seed {found['seed']}; load average {found['load_before']} before, {found.get('load_after', '?')} after",
        ]
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, the first column to the left and the others to the right."""
    widths = [max(len(row[n]) for row in [header, *rows]) for n in range(len(header))]
    line = "|".join(["", "-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:]), ""])
    cells = [
        "| "
        + " | ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        + " |"
        for row in [header, *rows]
    ]
    return "\n".join([cells[0], line, *cells[1:]])


def finish(found: Mapping[str, Any], results: Any, text: str, path: Path | None) -> None:
    """Print conditions and tables, and write all that was measured as JSON."""
    print(f"\n{describe(found)}\n\n{text}")
    if path:
        path.write_text(json.dumps({"conditions": found, "results": results}, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {path}")


def warn(text: str) -> None:
    """A warning on standard error."""
    print(f"WARNING: {text}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Progress on standard error."""
    print(text, file=sys.stderr, flush=True)


def peak_bytes() -> int:
    """The most memory that this process has held at once (resident set)."""
    return _held("VmHWM")


def resident_bytes() -> int:
    """The memory that this process holds now (resident set)."""
    return _held("VmRSS")


def _held(key: str) -> int:
    found = process_bytes(key)
    if found is None:
        raise RuntimeError("memory is read from /proc/self/status, which only Linux has; use --device cuda elsewhere")
    return found


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
