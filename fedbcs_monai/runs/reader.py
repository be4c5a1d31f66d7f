"""Reader: read a run folder, and check it once."""

import csv
import json
import math
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedbcs_monai.config import renamed
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.traffic import TRAFFIC
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.metrics.plateau import late_gain
from fedbcs_monai.metrics.tables import Score
from fedbcs_monai.runs.schema import CONFIG, ENVIRONMENT, EXAMPLES, ROUNDS, SCORES, SUMMARY, ModelScore, Summary, Table
from fedbcs_monai.settings import check_classes

ADDED_UP = {"seconds", *TRAFFIC}
"""What adds up when a site is asked more than once in a round."""

Curves = Mapping[str, Mapping[str, Mapping[int, float]]]


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
        """How many test cases were scored at each site, also where it reported only their mean."""
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
        return {site: list(rounds) for site, rounds in {**missed, **known}.items() if rounds}

    @property
    def validation(self) -> float:
        """Dice on validation cases in the selected round, 0 to 1, the unweighted mean over sites; NaN if not known."""
        lines = self.curves.get("val_dice", {}).values()
        found = [
            line[self.summary.selected_round] for line in lines if self.summary and self.summary.selected_round in line
        ]
        return sum(found) / len(found) if found else math.nan

    @property
    def late_gain(self) -> float:
        """Points of validation Dice gained over the last fifth of the rounds, as in `late_gain`; NaN if unfinished."""
        return late_gain(self.curves.get("val_dice", {}), self.summary.rounds) if self.summary else math.nan

    @property
    def rounds_done(self) -> int:
        """The last round anything was written of."""
        return max((max(line, default=0) for sites in self.curves.values() for line in sites.values()), default=0)


def read_run(folder: Path) -> Run:
    """Read a run folder; without `SUMMARY` it is an unfinished run, which may lack scores and a last line."""
    if not (folder / CONFIG).is_file():
        raise UserError(
            f"{folder} is not a run folder: it has no config.json. Name a folder that a training run wrote."
        )
    config = renamed(read_json(folder / CONFIG), str(folder), warn=False)
    if not isinstance(config.get("method"), dict) or "_target_" not in config["method"]:
        raise UserError(f"{folder / CONFIG} names no method: expected method._target_. Is it from this package?")
    check_classes(config.get("network_def"), config.get("classes"), f"{folder / CONFIG}: ")
    finished = is_finished(folder)
    return Run(
        folder=folder,
        config=config,
        environment=read_environment(folder),
        curves=read_curves(folder),
        scores=_by_metric(read_scores(folder)),
        summary=read_summary(folder) if finished else None,
    )


def runs_in(folder: Path) -> list[Path]:
    """The run folders that a folder stands for: all in the folder of a benchmark, by name, else itself."""
    if (folder / CONFIG).is_file():
        return [folder]
    return sorted(path.parent for path in folder.glob(f"runs/*/{CONFIG}")) or [folder]


def is_finished(folder: Path) -> bool:
    """Whether a run has finished at least once."""
    return (folder / SUMMARY).is_file()


def read_summary(folder: Path) -> Summary:
    """What a finished run says of itself.

    Raises:
        UserError: it is not finished, or the file cannot be read.
    """
    path = folder / SUMMARY
    if not path.is_file():
        raise UserError(f"{path}: is not there; give the folder of a finished run")
    try:
        return Summary.of(read_json(path))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is incomplete ({type(error).__name__}: {error}). Run it again.") from None


def read_environment(folder: Path) -> dict[str, Any]:
    """Versions, machine and command of a run."""
    return read_json(folder / ENVIRONMENT)


def read_scores(folder: Path) -> list[ModelScore]:
    """The test scores of a run; a score that is not defined, or that an older version did not have, is NaN.

    An unfinished run has none, or may lack its last line.

    Raises:
        UserError: the file, the line, and the way out.
    """
    path, scores = folder / SCORES.file, []
    for line, row in _read_rows(folder, SCORES, SCORES.columns[:5], is_finished(folder)):
        if row["split"] == "test":
            numbers = (_number(row.get(name) or "nan", path, line) for name in CaseScore._fields[1:])
            scores.append(ModelScore(row["model"], row["site"], CaseScore(row["case"], *numbers)))
    return scores


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file of a run.

    Raises:
        UserError: it is not there, cut off, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing: the run stopped before it began. Run it again.") from None
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): it is cut off or damaged. Run it again.") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} must hold a JSON object, got {type(found).__name__}. Run it again.")
    return found


def whole_rows(folder: Path, table: Table) -> list[list[str]]:
    """The rows of a table that begins with a round, for the run that continues it: only complete rows."""
    path = folder / table.file
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.reader(file) if len(row) == len(table.columns) and row[0].isdigit()]


def read_examples(run: Run) -> list[Example]:
    """The example cases a run kept, by site and number."""
    examples = [_read_example(path) for path in sorted((run.folder / EXAMPLES).glob("*_*.npz"))]
    return sorted(examples, key=lambda example: (example.site, example.number))


def _read_rows(
    folder: Path, table: Table, needed: Sequence[str], finished: bool
) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows with their line numbers; a last line cut off in writing is dropped while the run is unfinished."""
    path = folder / table.file
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
    lacking = [column for column in needed if column not in (reader.fieldnames or ())]
    if lacking:
        raise UserError(f"{path} lacks the column {', '.join(lacking)}. Was it edited? Restore it or run again.")
    for row in reader:
        if None in row or None in row.values():
            raise UserError(f"{path}, line {reader.line_num}, is cut off. Restore the file or run again.")
        yield reader.line_num, row


def read_curves(folder: Path) -> Curves:
    """What a run measured in its rounds, by metric and site; an unfinished run may lack its last line.

    Raises:
        UserError: the file, the line, and the way out.
    """
    path, curves = folder / ROUNDS.file, dict[str, dict[str, dict[int, float]]]()
    for line, row in _read_rows(folder, ROUNDS, ROUNDS.columns, is_finished(folder)):
        of_site = curves.setdefault(row["metric"], {}).setdefault(row["site"], {})
        at, value = int(_number(row["round"], path, line)), _number(row["value"], path, line)
        of_site[at] = value + (of_site.get(at, 0.0) if row["metric"] in ADDED_UP else 0.0)
    return curves


def _by_metric(rows: Iterable[ModelScore]) -> dict[tuple[str, str], list[Score]]:
    """From (model, metric) to the scores of every case."""
    scores: dict[tuple[str, str], list[Score]] = {}
    for model, site, score in rows:
        for metric in CaseScore._fields[1:]:
            scores.setdefault((model, metric), []).append(Score(site, score.case, getattr(score, metric)))
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
