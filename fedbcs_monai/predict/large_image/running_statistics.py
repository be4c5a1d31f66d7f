"""Running statistics: `mask_statistics` computed from a few rows at a time."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


class RunningStatistics:
    """Add rows from the top; read the statistics at the end.

    Args:
        classes: number of classes, background among them.
    """

    def __init__(self, classes: int) -> None:
        self._each = [_OfClass() for _ in range(1, classes)]
        self.rows = self._pixels = self._marked = 0

    def add(self, mask: NDArray[np.uint8], probabilities: NDArray[np.float32]) -> None:
        """Add the next rows: class numbers (N, W) and the probability of every class (K, N, W)."""
        for number, found in enumerate(self._each, start=1):
            found.add(mask == number, probabilities[number], self.rows)
        self.rows += len(mask)
        self._pixels += mask.size
        self._marked += int((mask > 0).sum())

    def statistics(self) -> dict[str, Any]:
        """As `mask_statistics` returns them of a picture."""
        classes = {str(number): found.statistics() for number, found in enumerate(self._each, start=1)}
        return {"foreground_fraction": self._marked / self._pixels, "classes": classes}


class _OfClass:
    """One class: its pixels, its bounding box, and its components, joined across the rows where one part ends."""

    def __init__(self) -> None:
        self.area = 0
        self.probability = 0.0
        self.box: list[list[int]] | None = None
        self.components = 0
        self._parents: list[int] = []
        self._last: NDArray[np.int64] | None = None

    def add(self, part: NDArray[np.bool_], probability: NDArray[np.float32], top: int) -> None:
        self.area += int(part.sum())
        self.probability += float(probability[part].sum(dtype=np.float64))
        self._widen(part, top)
        labels, count = ndimage.label(part, np.ones((3, 3)))
        numbered = np.where(labels > 0, labels.astype(np.int64) - 1 + len(self._parents), -1)
        self._parents += range(len(self._parents), len(self._parents) + count)
        self.components += count
        if self._last is not None:
            self._join(self._last, numbered[0])
        self._last = numbered[-1]

    def statistics(self) -> dict[str, Any]:
        return {
            "area_px": self.area,
            "components": self.components,
            "bounding_box": self.box,
            "mean_probability": self.probability / self.area if self.area else None,
        }

    def _widen(self, part: NDArray[np.bool_], top: int) -> None:
        if not part.any():
            return
        rows, columns = (np.flatnonzero(part.any(axis)) for axis in (1, 0))
        (above, below), (left, right) = self.box or [[top + int(rows[0]), 0], [int(columns[0]), 0]]
        self.box = [
            [above, max(below, top + int(rows[-1]))],
            [min(left, int(columns[0])), max(right, int(columns[-1]))],
        ]

    def _join(self, above: NDArray[np.int64], below: NDArray[np.int64]) -> None:
        """Count as one what touches, also at a corner."""
        wide = np.pad(above, 1, constant_values=-1)
        pairs = np.concatenate([np.stack([wide[at : at + len(below)], below]) for at in range(3)], axis=1)
        for one, other in np.unique(pairs[:, (pairs >= 0).all(0)], axis=1).T.tolist():
            first, second = self._root(one), self._root(other)
            if first != second:
                self._parents[max(first, second)] = min(first, second)
                self.components -= 1

    def _root(self, number: int) -> int:
        while self._parents[number] != number:
            self._parents[number] = self._parents[self._parents[number]]
            number = self._parents[number]
        return number
