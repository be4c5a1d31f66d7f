"""Pictures: sample images of each site, and example cases with outlines of their masks."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedbcs_monai.errors import UserError
from fedbcs_monai.html import embedded
from fedbcs_monai.metrics.tables import text
from fedbcs_monai.report.summary import Comparison
from fedbcs_monai.runs.reader import Example, Run, read_examples
from fedbcs_monai.runs.schema import Counts

EXAMPLES_PER_SITE = 3
CARDS = 60  # what keeps a page of eleven methods and many nuclei below a few megabytes


class Site(NamedTuple):
    """An introduction of a site: one of its images as a data URI ("" if there is none) and its cases."""

    name: str
    look: str
    counts: Counts | None
    unseen: bool


class Outlined(NamedTuple):
    """One method's prediction of a case: the outline as an SVG path, and its Dice in %."""

    label: str
    colour: str
    path: str
    dice: str


class Overlay(NamedTuple):
    """A case: its picture of `width` x `height` pixels, the reference's outline and each method's."""

    case: str
    picture: str
    width: int
    height: int
    reference: str
    outlined: list[Outlined]


def sites(compared: Comparison, runs: Sequence[Run]) -> list[Site]:
    """Every site with its look, from the first run that kept one."""
    summary = next((run.summary for run in runs if run.summary), None)
    counts: Mapping[str, Counts] = summary.sites if summary else {}
    return [Site(site, _look(site, runs), counts.get(site), site in compared.unseen) for site in compared.sites]


def overlays(compared: Comparison) -> dict[str, list[Overlay]]:
    """Example cases by site, fewer the more methods there are. A method with several runs is shown by its first."""
    kept = {group.label: {(e.site, e.case): e for e in read_examples(group.runs[0])} for group in compared.groups}
    cases = dict.fromkeys(key for examples in kept.values() for key in examples)
    per_site = max(1, min(EXAMPLES_PER_SITE, CARDS // max(1, len(compared.sites) * (len(compared.groups) + 1))))
    found: dict[str, list[Overlay]] = {}
    for site in compared.sites:
        for key in [key for key in cases if key[0] == site][:per_site]:
            shown = [(group, kept[group.label][key]) for group in compared.groups if key in kept[group.label]]
            outlined = [
                Outlined(group.label, group.colour, outline(e.prediction), text(100 * e.dice)) for group, e in shown
            ]
            found.setdefault(site, []).append(_overlay(shown[0][1], outlined))
    return found


def _overlay(example: Example, outlined: list[Outlined]) -> Overlay:
    height, width = example.truth.shape
    picture = embedded(Image.fromarray(example.image))
    return Overlay(example.case, picture, width, height, outline(example.truth), outlined)


def _look(site: str, runs: Sequence[Run]) -> str:
    for run in runs:
        path = run.folder / "looks" / f"{site}.png"
        if path.is_file():
            try:
                with Image.open(path) as image:
                    return embedded(image, longest=320)
            except OSError as error:
                raise UserError(f"{path} is not a picture ({error}). Delete it, or run again.") from None
    return ""


def outline(mask: NDArray[np.bool_]) -> str:
    """An SVG path along the pixel edges of a mask (H, W): exactly the mask, nothing smoothed.

    >>> outline(np.array([[True, True]]))
    'M0 0h2M0 1h2M0 0v1M2 0v1'
    """
    padded = np.pad(mask.astype(bool), 1)
    across = padded[1:, 1:-1] != padded[:-1, 1:-1]
    down = padded[1:-1, 1:] != padded[1:-1, :-1]
    path = [f"M{start} {line}h{length}" for line, start, length in _lengths(across)]
    path += [f"M{line} {start}v{length}" for line, start, length in _lengths(down.T)]
    return "".join(path)


def _lengths(edges: NDArray[np.bool_]) -> list[tuple[int, int, int]]:
    """Unbroken stretches of True in every row: (row, first, length)."""
    steps = np.diff(np.pad(edges.astype(np.int8), ((0, 0), (1, 1))), axis=1)
    starts, ends = np.argwhere(steps == 1), np.argwhere(steps == -1)
    return [(int(row), int(first), int(last - first)) for (row, first), (_, last) in zip(starts, ends, strict=True)]
