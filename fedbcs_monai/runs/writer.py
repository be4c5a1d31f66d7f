"""RunWriter: writes the files of a run folder, except checkpoints."""

import csv
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

from fedbcs_monai.errors import UserError
from fedbcs_monai.files import check_folder_can_be, naming, sum_file, sweep, write_sum, write_whole
from fedbcs_monai.metrics.cases import Example
from fedbcs_monai.names import checked_site_name
from fedbcs_monai.runs.reader import whole_rows
from fedbcs_monai.runs.schema import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    EXAMPLES,
    LOOKS,
    REFUSED,
    REPORT,
    ROUNDS,
    SCORES,
    SITES,
    SUMMARY,
    TENSORBOARD,
    TRACKED,
    ModelScore,
    Summary,
    Table,
)

PACKAGES = ("fedbcs-monai", "monai", "torch", "numpy", "nibabel", "itk", "finch-clust", "safetensors")
LOCK = ".lock"


class RunWriter:
    """The run folder: ``config.json``, ``environment.json``, ``rounds.csv``, TensorBoard, and the results.

    ``refused.csv`` is there as soon as a site has sent something that was not accepted.

    Args:
        folder: of the run.
        since: round after which what stands in the tables is dropped, when a run is resumed.
    """

    def __init__(self, folder: Path, since: int = 0) -> None:
        self.folder = folder
        self._rounds = self._reopened(since)
        if (folder / REFUSED.file).is_file():
            self.write_table(REFUSED, [row for row in self._refused() if int(row[0]) <= since])
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=since + 1)

    def log(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """Append a site's numbers of a round, and show them on TensorBoard."""
        writer = csv.writer(self._rounds)
        with naming(self.folder / ROUNDS.file):
            for metric, value in metrics.items():
                writer.writerow([round, site, metric, repr(float(value))])
            self._rounds.flush()
        with naming(self.folder / TENSORBOARD):
            for metric, value in metrics.items():
                self._board.add_scalar(f"{metric}/{site}", value, round)

    def refuse(self, round: int, task: str, site: str, reason: str) -> None:
        """Append why something that a site sent was not accepted."""
        self.write_table(REFUSED, [*self._refused(), [round, task, site, reason]])

    def refusals(self) -> dict[str, dict[str, list[int]]]:
        """From a site to the reasons why it was not accepted, each with its rounds."""
        found: dict[str, dict[str, list[int]]] = {}
        for round, _, site, reason in self._refused():
            rounds = found.setdefault(site, {}).setdefault(reason, [])
            if int(round) not in rounds:
                rounds.append(int(round))
        return dict(sorted(found.items()))

    def forget_after(self, round: int) -> None:
        """Drop from ``rounds.csv`` what stands there of later rounds."""
        self._rounds.close()
        self._rounds = self._reopened(round)

    def took_part(self) -> dict[str, set[int]]:
        """From a site to the rounds that it trained in."""
        rounds: dict[str, set[int]] = {}
        for round, site, metric, _ in whole_rows(self.folder, ROUNDS):
            if metric == "seconds":
                rounds.setdefault(site, set()).add(int(round))
        return rounds

    def write_json(self, name: str, content: Mapping[str, Any]) -> None:
        """Write a JSON file of the run."""
        write_whole(self.folder / name, (json.dumps(content, indent=1) + "\n").encode())

    def write_config(self, content: Mapping[str, Any]) -> None:
        """Write ``config.json``, and its SHA-256 beside it: a changed digit in it changes masks as weights do."""
        path = self.folder / CONFIG
        sum_file(path).unlink(missing_ok=True)  # a run that is killed in between has none, and not that of another
        self.write_json(path.name, content)
        write_sum(path)

    def write_summary(self, summary: Summary) -> None:
        """Write ``summary.json``, which says that the run has ended."""
        self.write_json(SUMMARY, summary.plain())

    def write_table(self, table: Table, rows: Iterable[Sequence[Any]]) -> None:
        """Write a CSV file of the run."""
        write_whole(self.folder / table.file, _csv([table.columns, *rows]))

    def write_scores(self, scores: Iterable[ModelScore]) -> None:
        """Write ``scores.csv``."""
        self.write_table(SCORES, [(model, site, "test", *score) for model, site, score in scores])

    def write_examples(self, site: str, examples: Sequence[Example]) -> None:
        """Write ``examples/<site>_<n>.npz``; they hold pixels of cases, so they stay where the cases are."""
        for n, example in enumerate(examples):
            content = BytesIO()
            np.savez_compressed(content, **example._asdict())
            write_whole(self.folder / EXAMPLES / f"{checked_site_name(site)}_{n}.npz", content.getvalue())

    def write_look(self, site: str, picture: Any) -> None:
        """Write ``looks/<site>.png``."""
        content = BytesIO()
        Image.fromarray(picture).save(content, "PNG")
        write_whole(self.folder / LOOKS / f"{checked_site_name(site)}.png", content.getvalue())

    def close(self) -> None:
        """Close what is open."""
        self._rounds.close()
        self._board.close()

    def _reopened(self, since: int) -> TextIO:
        """``rounds.csv`` with the rows of rounds up to ``since``, to append to."""
        self.write_table(ROUNDS, [row for row in whole_rows(self.folder, ROUNDS) if int(row[0]) <= since])
        return (self.folder / ROUNDS.file).open("a", newline="", encoding="utf-8")

    def _refused(self) -> list[list[str]]:
        return whole_rows(self.folder, REFUSED)


def check_folder(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Make sure that a run may write into a folder; nothing is changed.

    Raises:
        UserError: it cannot be a folder, or holds something that the run would replace unasked.
    """
    check_folder_can_be(folder)
    held = folder.is_dir() and any(path.name != LOCK for path in folder.iterdir())
    if held and resume and not any((folder / name).is_file() for name in (CONFIG, ROUNDS.file, LOCK)):
        raise UserError(f"{folder}: is not empty and holds no run to resume; name another -o")
    if held and overwrite and not (folder / ROUNDS.file).is_file():
        raise UserError(f"{folder}: is not empty and holds no run to overwrite; name another -o")
    if held and not resume and not overwrite:
        raise UserError(
            f"{folder}: is not empty; continue with --resume, replace it with --overwrite, or name another -o"
        )


def claim_folder(folder: Path) -> FileLock:
    """Lock a run folder, which is made if need be, for this process alone.

    Returns:
        The lock, taken; it is free again when it is released, or when this process ends for whatever reason.

    Raises:
        UserError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(
            f"{folder}: another process is writing a run into it; wait until it has ended, or name another -o"
        ) from None
    return lock


def copy_run(folder: Path, to: Path) -> None:
    """Copy a run folder's files into another folder, but for its lock."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns(LOCK), dirs_exist_ok=True)


def clear_run(folder: Path) -> None:
    """Remove what an earlier run wrote into a folder, and nothing else."""
    sweep(folder)
    for path in folder.rglob("*"):
        if path.is_file() and _is_ours(path.relative_to(folder)):
            path.unlink()


def environment(device: torch.device) -> dict[str, Any]:
    """Versions, machine and command of this run."""
    return {
        **{package.replace("-", "_"): version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def processor() -> str:
    """The processor's model, where Linux says it, because the last bits of a training depend on it; else its kind."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def _is_ours(path: Path) -> bool:
    if len(path.parts) > 1:
        return path.parts[0] in (CHECKPOINTS, TENSORBOARD, EXAMPLES, LOOKS, SITES, TRACKED)
    tables = (ROUNDS.file, REFUSED.file, SCORES.file)
    names = (CONFIG, sum_file(Path(CONFIG)).name, ENVIRONMENT, SUMMARY, REPORT, *tables)
    return path.name in names or path.suffix == ".safetensors"


def _csv(rows: Iterable[Sequence[Any]]) -> bytes:
    content = StringIO()
    csv.writer(content).writerows(rows)
    return content.getvalue().encode()
