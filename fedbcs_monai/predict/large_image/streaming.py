"""Streaming inference: MONAI's sliding window from top to bottom, with the same probabilities."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.inferers import SimpleInferer, SlidingWindowInferer
from monai.transforms import Compose, Invertd
from monai.utils import BlendMode
from numpy.typing import NDArray
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.model import Mirrored, Model, steps_of
from fedbcs_monai.predict.source import Source

WHOLE = 512
"""Pixels a side of the window for a model that takes pictures whole; the pictures of histology sets have that size."""

_TOO_LARGE = "is too large for memory, and this model"


class Window(NamedTuple):
    """Height of a model's window, and rows from one to the next, as MONAI's `sliding_window_inference` counts them."""

    height: int
    step: int

    def tops(self, rows: int) -> list[int]:
        """The first rows of all windows; the last window ends with the picture."""
        regular = range(0, max(rows - self.height, 0) + self.step, self.step)
        return sorted({max(min(top, rows - self.height), 0) for top in regular})


def sliding(model: Model) -> Model:
    """A model with a window to slide: its own, or one of `WHOLE` pixels where it takes pictures whole."""
    inferer = model.segmentation.inferer
    inner = inferer.inferer if isinstance(inferer, Mirrored) else inferer
    if not isinstance(inner, SimpleInferer):
        return model
    window = SlidingWindowInferer((WHOLE, WHOLE), sw_batch_size=1, overlap=0.25)
    own = Mirrored(window) if isinstance(inferer, Mirrored) else window
    return replace(model, segmentation=replace(model.segmentation, inferer=own))


def window_of(model: Model, path: Path) -> Window:
    """The window that a model slides over pictures.

    Raises:
        UserError: it slides none, weighs its pixels, or decides with more than an argmax: strips would not give the
            mask of the whole picture.
    """
    inferer: Any = model.segmentation.inferer
    inferer = inferer.inferer if isinstance(inferer, Mirrored) else inferer
    if not isinstance(inferer, SlidingWindowInferer) or inferer.mode != BlendMode.CONSTANT:
        raise UserError(f"{path}: {_TOO_LARGE} has no sliding window of constant weight; cut it into pictures")
    if len(model.decision.transforms) > 1:
        raise UserError(f"{path}: {_TOO_LARGE} has postprocessing that needs the whole mask; cut it into pictures")
    height = int(np.broadcast_to(inferer.roi_size, 2)[0])
    overlap = float(np.broadcast_to(inferer.overlap, 2)[0])
    return Window(height, max(int(height * (1 - overlap)), 1))


def probabilities_of(
    models: list[Model], rows: Iterable[NDArray[Any]], size: tuple[int, int], path: Path
) -> Iterator[Tensor]:
    """Mean over the models of the probability of every class, (K, N, W) at a time from the top.

    Args:
        models: of one window, as `sliding` gives them.
        rows: of the picture, from the top, some at a time.
        size: height and width of the picture.
        path: of the picture, for messages.
    """
    window = window_of(models[0], path)
    if any(window_of(model, path) != window for model in models):
        raise UserError(f"{path}: is too large for memory, and these models have different windows; name one model")
    tops = window.tops(size[0])
    open_sums: list[Tensor] = []  # of each model, logits of the rows that a further window may reach
    counts = torch.zeros(0)
    for strip, top, following in zip(_strips(rows, tops, window.height), tops, [*tops[1:], size[0]], strict=True):
        each = [_logits(model, strip, path) for model in models]
        open_sums = [
            _grown(total, logits)
            for total, logits in zip(open_sums or [logits[:, :0] for logits in each], each, strict=True)
        ]
        counts = torch.nn.functional.pad(counts, (0, each[0].shape[1] - len(counts))) + 1
        final = following - top
        means = (total[:, :final] / counts[:final, None] for total in open_sums)
        yield torch.stack([_softened(model, mean) for model, mean in zip(models, means, strict=True)]).mean(0)
        open_sums, counts = [total[:, final:] for total in open_sums], counts[final:]


def _grown(total: Tensor, logits: Tensor) -> Tensor:
    """Sums of the rows that are still open, with a window added."""
    missing = logits.shape[1] - total.shape[1]
    return torch.nn.functional.pad(total, (0, 0, 0, missing)) + logits


def _strips(rows: Iterable[NDArray[Any]], tops: list[int], height: int) -> Iterator[NDArray[Any]]:
    """The windows' full rows, (height, W[, 3])."""
    held: list[NDArray[Any]] = []
    first, parts = 0, iter(rows)
    for top in tops:
        while first + sum(map(len, held)) < top + height:
            part = next(parts, None)
            if part is None:
                break
            held.append(part)
        held, first = [np.concatenate(held)[top - first :]], top
        yield held[0][:height]


def _logits(model: Model, strip: NDArray[Any], path: Path) -> Tensor:
    case = model.segmentation.prepare({"image": Source(path, strip, None).tensor()})
    if case["image"].shape[1:] != strip.shape[:2]:
        raise UserError(f"{path}: {_TOO_LARGE} has preprocessing that changes the size; cut it into pictures")
    with model.trained.compute.inference():
        image = case["image"].as_tensor()[None].to(model.segmentation.device)
        logits: Tensor = model.segmentation.inferer(image, model.trained.network)[0].float().cpu()
    return logits


def _softened(model: Model, logits: Tensor) -> Tensor:
    steps = [step for step in steps_of(model.segmentation.postprocessing) if not isinstance(step, Invertd)]
    soft: Tensor = Compose(steps)({"pred": logits})["pred"]
    return soft
