"""Score tables: the scores of a run as tables on the terminal."""

import math
from collections.abc import Sequence
from pathlib import Path

from fedbcs_monai.cli.console import Entry, QuietConsole
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.metrics.plateau import late_gain, still_rises
from fedbcs_monai.metrics.tables import cases_in, mean_sd
from fedbcs_monai.runs.reader import read_curves, read_scores, read_summary

COLUMNS = {
    "site": "site",
    "cases": "cases",
    "dice_percent": "Dice %",
    "hd95_mm": "HD95 mm",
    "assd_mm": "ASSD mm",
}
"""Of a table of scores: keys of a record, and headings."""
COVERED = "means over the cases of one training; one seed: the spread over seeds is not known"


def score_table(folder: Path, console: QuietConsole) -> None:
    """Print the test scores of a run's selected model at every site, also at those where no case was scored."""
    sites: dict[str, list[CaseScore]] = {site: [] for site in read_summary(folder).sites}
    for row in read_scores(folder):
        if row.model == "selected":
            sites.setdefault(row.site, []).append(row.score)
    console.note(COVERED)
    each = [summary(name, found) for name, found in sites.items()]
    gain = late_gain(read_curves(folder).get("val_dice", {}), read_summary(folder).rounds)
    if still_rises(gain):
        console.note(
            f"validation Dice rose by {gain:.1f} points over the last fifth of the rounds: train for more rounds"
        )
    console.table("scores", "test scores of the selected model", COLUMNS, each)


def summary(site: str, scores: Sequence[CaseScore]) -> list[Entry]:
    """One row: how many cases of a site were scored, and means over those where a score is defined; None if nowhere."""
    means = [mean_sd(getattr(score, name) for score in scores).mean for name in ("dice", "hd95_mm", "assd_mm")]
    shown = [mean if math.isfinite(mean) else None for mean in (100 * means[0], *means[1:])]
    return [site, sum(cases_in(score.case) for score in scores), *shown]
