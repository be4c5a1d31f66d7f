"""Synthetic nuclei: H&E tiles in the staining and scanning style of one of five laboratories.

A tile is made in three steps. `lay_tissue` draws the ground: fibres, cytoplasm, cells with their membranes, white gaps.
`draw_blobs` draws everything roundish: nuclei, which are labelled, and red cells, debris and smudges, which are not.
`stain` turns the amounts of dye into colour by Beer and Lambert's law, with the laboratory's own dyes, lamp and camera.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fedbcs_monai.demo.synthetic_texture import Field, noise, ramp

HAEMATOXYLIN, EOSIN, PIGMENT = range(3)
BROWN = (0.35, 0.60, 0.72)


@dataclass(frozen=True)
class Laboratory:
    """How one hospital's tissue, dyes and scanner look.

    Attributes:
        haematoxylin: Optical density of one unit of the blue dye in red, green and blue light.
        eosin: The same for the pink dye.
        white: Transmitted light where there is no tissue, red, green, blue in 0..1.
        radius_px: Mean radius of a nucleus in pixels.
        per_tile: Mean number of nuclei in 256x256 pixels.
        gaps: Share of white gaps in the tissue, 0..1.
        clear: Chance that the cells of a tile are clear: white inside, with a coloured membrane.
        fibrous: Strength of collagen fibres, 0..1.
        vesicular: Share of nuclei with pale centre and dark rim.
        spindle: Share of long thin nuclei.
        blur_px: Standard deviation of the optics' blur.
        noise: Standard deviation of the camera's noise, where white is 1.
        jpeg: JPEG quality, 1..95.
        gamma: Exponent of the camera's response; 1 is linear, above 1 is darker.
    """

    haematoxylin: tuple[float, float, float]
    eosin: tuple[float, float, float]
    white: tuple[float, float, float]
    radius_px: float
    per_tile: float
    gaps: float
    clear: float
    fibrous: float
    vesicular: float
    spindle: float
    blur_px: float
    noise: float
    jpeg: int
    gamma: float = 1.0


LABORATORIES = (
    Laboratory(  # classic pink and purple, large vesicular nuclei
        haematoxylin=(0.95, 1.02, 0.62), eosin=(0.25, 0.66, 0.42), white=(0.97, 0.95, 0.96),
        radius_px=9.0, per_tile=70, gaps=0.08, clear=0.1, fibrous=0.6, vesicular=0.5, spindle=0.2,
        blur_px=0.7, noise=0.015, jpeg=80,
    ),
    Laboratory(  # pale and bluish over beige fibres
        haematoxylin=(0.62, 0.55, 0.27), eosin=(0.09, 0.19, 0.22), white=(0.93, 0.92, 0.91),
        radius_px=8.0, per_tile=40, gaps=0.03, clear=0.0, fibrous=1.0, vesicular=0.5, spindle=0.4,
        blur_px=0.9, noise=0.012, jpeg=70,
    ),
    Laboratory(  # deep purple, crowded, torn
        haematoxylin=(1.25, 1.75, 0.80), eosin=(0.20, 0.66, 0.24), white=(0.99, 0.97, 0.99),
        radius_px=7.0, per_tile=110, gaps=0.25, clear=0.1, fibrous=0.5, vesicular=0.2, spindle=0.25,
        blur_px=0.8, noise=0.03, jpeg=60,
    ),
    Laboratory(  # strongly red, clear cells
        haematoxylin=(1.45, 1.55, 1.10), eosin=(0.25, 1.00, 0.72), white=(0.99, 0.96, 0.97),
        radius_px=6.5, per_tile=50, gaps=0.05, clear=0.85, fibrous=0.4, vesicular=0.25, spindle=0.2,
        blur_px=0.6, noise=0.02, jpeg=75, gamma=1.1,
    ),
    Laboratory(  # almost one dye: purple on lilac, thick and out of focus
        haematoxylin=(0.75, 1.20, 0.16), eosin=(0.12, 0.20, 0.05), white=(0.80, 0.75, 0.87),
        radius_px=10.5, per_tile=28, gaps=0.02, clear=0.0, fibrous=1.0, vesicular=0.3, spindle=0.35,
        blur_px=1.3, noise=0.008, jpeg=85,
    ),
)  # fmt: skip


class Tile(NamedTuple):
    """An image and its mask.

    Attributes:
        image: (H, W, 3) uint8, red, green, blue.
        mask: (H, W) uint8, 255 inside a nucleus, 0 elsewhere.
    """

    image: NDArray[np.uint8]
    mask: NDArray[np.uint8]


class Tissue(NamedTuple):
    """The ground the nuclei lie on.

    Attributes:
        dyes: (3, H, W) amounts of haematoxylin, eosin and pigment; 1 is a typical nucleus, typical cytoplasm.
        gap: (H, W) cover of white gaps, 0..1.
        angle: (H, W) direction of the fibres in radians, from the W axis towards the H axis.
        seeds: (N, 2) centres of the cells, row and column.
    """

    dyes: Field
    gap: Field
    angle: Field
    seeds: Field


class Blob(NamedTuple):
    """One roundish thing: a nucleus, a red cell, a crumb.

    Attributes:
        centre: Row and column.
        radius_px: Radius of the circle of the same area.
        aspect: Length over width, at least 1.
        angle: Direction of the long axis in radians.
        bumps: Complex amplitudes of the contour's harmonics 2, 3, 4, … relative to the radius. Zeros are an ellipse.
        amount: Dye at full cover.
        pallor: 0 is solid, 1 is a dark rim round a pale centre.
        edge_px: Width of the edge; a wide edge is out of focus.
        dye: Which dye: `HAEMATOXYLIN`, `EOSIN` or `PIGMENT`.
        nucleus: Whether it belongs into the mask.
        reader_px: How far outside the contour the reader drew it; no two readers agree on an edge.
    """

    centre: tuple[float, float]
    radius_px: float
    aspect: float
    angle: float
    bumps: NDArray[np.complex128]
    amount: float
    pallor: float
    edge_px: float
    dye: int
    nucleus: bool
    reader_px: float = 0.0


def make_tile(laboratory: Laboratory, rng: np.random.Generator, size: int = 256) -> Tile:
    """Make up one tile of ``size`` x ``size`` pixels."""
    tissue = lay_tissue(laboratory, rng, size)
    dyes, mask = paint(tissue.dyes, draw_blobs(tissue, laboratory, rng), chromatin=noise(rng, (size, size), 1.2))
    return Tile(stain(dyes, laboratory, rng), mask.astype(np.uint8) * 255)


def lay_tissue(laboratory: Laboratory, rng: np.random.Generator, size: int) -> Tissue:
    """Draw fibres, cytoplasm, cells with membranes, and gaps."""
    shape = (size, size)
    clear = rng.random() < laboratory.clear
    fibres, angle = _fibres(rng, size)
    seeds = _scatter(rng, size, spacing_px=(5.0 if clear else 2.6) * laboratory.radius_px)
    membrane, inside = _cells(seeds, rng, size)
    broad, fine = noise(rng, shape, 14.0), noise(rng, shape, 2.0)
    stroma = ramp(noise(rng, shape, 16.0) + 0.2 * fine + 3.0 * (laboratory.fibrous - 0.5), 0.5)

    torn = noise(rng, shape, 12.0) + 0.25 * noise(rng, shape, 3.0) + 0.06 * fine - 0.3 * laboratory.fibrous * fibres
    gap = ramp(torn - np.quantile(torn, 1 - laboratory.gaps), 0.3) * 0.95
    if clear:
        foam = rng.uniform(0.7, 0.95) + 0.12 * fine + 0.2 * broad
        gap = np.maximum(gap, np.clip(foam, 0, 0.97) * (1 - stroma) * ramp(inside - 1.2 + 0.5 * fine, 1.5))

    collagen = stroma * laboratory.fibrous * (0.15 + 0.35 * fibres)
    cytoplasm = 0.70 + 0.15 * broad + 0.10 * fine + 0.08 * noise(rng, shape, 0.7) + 0.4 * (1 - stroma) * membrane
    eosin = np.clip(cytoplasm + collagen, 0.05, None) * (1 - gap)
    basophilia = np.clip(0.08 + 0.12 * noise(rng, shape, 10.0) + 0.03 * fine, 0, None) * (1 - gap)
    return Tissue(np.stack([basophilia, eosin, np.zeros(shape)]), gap, angle, seeds)


def _fibres(rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Draw wavy strands as noise stretched along a bent coordinate: texture of mean 0, and its direction in radians."""
    row, column = np.mgrid[:size, :size].astype(np.float32)
    turn = rng.uniform(0, np.pi)
    bend = 16 * noise(rng, (size, size), 28.0) + 2.5 * noise(rng, (size, size), 7.0)
    along = column * np.cos(turn) + row * np.sin(turn)
    across = row * np.cos(turn) - column * np.sin(turn) + bend
    strands = 0.7 * noise(rng, (size, size), (1.1, 14.0)) + 0.7 * noise(rng, (size, size), (3.5, 30.0))
    texture = ndimage.map_coordinates(strands, [across, along], order=1, mode="grid-wrap")
    down, right = np.gradient(across)
    return texture, np.arctan2(-right, down)


def _scatter(rng: np.random.Generator, size: int, spacing_px: float) -> Field:
    """Draw the centres of cells: a grid of rows shaken by a third of the spacing, (N, 2)."""
    steps = np.arange(0, size + spacing_px, spacing_px)
    grid = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    return grid + rng.normal(0, spacing_px / 3, grid.shape)


def _cells(seeds: Field, rng: np.random.Generator, size: int) -> tuple[Field, Field]:
    """Give every pixel to its nearest seed: membrane between the cells, 0..1, and pixels from it, both (H, W)."""
    row, column = np.clip(np.rint(seeds), 0, size - 1).astype(int).T
    owner = np.zeros((size, size), int)
    owner[row, column] = np.arange(len(seeds)) + 1
    nearest = ndimage.distance_transform_edt(owner == 0, return_distances=False, return_indices=True)
    wobble = np.mgrid[:size, :size] + 2.0 * np.stack([noise(rng, (size, size), 4.0) for _ in range(2)])
    cell = ndimage.map_coordinates(owner[tuple(nearest)], wobble, order=0, mode="nearest")
    border = ndimage.maximum_filter(cell, 2) != ndimage.minimum_filter(cell, 2)
    inside = ndimage.distance_transform_edt(~border)
    return np.exp(-((inside / 1.0) ** 2)), inside


def draw_blobs(tissue: Tissue, laboratory: Laboratory, rng: np.random.Generator) -> list[Blob]:
    """Draw what lies in the tissue, from the bottom to the top: smudges, red cells, nuclei, debris."""
    size = tissue.gap.shape[0]
    area = (size / 256) ** 2
    return [
        *(_smudge(laboratory, rng, size) for _ in range(rng.poisson(14 * area))),
        *_red_cells(rng, size, groups=rng.poisson(1.2 * area)),
        *_nuclei(tissue, laboratory, rng, count=max(3, rng.poisson(laboratory.per_tile * area))),
        *(_crumb(rng, size) for _ in range(rng.poisson(10 * area))),
    ]


def _bumps(rng: np.random.Generator, size: float) -> NDArray[np.complex128]:
    """Draw a contour's harmonics 2 to 6, falling off with their order."""
    return size * rng.normal(size=10).view(np.complex128) / np.arange(2, 7)


def _nuclei(tissue: Tissue, laboratory: Laboratory, rng: np.random.Generator, count: int) -> Iterator[Blob]:
    """Draw nuclei at cell centres or in crowds, long ones along the fibres, touching but seldom covering each other."""
    size = tissue.gap.shape[0]
    crowd = noise(rng, (size, size), 20.0)
    taken = np.empty((0, 3))
    for _ in range(6 * count):
        if len(taken) == count:
            return
        centre = rng.choice(tissue.seeds) if rng.random() < 0.5 else rng.uniform(0, size, 2)
        row, column = np.clip(centre, 0, size - 1).astype(int)
        radius = laboratory.radius_px * rng.lognormal(0, 0.18)
        near = np.hypot(*(taken[:, :2] - centre).T) < rng.uniform(0.7, 1.1) * (taken[:, 2] + radius)
        if near.any() or rng.random() < 0.9 * tissue.gap[row, column] or rng.normal() > crowd[row, column] + 1:
            continue
        taken = np.vstack([taken, [*centre, radius]])
        yield _nucleus(centre, radius, float(tissue.angle[row, column]), laboratory, rng)


def _nucleus(
    centre: NDArray[np.float64], radius: float, fibre: float, laboratory: Laboratory, rng: np.random.Generator
) -> Blob:
    spindle = rng.random() < laboratory.spindle
    vesicular = not spindle and rng.random() < laboratory.vesicular
    return Blob(
        centre=(centre[0], centre[1]),
        radius_px=radius * (0.85 if spindle else 1.15 if vesicular else 0.9),
        aspect=rng.uniform(2.2, 4.0) if spindle else rng.uniform(1.0, 1.6),
        angle=fibre + rng.normal(0, 0.15) if spindle else rng.uniform(0, np.pi),
        bumps=_bumps(rng, 0.08),
        amount=rng.uniform(0.35, 0.9) if vesicular else 0.85 * rng.lognormal(0, 0.4),
        pallor=rng.uniform(0.5, 1.0) if vesicular else rng.uniform(0.0, 0.25),
        edge_px=rng.uniform(1.0, 2.5) + rng.exponential(1.0) * laboratory.blur_px,
        dye=HAEMATOXYLIN,
        nucleus=True,
        reader_px=rng.normal(0.2, 0.11 * radius),
    )


def _smudge(laboratory: Laboratory, rng: np.random.Generator, size: int) -> Blob:
    """A nucleus of another depth, too blurred to be outlined."""
    return Blob(
        centre=(rng.uniform(0, size), rng.uniform(0, size)),
        radius_px=laboratory.radius_px * rng.uniform(0.6, 1.4),
        aspect=rng.uniform(1.0, 2.0),
        angle=rng.uniform(0, np.pi),
        bumps=_bumps(rng, 0.1),
        amount=rng.uniform(0.2, 0.65),
        pallor=rng.uniform(0.0, 0.4),
        edge_px=rng.uniform(3.5, 9),
        dye=HAEMATOXYLIN,
        nucleus=False,
    )


def _red_cells(rng: np.random.Generator, size: int, groups: int) -> Iterator[Blob]:
    for centre in rng.uniform(0, size, (groups, 2)):
        for row, column in centre + rng.normal(0, 9, (rng.integers(2, 9), 2)):
            yield Blob(
                centre=(row, column),
                radius_px=rng.uniform(4.5, 6.5),
                aspect=rng.uniform(1.0, 1.5),
                angle=rng.uniform(0, np.pi),
                bumps=_bumps(rng, 0.05),
                amount=rng.uniform(0.7, 1.2),
                pallor=rng.uniform(0.0, 0.3),
                edge_px=1.2,
                dye=EOSIN,
                nucleus=False,
            )


def _crumb(rng: np.random.Generator, size: int) -> Blob:
    """Debris or pigment: small, dark, angular."""
    return Blob(
        centre=(rng.uniform(0, size), rng.uniform(0, size)),
        radius_px=min(1.0 + rng.exponential(1.3), 5.5),
        aspect=rng.uniform(1.0, 2.5),
        angle=rng.uniform(0, np.pi),
        bumps=_bumps(rng, 0.2),
        amount=rng.uniform(0.6, 1.3),
        pallor=0.0,
        edge_px=1.2,
        dye=PIGMENT if rng.random() < 0.3 else HAEMATOXYLIN,
        nucleus=False,
    )


def paint(ground: Field, blobs: list[Blob], chromatin: Field) -> tuple[Field, NDArray[np.bool_]]:
    """Paint blobs over the ground.

    Args:
        ground: (3, H, W) amounts of dye; not changed.
        blobs: What to paint, bottom first.
        chromatin: (H, W) texture of mean 0 and standard deviation 1 for the insides.

    Returns:
        The new (3, H, W) amounts of dye, and the (H, W) mask of the nuclei.
    """
    dyes, mask = ground.copy(), np.zeros(chromatin.shape, bool)
    for blob in blobs:
        window = _window(blob, chromatin.shape)
        depth = _depth(blob, window)
        cover = ramp(depth, blob.edge_px)
        clumps = 1 + (0.15 + 0.25 * blob.pallor) * chromatin[window]
        rim = np.exp(-(((depth - 1.0) / 1.6) ** 2))
        fill = (1 - blob.pallor) + blob.pallor * (0.30 + 0.55 * rim)
        dyes[:, window[0], window[1]] *= 1 - 0.5 * cover
        dyes[blob.dye][window] += blob.amount * cover * np.clip(fill * clumps, 0, 2)
        if blob.nucleus:
            mask[window] |= depth > -blob.reader_px
    return dyes, mask


def _window(blob: Blob, shape: tuple[int, ...]) -> tuple[slice, slice]:
    reach = 1.5 * blob.radius_px * np.sqrt(blob.aspect) + blob.edge_px + 1
    rows, columns = (
        slice(max(0, int(middle - reach)), max(0, min(length, int(middle + reach) + 1)))
        for middle, length in zip(blob.centre, shape, strict=True)
    )
    return rows, columns


def _depth(blob: Blob, window: tuple[slice, slice]) -> Field:
    """How many pixels inside the contour each pixel of the window lies; negative outside."""
    row, column = np.ogrid[window]
    offset = (column - blob.centre[1] + 1j * (row - blob.centre[0])) * np.exp(-1j * blob.angle)
    stretched = offset.real / np.sqrt(blob.aspect) + 1j * offset.imag * np.sqrt(blob.aspect)
    distance = np.abs(stretched)
    direction = stretched / np.maximum(distance, 1e-6)
    contour = 1 + sum((bump * direction**order).real for order, bump in enumerate(blob.bumps, start=2))
    depth: Field = (blob.radius_px * contour - distance) / blob.aspect**0.25
    return depth


def stain(dyes: Field, laboratory: Laboratory, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn amounts of dye into the laboratory's picture.

    Light falls off exponentially with the optical density, the sum of dye times density per dye (Ruifrok and Johnston,
    2001, eq. 1). Dyes vary from slide to slide, the lamp from place to place.

    Args:
        dyes: (3, H, W) amounts of haematoxylin, eosin and pigment.
        laboratory: Whose dyes, lamp and camera.
        rng: Source of randomness.

    Returns:
        (H, W, 3) uint8.
    """
    density = np.array([laboratory.haematoxylin, laboratory.eosin, BROWN])
    density *= rng.lognormal(0, 0.18, (3, 1)) * rng.lognormal(0, 0.04, (3, 3))
    shape = dyes.shape[1:]
    light = np.exp(-np.einsum("khw,kc->hwc", dyes, density)) * laboratory.white
    light = ndimage.gaussian_filter(light, (laboratory.blur_px, laboratory.blur_px, 0))
    light *= 1 + 0.02 * noise(rng, shape, shape[0] / 4)[..., None]
    light += laboratory.noise * rng.standard_normal(light.shape) * np.sqrt(np.clip(light, 0.05, 1))
    return _jpeg(np.clip(light, 0, 1) ** laboratory.gamma, laboratory.jpeg)


def _jpeg(light: Field, quality: int) -> NDArray[np.uint8]:
    """Round to 8 bits, through the compression of slide scanners."""
    memory = io.BytesIO()
    Image.fromarray(np.rint(255 * light).astype(np.uint8)).save(memory, "jpeg", quality=quality)
    return np.array(Image.open(memory))
