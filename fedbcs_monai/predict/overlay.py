"""Overlay: a mask's outline on its image in radiological orientation, with marks and scale."""

from typing import NamedTuple

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from fedbcs_monai.predict.source import Source

SLICES = 12
COLUMNS = 4
CELL = 300  # pixels of a slice's longer side
PICTURE = (800, 2000)  # the longer side of a picture is brought between these
OUTLINE = (255, 230, 0)
WIDTH = 2  # of the outline, inside the mask
GAP = 6
FOOTER = 40
LETTERS = ("LR", "PA", "IS")  # of the negative and positive ends of x, y and z in RAS
_OBLIQUE = 0.25  # a direction names a second axis that it leans to by more than its sine of 15 degrees


class View(NamedTuple):
    """How slices along the last axis are turned for display: R at the left, A or S at the top.

    Fields:
        vertical, horizontal: array axes.
        flips: whether each of these two is reversed.
        marks: the patient's direction at the left, right, top and bottom.
        spacing_mm: of rows, of columns.
    """

    vertical: int
    horizontal: int
    flips: tuple[bool, bool]
    marks: tuple[str, str, str, str]
    spacing_mm: tuple[float, float]

    def turned(self, plane: NDArray[np.generic]) -> NDArray[np.generic]:
        """A slice as rows and columns of the display."""
        plane = plane if self.vertical == 0 else plane.T
        return plane[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1]


def overlay(source: Source, mask: NDArray[np.uint8]) -> Image.Image:
    """The image with the outline of everything that is not background.

    Of a volume up to twelve slices with a prediction, evenly chosen; where there is none, the middle ones. Millimetres
    are square whatever the voxels are.
    """
    if source.affine is None:
        height, width = mask.shape
        low, high = PICTURE
        scale = min(max(1.0, low / max(height, width)), high / max(height, width))
        picture = source.array if source.array.ndim == 3 else _grey(source.array)
        return _outlined(picture, mask > 0, (round(width * scale), round(height * scale)))
    return _montage(source.array, mask > 0, view_of(source.affine))


def view_of(affine: NDArray[np.float64]) -> View:
    """How to turn the slices of a volume with this affine to RAS."""
    axes = nib.orientations.io_orientation(affine)
    vertical, horizontal = sorted((0, 1), key=lambda axis: -axes[axis, 0])
    flips = bool(axes[vertical, 1] > 0), bool(axes[horizontal, 1] > 0)
    down, right = (
        affine[:3, axis] * (-1 if flip else 1) for axis, flip in zip((vertical, horizontal), flips, strict=True)
    )
    marks = direction(-right), direction(right), direction(-down), direction(down)
    return View(vertical, horizontal, flips, marks, (float(np.linalg.norm(down)), float(np.linalg.norm(right))))


def direction(vector: NDArray[np.float64]) -> str:
    """The patient's directions that a vector in RAS points to, the main one first.

    >>> direction(np.array([-1.0, 0, 0])), direction(np.array([0, 0.9, -0.4]))
    ('L', 'AI')
    """
    unit = vector / np.linalg.norm(vector)
    order = [axis for axis in np.argsort(-np.abs(unit), kind="stable") if abs(unit[axis]) > _OBLIQUE]
    return "".join(LETTERS[axis][int(unit[axis] > 0)] for axis in order)


def chosen_slices(mask: NDArray[np.bool_]) -> list[int]:
    """Slices of the last axis to show."""
    depth = mask.shape[-1]
    marked = np.flatnonzero(mask.any((0, 1)))
    if not marked.size:
        first = max(0, (depth - SLICES) // 2)
        return list(range(first, min(depth, first + SLICES)))
    at = np.linspace(0, len(marked) - 1, min(SLICES, len(marked)))
    return [int(marked[round(place)]) for place in at]


def _montage(array: NDArray[np.generic], mask: NDArray[np.bool_], view: View) -> Image.Image:
    slices = chosen_slices(mask)
    grey = _grey(array[..., slices])
    rows, columns = view.turned(mask[..., 0]).shape
    size_mm = columns * view.spacing_mm[1], rows * view.spacing_mm[0]
    per_mm = CELL / max(size_mm)
    width, height = (max(1, round(side * per_mm)) for side in size_mm)
    across = min(COLUMNS, len(slices))
    down = -(-len(slices) // across)
    sheet = Image.new("RGB", (max(across * (width + GAP) + GAP, 2 * CELL), down * (height + GAP) + GAP + FOOTER))
    for n, at in enumerate(slices):
        cell = _outlined(view.turned(grey[..., n]), view.turned(mask[..., at]), (width, height))
        _mark(cell, view.marks, f"{at + 1}/{mask.shape[-1]}")
        sheet.paste(cell, (GAP + n % across * (width + GAP), GAP + n // across * (height + GAP)))
    marked = int(mask.any((0, 1)).sum())
    note = f"{len(slices)} of {marked} slices with prediction" if marked else "no prediction: the middle slices"
    _footer(sheet, per_mm, note)
    return sheet


def _grey(array: NDArray[np.generic]) -> NDArray[np.uint8]:
    """8 bits between the 1st and 99th percentile."""
    values = array.astype(np.float64)
    low, high = np.percentile(values, [1, 99])
    grey: NDArray[np.uint8] = np.round(((values - low) / max(high - low, 1e-9)).clip(0, 1) * 255).astype(np.uint8)
    return grey


def _outlined(picture: NDArray[np.generic], mask: NDArray[np.generic], size: tuple[int, int]) -> Image.Image:
    """A picture (H, W) or (H, W, 3) of 8 bits at `size` (width, height), with the outline of its mask."""
    pixels = Image.fromarray(np.ascontiguousarray(picture)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    area = Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).resize(size, Image.Resampling.BOX)
    inside = np.asarray(area) >= 128
    edge = inside & ~ndimage.binary_erosion(inside, iterations=WIDTH)
    coloured = np.array(pixels)
    coloured[edge] = OUTLINE
    return Image.fromarray(coloured)


def _mark(cell: Image.Image, marks: tuple[str, str, str, str], number: str) -> None:
    width, height = cell.size
    places = (
        (4, height // 2, "lm"),
        (width - 4, height // 2, "rm"),
        (width // 2, 2, "mt"),
        (width // 2, height - 3, "mb"),
    )
    for mark, (x, y, anchor) in zip(marks, places, strict=True):
        _write(cell, (x, y), mark, anchor, 18)
    _write(cell, (4, 2), number, "lt", 14)


def _footer(sheet: Image.Image, per_mm: float, note: str) -> None:
    length_mm = next((mm for mm in (100, 50, 20, 10, 5, 2, 1) if mm * per_mm <= CELL / 3), 0.5)
    y, x = sheet.height - FOOTER // 2, GAP + 4
    ImageDraw.Draw(sheet).line([(x, y), (x + round(length_mm * per_mm), y)], fill="white", width=3)
    _write(sheet, (x + round(length_mm * per_mm) + 10, y), f"{length_mm:g} mm", "lm", 16)
    _write(sheet, (sheet.width - GAP - 4, y), note, "rm", 16)


def _write(picture: Image.Image, at: tuple[int, int], text: str, anchor: str, size: int) -> None:
    ImageDraw.Draw(picture).text(
        at, text, "white", ImageFont.load_default(size), anchor, stroke_width=2, stroke_fill="black"
    )
