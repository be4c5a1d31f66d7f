"""Segmenting a large image: write a tiled mask and its statistics with a few strips in memory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fedbcs_monai.predict.large_image.running_statistics import RunningStatistics
from fedbcs_monai.predict.large_image.streaming import WHOLE, probabilities_of, sliding
from fedbcs_monai.predict.large_image.tiff import rows_of, size_of, write_tiled
from fedbcs_monai.predict.mask_statistics import warnings_of_fraction
from fedbcs_monai.predict.predictor import Predictor
from fedbcs_monai.predict.source import Source

OVERVIEW = 2000  # pixels of the longer side, at most


class LargeImageResult(NamedTuple):
    """The result for a large picture.

    Fields:
        shape: (H, W).
        statistics, warnings: as of a `Prediction`.
        overview: the picture with every n-th row and column.
        mask: of the overview.
    """

    shape: tuple[int, int]
    statistics: dict[str, Any]
    warnings: list[str]
    overview: Source
    mask: NDArray[np.uint8]


def segment_large_image(
    predictor: Predictor,
    path: Path,
    mask: Path,
    probability: Path | None,
    progress: Callable[[float], None],
) -> LargeImageResult:
    """Segment a large TIFF and write its mask, 0 and 255, and if wanted the probability, 0 to 255, as tiled TIFFs.

    Args:
        predictor: for pictures.
        path: of the picture.
        mask: to be written; on the way, that disk needs room for one byte per pixel.
        probability: the same, if wanted.
        progress: receives the fraction that is done.

    Raises:
        UserError: the picture cannot be read in parts, or the model needs more than a part of it.
    """
    height, width = size_of(path)
    step = -(-max(height, width) // OVERVIEW)
    models = [sliding(model) for model in predictor.models]
    running, seen, marked = RunningStatistics(len(models[0].classes)), _Thinned(step), _Thinned(step)
    rows = seen.passing(rows_of(path))
    with TemporaryDirectory(dir=mask.parent, prefix=".fedbcs-") as folder:
        found, likely = Path(folder) / "found", Path(folder) / "likely"
        with found.open("wb") as marks, likely.open("wb") as chances:
            for each in probabilities_of(models, rows, (height, width), path):
                classes, soft = models[0].decide(each), np.asarray(each)
                running.add(classes, soft)
                marked.add(classes)
                marks.write(np.where(classes > 0, 255, 0).astype(np.uint8).tobytes())
                if probability is not None:
                    chances.write(np.round((1 - soft[0]) * 255).astype(np.uint8).tobytes())
                progress(running.rows / height)
        write_tiled(mask, found, (height, width))
        if probability is not None:
            write_tiled(probability, likely, (height, width))
    statistics = predictor.named(running.statistics())
    warnings = warnings_of_fraction(statistics["foreground_fraction"])
    if models != predictor.models:
        warnings.append(f"this model takes pictures whole; over this one a window of {WHOLE} x {WHOLE} pixels was slid")
    overview = Source(path, seen.picture(), None)
    return LargeImageResult((height, width), statistics, warnings, overview, marked.picture())


class _Thinned:
    """Every n-th row and column of what passes."""

    def __init__(self, step: int) -> None:
        self.step = step
        self._kept: list[NDArray[Any]] = []
        self._next = 0

    def add(self, rows: NDArray[Any]) -> None:
        kept = rows[self._next :: self.step, :: self.step]
        self._next = (self._next - len(rows)) % self.step if self._next < len(rows) else self._next - len(rows)
        self._kept.append(np.array(kept))

    def passing(self, parts: Iterator[NDArray[Any]]) -> Iterator[NDArray[Any]]:
        for part in parts:
            self.add(part)
            yield part

    def picture(self) -> NDArray[Any]:
        return np.concatenate(self._kept)
