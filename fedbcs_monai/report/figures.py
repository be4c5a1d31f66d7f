"""Figures: small SVG charts and outlines of masks, all in the text of the page itself."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

WIDTH, HEIGHT = 320, 190
LEFT, RIGHT, TOP, BOTTOM = 38, 10, 10, 26
LONGEST_LABEL = 13


class Line(NamedTuple):
    """One run in a chart: (x, y) points, its colour, a point to ring (the selected round), whether to draw thin."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str
    dash: str = ""
    ring: tuple[float, float] | None = None
    thin: bool = False


class Strip(NamedTuple):
    """One method in a strip chart: the score of every case, and their mean."""

    label: str
    values: Sequence[float]
    mean: float
    colour: str


class Range(NamedTuple):
    """The ends of an axis and the numbers written on it."""

    low: float
    high: float
    ticks: tuple[float, ...]


def axis(values: Sequence[float], steps: int = 4) -> Range:
    """Round ends and ticks around the finite values.

    >>> axis([0.31, 0.87])
    Range(low=0.2, high=1.0, ticks=(0.2, 0.4, 0.6, 0.8, 1.0))
    """
    finite = [value for value in values if math.isfinite(value)] or [0.0, 1.0]
    low, high = min(finite), max(finite)
    step = _step((high - low) / steps or abs(high) / steps or 1.0)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(index * step, 10) for index in range(first, max(last, first + 1) + 1))
    return Range(ticks[0], ticks[-1], ticks)


def rounds_axis(rounds: Sequence[float], steps: int = 5) -> Range:
    """From the first round to the last, with ticks at round numbers between them.

    >>> rounds_axis([1, 40])
    Range(low=1, high=40, ticks=(10, 20, 30, 40))
    """
    low, high = (min(rounds), max(rounds)) if rounds else (0, 1)
    high = max(high, low + 1)
    step = max(1, math.ceil(_step((high - low) / steps)))
    return Range(low, high, tuple(range(step * math.ceil(low / step), math.floor(high) + 1, step)))


def _step(rough: float) -> float:
    size: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * size for factor in (1, 2, 5, 10) if factor * size >= rough * 0.999)


def line_chart(lines: Sequence[Line], x: Range, y: Range, described: str, named: Sequence[str] = ()) -> Markup:
    """Lines over rounds, or over what the ticks of x are `named`.

    Points that are not finite are left out; a line of one point is a dot.
    """
    parts = [_frame(x, y, named or [f"{tick:g}" for tick in x.ticks])]
    for line in lines:
        points = [(_x(px, x), _y(py, y)) for px, py in line.points if math.isfinite(py)]
        style = Markup('stroke="{}" stroke-dasharray="{}"').format(line.colour, line.dash or "none")
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        if len(points) > 1:
            parts.append(
                Markup('<polyline class="line{}" {} points="{}"><title>{}</title></polyline>').format(
                    " thin" if line.thin else "", style, path, line.label
                )
            )
        elif points:
            parts.append(_dot(*points[0], 2.5, line.colour, line.label))
        if line.ring and math.isfinite(line.ring[1]):
            ring = Markup('<circle class="ring" cx="{:.1f}" cy="{:.1f}" r="3.6" stroke="{}"/>')
            parts.append(ring.format(_x(line.ring[0], x), _y(line.ring[1], y), line.colour))
    return _svg(parts, HEIGHT, described)


def strip_chart(strips: Sequence[Strip], x: Range, described: str) -> Markup:
    """One row a method: a dot for every test case and a bar at their mean."""
    left, row, height = 88, 26, 26 * len(strips) + 30
    parts = []
    for tick in x.ticks:
        at = _x(tick, x, left)
        parts.append(Markup('<line class="grid" x1="{0:.1f}" x2="{0:.1f}" y1="6" y2="{1}"/>').format(at, height - 22))
        parts.append(_text(at, height - 7, f"{tick:g}", "middle"))
    for index, strip in enumerate(strips):
        middle = 18 + row * index
        short = strip.label if len(strip.label) <= LONGEST_LABEL else strip.label[: LONGEST_LABEL - 1] + "…"
        parts.append(_text(left - 8, middle + 4, short, "end"))
        for place, value in enumerate(v for v in strip.values if math.isfinite(v)):
            # Spread the dots over five heights, so that equal scores stay countable.
            parts.append(
                _dot(_x(value, x, left), middle + (place * 2 % 5 - 2) * 2.4, 2.2, strip.colour, f"{value:.1f}", "case")
            )
        if math.isfinite(strip.mean):
            bar = Markup('<line class="mean" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}" stroke="{3}"/>')
            parts.append(bar.format(_x(strip.mean, x, left), middle - 9, middle + 9, strip.colour))
    return _svg(parts, height, described)


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


def _frame(x: Range, y: Range, named: Sequence[str]) -> Markup:
    parts = []
    for tick in y.ticks:
        at = _y(tick, y)
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(LEFT, WIDTH - RIGHT, at, at)
        )
        parts.append(_text(LEFT - 6, at + 3.5, f"{tick:g}", "end"))
    for tick, name in zip(x.ticks, named, strict=True):
        parts.append(_text(_x(tick, x), HEIGHT - 8, name, "middle"))
    return Markup("").join(parts)


def _svg(parts: Sequence[Markup], height: int, described: str) -> Markup:
    opening = Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">')
    return opening.format(WIDTH, height, described) + Markup("").join(parts) + Markup("</svg>")


def _text(x: float, y: float, said: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, said.replace("-", "−"))


def _dot(x: float, y: float, radius: float, colour: str, said: str, kind: str = "dot") -> Markup:
    dot = Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}" fill="{}"><title>{}</title></circle>')
    return dot.format(kind, x, y, radius, colour, escape(said))


def _x(value: float, x: Range, left: int = LEFT) -> float:
    return left + (value - x.low) / (x.high - x.low) * (WIDTH - RIGHT - left)


def _y(value: float, y: Range) -> float:
    return HEIGHT - BOTTOM - (value - y.low) / (y.high - y.low) * (HEIGHT - TOP - BOTTOM)
