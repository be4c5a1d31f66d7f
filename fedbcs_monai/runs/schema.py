"""Schema: the files of a run folder and their columns and keys."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from fedbcs_monai.metrics.cases import CaseScore


class Table(NamedTuple):
    """A CSV file of a run.

    Fields:
        file: its name.
        columns: in their order.
    """

    file: str
    columns: Sequence[str]


ROUNDS = Table("rounds.csv", ("round", "site", "metric", "value"))
REFUSED = Table("refused.csv", ("round", "task", "site", "reason"))
SCORES = Table("scores.csv", ("model", "site", "split", *CaseScore._fields))
CROSS_SITE = Table("cross_site.csv", ("model", "site", "val_dice"))

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
SUMMARY = "summary.json"
REPORT = "report.html"
PROTOTYPES = "prototypes.safetensors"

CHECKPOINTS, TENSORBOARD, EXAMPLES, LOOKS, SITES = "checkpoints", "tensorboard", "examples", "looks", "sites"
TRACKED = "tracked"
"""Folders in it."""


class ModelScore(NamedTuple):
    """A row of `SCORES`: what a model scored on one test case, or on several on average."""

    model: str
    site: str
    score: CaseScore


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
    """What a finished run says of itself.

    Fields:
        name: of the run.
        task: its name.
        rounds: number of completed rounds.
        selected_round: whose model scored best on the validation cases.
        best_on_test: None if the test cases were not followed.
        unseen: sites that no training case came from.
        absent: from a site to the rounds that it did not train in.
        refused: from a site to the reasons why it was not accepted, each with its rounds.
        seconds: of the whole run.
        peak_bytes: of memory; NaN where it is not known.
        sites: the cases of each.
    """

    name: str
    task: str
    rounds: int
    selected_round: int
    best_on_test: BestOnTest | None
    unseen: tuple[str, ...]
    absent: Mapping[str, Sequence[int]]
    refused: Mapping[str, Mapping[str, Sequence[int]]]
    seconds: float
    peak_bytes: float
    sites: Mapping[str, Counts]

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            **self._asdict(),
            "best_on_test": self.best_on_test and self.best_on_test._asdict(),
            "peak_bytes": None if math.isnan(self.peak_bytes) else self.peak_bytes,
            "sites": {site: counts._asdict() for site, counts in self.sites.items()},
        }

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> "Summary":
        """From what `plain` made; a key of later versions may be missing.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is none.
        """
        best = found.get("best_on_test")
        return cls(
            name=str(found["name"]),
            task=str(found.get("task", "")),
            rounds=int(found["rounds"]),
            selected_round=int(found["selected_round"]),
            best_on_test=BestOnTest(int(best["round"]), float(best["dice"])) if best else None,
            unseen=tuple(found.get("unseen", ())),
            absent={site: list(rounds) for site, rounds in found.get("absent", {}).items()},
            refused={site: dict(reasons) for site, reasons in found.get("refused", {}).items()},
            seconds=float(found.get("seconds", math.nan)),
            peak_bytes=float(math.nan if found.get("peak_bytes") is None else found["peak_bytes"]),
            sites={site: Counts(of["train"], of["val"], of["test"]) for site, of in found["sites"].items()},
        )
