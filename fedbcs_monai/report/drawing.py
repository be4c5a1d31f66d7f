"""Drawing: save a figure with its caption as SVG, PDF and PNG, with reproducible bytes."""

import base64
import io
import math
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from fedbcs_monai.errors import UserError
from fedbcs_monai.files import write_whole
from fedbcs_monai.report.style import RC, WIDTH_IN

COLUMNS = 3
LABEL_WIDTH, TITLE_WIDTH = 20, 30
"""Characters in a line of a row's label, and of a panel's title."""

TIMELESS: dict[str, dict[str, None]] = {
    "svg": dict.fromkeys(("Date", "Creator", "Format", "Type")),
    "pdf": dict.fromkeys(("CreationDate", "Creator", "Producer")),
    "png": {"Software": None},
}
"""Metadata about time and program, left out so that files are reproducible."""

SAID = {"svg": "Description", "pdf": "Subject", "png": "Description"}
"""Where a file holds its caption."""


class Drawing(NamedTuple):
    """A figure, the name of its files, its title, and a caption."""

    key: str
    title: str
    caption: str
    figure: Figure

    @property
    def source(self) -> str:
        """The figure as SVG in a data URI, for the ``src`` of an image."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.encoded("svg")).decode("ascii")

    @property
    def share(self) -> float:
        """How much of a page's width it takes, 0 to 1."""
        return float(self.figure.get_figwidth()) / WIDTH_IN

    def encoded(self, kind: str) -> bytes:
        """The figure as ``svg``, ``pdf`` or ``png``, with its title and caption inside."""
        content = io.BytesIO()
        said: dict[str, Any] = {**TIMELESS[kind], "Title": self.title, SAID[kind]: self.caption}
        with rc_context(RC):
            self.figure.savefig(content, format=kind, metadata=said)
        return content.getvalue()


def finished(key: str, title: str, caption: str, figure: Figure) -> Drawing:
    """A drawing with a fixed layout, identical in every format."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return Drawing(key, title, caption, figure)


def write_figures(folder: Path, drawings: Iterable[Drawing]) -> list[Path]:
    """Write every figure as ``KEY.pdf``, ``KEY.svg`` and ``KEY.png``.

    Raises:
        UserError: the folder cannot be written to.
    """
    written = []
    for drawing in drawings:
        for kind in ("pdf", "svg", "png"):
            path = folder / f"{drawing.key}.{kind}"
            try:
                write_whole(path, drawing.encoded(kind))
            except OSError as error:
                raise UserError(f"{path} cannot be written ({error.strerror}). Name another --figures.") from None
            written.append(path)
    return written


def charts(
    titles: Sequence[str], height_in: float, *, share_y: bool, share_x: bool = True
) -> tuple[Figure, list[Axes]]:
    """An empty figure with a panel under each title, up to three in a row.

    Args:
        titles: of the panels.
        height_in: of a panel, in inches.
        share_y: whether all have the same vertical axis.
        share_x: whether all have the same horizontal axis.
    """
    columns = len(titles) if len(titles) < COLUMNS else 2 if len(titles) == 4 else COLUMNS
    rows = math.ceil(len(titles) / columns)
    width_in = WIDTH_IN if columns > 1 else WIDTH_IN * 0.6
    figure = Figure(figsize=(width_in, rows * height_in + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, sharex=share_x, sharey=share_y, squeeze=False).ravel()
    for axes, title in zip(grid, titles, strict=False):
        axes.set_title(textwrap.fill(title, TITLE_WIDTH))
    for axes in grid[len(titles) :]:
        axes.remove()
    shown = list(grid[: len(titles)])
    for axes in shown[-columns:]:  # what lies below may have been removed
        axes.tick_params(labelbottom=True)
    return figure, shown


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """Rows from the top down, each with its label."""
    axes.set_yticks(range(len(labels)), [textwrap.fill(label, LABEL_WIDTH) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)


def name_axes(shown: Sequence[Axes], x: str, y: str = "") -> None:
    """What the axes measure, once for all panels."""
    figure = shown[0].figure
    figure.supxlabel(x, fontsize=RC["axes.labelsize"], color=RC["axes.labelcolor"])
    if y:
        figure.supylabel(y, fontsize=RC["axes.labelsize"], color=RC["axes.labelcolor"])


def whole_numbers(axes: Axes) -> None:
    """Ticks at whole rounds."""
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def legend(figure: Figure, handles: Sequence[Line2D]) -> None:
    """The key above the panels, in as many columns as its longest label leaves room for."""
    longest = max(len(str(handle.get_label())) for handle in handles)
    columns = max(1, int(figure.get_figwidth() / (0.6 + 0.062 * longest)))
    figure.legend(handles=list(handles), loc="outside upper left", ncols=min(columns, len(handles)), borderaxespad=0.2)
