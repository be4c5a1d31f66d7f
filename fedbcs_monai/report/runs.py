"""Runs: a run folder read back, checked once here and trusted afterwards."""

import csv
import math
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedbcs_monai.config import renamed
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.traffic import TRAFFIC
from fedbcs_monai.metrics.tables import Score
from fedbcs_monai.runs.writer import read_json
from fedbcs_monai.settings import check_classes

METRICS = ("dice", "slice_dice", "hd95_mm", "assd_mm")

ADDED_UP = {"seconds", *TRAFFIC}
"""What adds up when a site is asked more than once in a round."""

Curves = Mapping[str, Mapping[str, Mapping[int, float]]]


class Counts(NamedTuple):
    """How many cases a site has in each part of its data."""

    train: int
    val: int
    test: int


class BestOnTest(NamedTuple):
    """The round that scored best on the test cases themselves: an optimistic number, because it was chosen on them."""

    round: int
    dice: float


class Summary(NamedTuple):
    """What a finished run says of itself."""

    name: str
    task: str
    rounds: int
    selected_round: int
    unseen: tuple[str, ...]
    best_on_test: BestOnTest | None
    seconds: float
    peak_bytes: float
    sites: dict[str, Counts]
    absent: dict[str, list[int]]
    refused: dict[str, dict[str, list[int]]]


class Example(NamedTuple):
    """A test case with its reference and prediction: image (H, W, 3) uint8, masks (H, W) bool."""

    site: str
    number: int
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    dice: float
    case: str


@dataclass(frozen=True)
class Run:
    """One training run. `curves` is metric -> site -> round -> value; `scores` is (model, metric) -> test scores."""

    folder: Path
    config: Mapping[str, Any]
    environment: Mapping[str, Any]
    curves: Curves
    scores: Mapping[tuple[str, str], Sequence[Score]]
    summary: Summary | None

    @property
    def method(self) -> str:
        """The class that was trained, such as `FedBCS`."""
        return str(self.config["method"]["_target_"]).rpartition(".")[2]

    @property
    def name(self) -> str:
        """What the run calls itself; an unfinished run goes by its method."""
        return self.summary.name if self.summary else self.method

    @property
    def repeat(self) -> tuple[int, int]:
        """Seed and fold, in which repeats of one method differ."""
        return int(self.config.get("seed", 0)), int(self.config.get("fold", 0))

    @property
    def sites(self) -> tuple[str, ...]:
        """Every site the run knows of."""
        if self.summary:
            return tuple(self.summary.sites)
        return tuple(dict.fromkeys(site for sites in self.curves.values() for site in sites))

    @property
    def unseen(self) -> tuple[str, ...]:
        """The sites the run was tested on and never trained on."""
        return self.summary.unseen if self.summary else ()

    @property
    def tested(self) -> dict[str, set[str]]:
        """The cases that were scored at each site, by their ids; NVFlare numbers them, and those are left out."""
        cases: dict[str, set[str]] = {}
        for score in self.scores.get(("selected", "dice"), ()):
            if re.fullmatch("[0-9a-f]{8}", score.case):
                cases.setdefault(score.site, set()).add(score.case)
        return cases

    @property
    def scored_cases(self) -> dict[str, int]:
        """How many test cases were scored at each site, also where it told only their mean."""
        counts: dict[str, int] = {}
        for score in self.scores.get(("selected", "dice"), ()):
            counts[score.site] = counts.get(score.site, 0) + score.cases
        return counts

    @property
    def absent(self) -> dict[str, list[int]]:
        """The rounds in which each site did not take part, of those that did not take part in all."""
        took_part = self.curves.get("seconds", {})
        every = range(1, self.rounds_done + 1)
        missed = {site: [n for n in every if n not in rounds] for site, rounds in took_part.items()}
        known = self.summary.absent if self.summary else {}
        return {site: rounds for site, rounds in {**missed, **known}.items() if rounds}

    @property
    def validation(self) -> float:
        """Dice on validation cases in the selected round, 0 to 1, the unweighted mean over sites; NaN if not known."""
        lines = self.curves.get("val_dice", {}).values()
        found = [
            line[self.summary.selected_round] for line in lines if self.summary and self.summary.selected_round in line
        ]
        return sum(found) / len(found) if found else math.nan

    @property
    def rounds_done(self) -> int:
        """The last round anything was written of."""
        return max((max(line, default=0) for sites in self.curves.values() for line in sites.values()), default=0)


def read_run(folder: Path) -> Run:
    """Read a run folder; without `summary.json` it is an unfinished run, which may lack scores and a last line."""
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{folder} is not a run folder: it has no config.json. Name a folder that a training run wrote."
        )
    config = renamed(read_json(folder / "config.json"), str(folder), warn=False)
    if not isinstance(config.get("method"), dict) or "_target_" not in config["method"]:
        raise UserError(f"{folder / 'config.json'} names no method: expected method._target_. Is it from this package?")
    check_classes(config.get("network_def"), config.get("classes"), f"{folder / 'config.json'}: ")
    finished = (folder / "summary.json").is_file()
    return Run(
        folder=folder,
        config=config,
        environment=read_json(folder / "environment.json"),
        curves=_read_curves(folder / "rounds.csv", finished),
        scores=_read_scores(folder / "scores.csv", finished),
        summary=_read_summary(folder / "summary.json") if finished else None,
    )


def runs_in(folder: Path) -> list[Path]:
    """The run folders that a folder stands for: all in the folder of a benchmark, by name, else itself."""
    if (folder / "config.json").is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob("runs/*/config.json")) or [folder]


def check_comparable(runs: Sequence[Run]) -> None:
    """Refuse runs of other sites, held-out sites, test cases or tasks: their averages are not the same quantity."""
    finished = [run for run in runs if run.summary]
    for run in finished[1:]:
        _same("the sites", finished[0], sorted(finished[0].sites), run, sorted(run.sites))
        _same("the unseen sites", finished[0], sorted(finished[0].unseen), run, sorted(run.unseen))
        _same("the task", finished[0], _task(finished[0]), run, _task(run))
    tested: dict[tuple[str, int], tuple[Run, set[str]]] = {}
    for run in finished:
        for site, cases in run.tested.items():
            first, known_cases = tested.setdefault((site, run.repeat[1]), (run, cases))
            less, more = sorted(known_cases - cases)[:3], sorted(cases - known_cases)[:3]
            _same(f"the test cases of {site}", first, less, run, more)
    known = set((finished or runs)[0].sites)
    for run in runs:
        if not run.summary and known and run.sites and not set(run.sites) <= known:
            _same("the sites", (finished or runs)[0], sorted(known), run, sorted(run.sites))


def read_examples(run: Run) -> list[Example]:
    """The example cases a run kept, by site and number."""
    examples = [_read_example(path) for path in sorted((run.folder / "examples").glob("*_*.npz"))]
    return sorted(examples, key=lambda example: (example.site, example.number))


def _task(run: Run) -> list[str]:
    return [run.summary.task] if run.summary else []


def _same(what: str, first: Run, expected: list[str], run: Run, found: list[str]) -> None:
    if expected != found:
        raise UserError(
            f"{run.folder} cannot stand beside {first.folder}: {what} differ "
            f"({', '.join(found) or 'none'} against {', '.join(expected) or 'none'}). Report them separately."
        )


def _read_summary(path: Path) -> Summary:
    found = read_json(path)
    try:
        best = found.get("best_on_test")
        return Summary(
            name=str(found["name"]),
            task=str(found.get("task", "")),
            rounds=int(found["rounds"]),
            selected_round=int(found["selected_round"]),
            unseen=tuple(found.get("unseen", ())),
            best_on_test=BestOnTest(int(best["round"]), float(best["dice"])) if best else None,
            seconds=float(found.get("seconds", math.nan)),
            peak_bytes=float(math.nan if found.get("peak_bytes") is None else found["peak_bytes"]),
            sites={site: Counts(of["train"], of["val"], of["test"]) for site, of in found["sites"].items()},
            absent={site: list(rounds) for site, rounds in found.get("absent", {}).items()},
            refused={site: dict(reasons) for site, reasons in found.get("refused", {}).items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is incomplete ({type(error).__name__}: {error}). Run it again.") from None


def _read_rows(path: Path, columns: Sequence[str], finished: bool) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their line numbers; a last line cut off in writing is dropped while the run is unfinished."""
    if not path.is_file():
        if finished:
            raise UserError(f"{path} is missing although the run is finished. Copy the whole run folder.")
        return
    text = path.read_text(encoding="utf-8")
    if not finished and not text.endswith("\n"):
        text = text.rpartition("\n")[0]
    if not text:
        return
    reader = csv.DictReader(text.splitlines())
    lacking = [column for column in columns if column not in (reader.fieldnames or ())]
    if lacking:
        raise UserError(f"{path} lacks the column {', '.join(lacking)}. Was it edited? Restore it or run again.")
    for row in reader:
        if None in row or None in row.values():
            raise UserError(f"{path}, line {reader.line_num}, is cut off. Restore the file or run again.")
        yield reader.line_num, row


def _read_curves(path: Path, finished: bool) -> Curves:
    curves: dict[str, dict[str, dict[int, float]]] = {}
    for line, row in _read_rows(path, ("round", "site", "metric", "value"), finished):
        of_site = curves.setdefault(row["metric"], {}).setdefault(row["site"], {})
        at, value = int(_number(row["round"], path, line)), _number(row["value"], path, line)
        of_site[at] = value + (of_site.get(at, 0.0) if row["metric"] in ADDED_UP else 0.0)
    return curves


def _read_scores(path: Path, finished: bool) -> dict[tuple[str, str], list[Score]]:
    scores: dict[tuple[str, str], list[Score]] = {}
    for line, row in _read_rows(path, ("model", "site", "split", "case", "dice"), finished):
        for metric in METRICS:
            if row["split"] == "test" and metric in row:
                value = _number(row[metric], path, line) if row[metric] else math.nan
                scores.setdefault((row["model"], metric), []).append(Score(row["site"], row["case"], value))
    return scores


def _number(text: str, path: Path, line: int) -> float:
    try:
        return float(text)
    except ValueError:
        raise UserError(f"{path}, line {line}: expected a number, got {text!r}. Restore it or run again.") from None


def _read_example(path: Path) -> Example:
    site, _, number = path.stem.rpartition("_")
    try:
        with np.load(path, allow_pickle=False) as stored:
            return Example(
                site=site,
                number=int(number),
                image=stored["image"].astype(np.uint8),
                truth=stored["truth"].astype(bool),
                prediction=stored["prediction"].astype(bool),
                dice=float(stored["dice"]),
                case=str(stored["case"]),
            )
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} cannot be read ({error}). Delete it, or run again.") from None
