"""Prototype map: the class prototypes at the end of a run, projected to two dimensions."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from fedbcs_monai.report.drawing import Drawing, charts, finished, legend
from fedbcs_monai.report.style import COLOURS, INK, RC, SOFT
from fedbcs_monai.report.summary import Comparison
from fedbcs_monai.runs.prototypes import KeptPrototypes, read_kept_prototypes
from fedbcs_monai.runs.reader import Run
from fedbcs_monai.tensors import Tensors

MARKERS = ("o", "^", "s", "D", "v", "P")
"""Of the classes."""

CLASSES = ("background", "structure")
"""Class names where a run states none."""

CAPTION = (
    "Each mark is a vector that describes a class, scaled to unit length and projected on the first two principal "
    "components of its panel; in brackets their share of the variance. Nearness in two dimensions is a hint, not a "
    "measure."
)
SENT = "Coloured: what every site sent last. Hollow: what the server made of it."
KEPT = "What the server held after the last round; this run keeps none of single sites."


class Dot(NamedTuple):
    """A prototype: the site that it is of ("" for the server's), its class, and the vector (D,)."""

    site: str
    label: int
    vector: NDArray[np.float64]


@rc_context(RC)
def prototype_map(compared: Comparison) -> Drawing | None:
    """A panel for every method, and for every place in the network that its prototypes are of.

    A method with several runs is shown by its first.
    """
    found: dict[str, list[Dot]] = {}
    for group in compared.groups:
        kept = read_kept_prototypes(group.runs[0].folder) if group.runs[0].summary else None
        for place, dots in dots_of(kept, group.runs[0]).items() if kept else ():
            if len(dots) > 2:
                found[f"{group.label}, {place}" if place else group.label] = dots
    if not found:
        return None
    figure, shown = charts(list(found), 1.9, share_y=False, share_x=False)
    for axes, dots in zip(shown, found.values(), strict=True):
        draw_map(axes, dots, compared.sites)
    every = [dot for dots in found.values() for dot in dots]
    of_sites = {dot.site for dot in every if dot.site}
    labels = sorted({dot.label for dot in every})
    names = compared.groups[0].runs[0].config.get("classes") or CLASSES
    keys = [
        Line2D([], [], linestyle="", marker="o", color=colour_of(site, compared.sites), label=site)
        for site in compared.sites
        if site in of_sites
    ]
    keys += [
        Line2D([], [], linestyle="", marker=MARKERS[n % len(MARKERS)], color=SOFT, label=class_name(n, names))
        for n in labels
    ]
    legend(figure, keys)
    return finished("prototypes", "Class prototypes", f"{CAPTION} {SENT if of_sites else KEPT}", figure)


def dots_of(kept: KeptPrototypes, run: Run) -> dict[str, list[Dot]]:
    """The finite prototypes by the place in the network that they are of; "" for a method with one place."""
    found: dict[str, list[Dot]] = {}
    sources: Mapping[str, Tensors] = {**kept.sites, "": kept.server}
    for source, tensors in sources.items():
        for name, label, vector in _vectors(tensors):
            relayed = name in run.sites  # under a site's name: the server passes on what that site sent
            if not (relayed and kept.sites) and np.isfinite(vector).all() and vector.any():
                found.setdefault("" if relayed else name, []).append(Dot(name if relayed else source, label, vector))
    return found


def project(vectors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Unit vectors on their first two principal components.

    Args:
        vectors: (n, D), n >= 2, none of them zero.

    Returns:
        Coordinates (n, 2), of each component with its largest one positive, and the shares of the variance (2,).
    """
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    left, sizes, _ = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    flat = np.zeros((len(vectors), 2))
    flat[:, : sizes.size] = (left * sizes)[:, :2]
    flat *= np.where(flat[np.abs(flat).argmax(0), [0, 1]] < 0, -1, 1)
    shares = np.zeros(2)
    total = float(np.square(sizes).sum())
    shares[: sizes.size] = np.square(sizes)[:2] / total if total else 0
    return flat, shares


def draw_map(axes: Axes, dots: Sequence[Dot], sites: Sequence[str]) -> None:
    """The dots of one panel; those of the server are hollow and lie on top."""
    flat, shares = project(np.stack([dot.vector for dot in dots]))
    size = 5 if len(dots) < 60 else 3
    for dot, (x, y) in zip(dots, flat, strict=True):
        marker = MARKERS[dot.label % len(MARKERS)]
        if dot.site:
            axes.plot([x], [y], marker, color=colour_of(dot.site, sites), markersize=size, markeredgewidth=0, alpha=0.9)
        else:
            axes.plot([x], [y], marker, markersize=size + 2.5, markerfacecolor="none", markeredgecolor=INK,
                      markeredgewidth=0.8)  # fmt: skip
    axes.set_xlabel(f"Component 1 ({100 * shares[0]:.0f}%)")
    axes.set_ylabel(f"Component 2 ({100 * shares[1]:.0f}%)")
    axes.margins(0.12)


def colour_of(site: str, sites: Sequence[str]) -> str:
    """A site's colour."""
    return COLOURS[list(sites).index(site) % len(COLOURS)] if site in sites else SOFT


def class_name(label: int, names: Sequence[str]) -> str:
    """What a class is called."""
    return names[label] if label < len(names) else f"class {label}"


def _vectors(tensors: Tensors) -> Iterator[tuple[str, int, NDArray[np.float64]]]:
    """Every prototype with the place and the class in its name."""
    for name, tensor in tensors.items():
        place, _, label = name.rpartition("/")
        for vector in tensor.reshape(math.prod(tensor.shape[:-1]), tensor.shape[-1]):
            yield place, int(label), vector.double().numpy()
