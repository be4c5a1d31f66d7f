"""Prediction page: each study with picture, statistics and warnings."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from fedbcs_monai.html import embedded, templates, write_html

PICTURES = 60  # what keeps a page of a thousand studies below a few tens of megabytes
_TITLE = b"<title>Segmentation of "
LONGEST = 1200  # pixels of an embedded picture


class Entry(NamedTuple):
    """A study that is done: its name, its statistics, and its picture if there is one."""

    name: str
    row: Mapping[str, Any]
    picture: Path | None


class Shown(NamedTuple):
    """A study as the page shows it.

    Fields:
        anchor: what links on the page lead to.
        measured: one line for each class, from what is measured to its value.
        picture: as a data URI; empty if there is none.
    """

    anchor: str
    name: str
    row: Mapping[str, Any]
    measured: list[dict[str, str]]
    picture: str


def write_page(
    path: Path,
    entries: Sequence[Entry],
    failed: Mapping[str, str],
    skipped: Sequence[str],
    provenance: Mapping[str, Any],
    earlier: Sequence[str] = (),
) -> None:
    """Write one self-contained page about the studies of a folder, those with warnings first.

    Args:
        path: of the page.
        entries: studies that are done.
        failed: from what could not be segmented to the reason.
        skipped: names of files of another kind.
        provenance: of `Predictor`.
        earlier: names of files that were left out as outputs of an earlier call.
    """
    ordered = sorted(entries, key=lambda entry: not entry.row["warnings"])
    shown = [
        Shown(f"study-{n}", entry.name, entry.row, _measured(entry.row), _picture(entry) if n < PICTURES else "")
        for n, entry in enumerate(ordered)
    ]
    html = (
        templates("predict")
        .get_template("page.html")
        .render(
            studies=shown, failed=failed, skipped=skipped, provenance=provenance, pictures=PICTURES, earlier=earlier
        )
    )
    write_html(path, html)


def is_page(path: Path) -> bool:
    """Whether there is such a page, and none of another kind."""
    try:
        with path.open("rb") as file:
            return _TITLE in file.read(2000)
    except OSError:
        return False


def is_whole(row: Mapping[str, Any]) -> bool:
    """Whether the statistics of an earlier call have what a page shows."""
    try:
        return bool(row) and bool(_measured(row))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False


def _picture(entry: Entry) -> str:
    """The picture as a data URI; empty where there is none that can be read, as of an earlier call."""
    if entry.picture is None or not entry.picture.is_file():
        return ""
    try:
        with Image.open(entry.picture) as picture:
            return embedded(picture, LONGEST)
    except (OSError, ValueError, SyntaxError):
        return ""


def _measured(row: Mapping[str, Any]) -> list[dict[str, str]]:
    return [_of_class(of_class) for of_class in row["classes"].values()]


def _of_class(of_class: Mapping[str, Any]) -> dict[str, str]:
    size = f"{of_class['volume_ml']:.2f} mL" if "volume_ml" in of_class else f"{of_class['area_px']:,} pixels"
    box, probability = of_class["bounding_box"], of_class["mean_probability"]
    return {
        "structure": of_class["name"],
        "size": size,
        "components": str(of_class["components"]),
        "bounding box": " × ".join(f"{first}–{last}" for first, last in box) if box else "–",
        "mean probability": "–" if probability is None else f"{probability:.2f}",
    }
