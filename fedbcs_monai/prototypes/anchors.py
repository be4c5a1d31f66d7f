"""Anchors: features of a batch that a loss aligns with prototypes."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.prototypes.pooling import LabelledMap, classes_in, image_sums, one_hot

ANCHORS = ("pixel", "image_class")
AVERAGES = ("classes", "anchors")


class Anchors(NamedTuple):
    """N features and the class of each.

    Args:
        vectors: (N, D) in float32 or better, with gradient.
        classes: (N,).
    """

    vectors: Tensor
    classes: Tensor

    def mean(self, values: Tensor, average: str) -> Tensor:
        """Mean of one value an anchor, (N,).

        Args:
            values: of the anchors; 0 for those that a loss leaves out, which still count.
            average: within each class and then over the ``classes`` that have anchors, so that a small object weighs
                as much as the background; or over all ``anchors``.
        """
        if average == "anchors":
            return values.mean()
        return torch.stack([values[self.classes == c].mean() for c in sorted(set(self.classes.tolist()))]).mean()


def draw_anchors(labelled: LabelledMap, kind: str, most: int) -> Anchors:
    """The anchors of one batch.

    Args:
        labelled: K classes or fewer.
        kind: random pixels of the map, their class read by nearest (``pixel``), or the mean of each class in each
            image, masked by area (``image_class``).
        most: maximum number of random pixels per class; 0: all of them.
    """
    if kind == "image_class":
        return image_anchors(labelled)
    pixels = labelled.pixels
    return pixels_at(labelled.feature, pixels, draw(pixels, classes_in(pixels), most))


def image_anchors(labelled: LabelledMap) -> Anchors:
    """The mean of each class in each image that has it."""
    sums, counts = image_sums(labelled.feature, labelled.shares())
    there = counts > 0
    return Anchors(sums[there] / counts[there][:, None], there.nonzero()[:, 1])


def window_anchors(labelled: LabelledMap, window: int, fraction: float, most: int) -> Anchors:
    """Means over windows of the map that belong to one class.

    Args:
        labelled: K classes or fewer.
        window: side in pixels of the map; a smaller map is one window.
        fraction: share of a window that must be of one class, in (0.5, 1].
        most: maximum number of random windows per class; 0: all of them.
    """
    feature = labelled.feature
    size = tuple(min(window, side) for side in feature.shape[2:])
    pool = F.avg_pool2d if len(size) == 2 else F.avg_pool3d
    share, owner = pool(one_hot(labelled.label, feature.shape[2:], labelled.classes), size).max(1)
    pixels = owner.masked_fill(share < fraction, -1).flatten()
    return pixels_at(pool(feature, size), pixels, draw(pixels, classes_in(pixels), most))


def draw(pixels: Tensor, classes: Sequence[int], most: int) -> Tensor:
    """Flat positions of pixels of some classes, ascending; drawn with torch's own generator.

    Args:
        pixels: class of every pixel of a batch, (n,).
        classes: those whose pixels are wanted.
        most: maximum number of random pixels per class; 0: all of them.
    """
    if not most:
        return torch.isin(pixels, torch.tensor(classes, device=pixels.device)).nonzero().squeeze(1)
    drawn = [pixels.new_zeros(0)]
    for c in classes:
        mine = (pixels == c).nonzero().squeeze(1)
        drawn.append(mine[torch.randperm(len(mine), device=mine.device)[:most]])
    return torch.cat(drawn).sort().values


def pixels_at(feature: Tensor, pixels: Tensor, positions: Tensor) -> Anchors:
    """Pixels of a map (B, D, *) at flat positions in (B, *), with their classes.

    Args:
        feature: (B, D, *).
        pixels: class of every pixel, (n,).
        positions: (N,).
    """
    size = feature[0, 0].numel()
    vectors = feature.flatten(2).transpose(1, 2)[positions // size, positions % size]
    return Anchors(vectors.to(torch.promote_types(torch.float32, vectors.dtype)), pixels[positions])
