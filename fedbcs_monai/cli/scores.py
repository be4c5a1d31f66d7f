"""Tables of a run's scores for the command line."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from fedbcs_monai.cli.voice import Quiet
from fedbcs_monai.evaluation.cases import CaseScore

COLUMNS = ["site", "cases", "Dice %", "HD95 mm", "ASSD mm"]


def score_table(folder: Path, say: Quiet) -> None:
    """Say the test scores of a run's selected model."""
    with (folder / "scores.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "selected"]
    sites: dict[str, list[CaseScore]] = {}
    for row in rows:
        numbers = [float(row[name]) for name in CaseScore._fields[1:]]
        sites.setdefault(row["site"], []).append(CaseScore(row["case"], *numbers))
    say.table("test scores of the selected model", COLUMNS, [summary(name, found) for name, found in sites.items()])


def summary(site: str, scores: Sequence[CaseScore]) -> list[str]:
    """One row: means over a site's cases."""
    means = [sum(getattr(s, name) for s in scores) / len(scores) for name in ("dice", "hd95_mm", "assd_mm")]
    distances = ["-" if math.isnan(mean) else f"{mean:.1f}" for mean in means[1:]]
    return [site, str(len(scores)), f"{100 * means[0]:.1f}", *distances]
