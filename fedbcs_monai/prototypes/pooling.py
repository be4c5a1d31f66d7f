"""Pooling: sums and means of features per class."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

MASKS = ("area", "nearest")


class LabelledMap(NamedTuple):
    """Features of a batch and its label.

    Args:
        feature: (B, D, h, w[, d]).
        label: (B, 1, H, W[, D]), as fine as the image.
        classes: K.
    """

    feature: Tensor
    label: Tensor
    classes: int

    @property
    def pixels(self) -> Tensor:
        """The class of every pixel of the map by nearest, flat: (B * h * w[* d],)."""
        return nearest_classes(self.label, self.feature.shape[2:]).flatten()

    def shares(self, masks: str = "area") -> Tensor:
        """How much of every pixel of the map belongs to each class, (B, K, h, w[, d]); the sum over K is 1.

        Args:
            masks: ``area`` counts all pixels of the label below a pixel of the map, so that a nucleus smaller than
                that is not lost; ``nearest`` reads one.
        """
        grid = self.feature.shape[2:]
        if masks == "nearest":
            return one_hot(self.label, grid, self.classes)
        return F.interpolate(one_hot(self.label, self.label.shape[2:], self.classes), size=grid, mode="area")


class Sums(NamedTuple):
    """Sums of features under masks, and the sums of the masks.

    Args:
        sums: (..., K, D).
        counts: (..., K), in pixels of the map; with area masks not whole numbers.
    """

    sums: Tensor
    counts: Tensor


def classes_in(pixels: Tensor) -> list[int]:
    """The classes that occur, ascending; negative numbers are none."""
    present: list[int] = pixels[pixels >= 0].bincount().nonzero().flatten().tolist()
    return present


def nearest_classes(label: Tensor, grid: Sequence[int]) -> Tensor:
    """Label (B, 1, H, W[, D]) to the class of every pixel of a map, (B, *grid), read by nearest."""
    return F.interpolate(label.float(), size=tuple(grid), mode="nearest")[:, 0].long()


def one_hot(label: Tensor, grid: Sequence[int], classes: int) -> Tensor:
    """Label (B, 1, H, W[, D]) to (B, K, *grid) in float32, read by nearest."""
    return F.one_hot(nearest_classes(label, grid), classes).movedim(-1, 1).float()


def image_sums(feature: Tensor, masks: Tensor) -> Sums:
    """Sums of feature (B, D, *) under masks (B, K, *), image by image: (B, K, D), in float32 or better."""
    dtype = torch.promote_types(torch.float32, feature.dtype)
    weights = masks.flatten(2).to(dtype)
    return Sums(weights @ feature.flatten(2).to(dtype).transpose(1, 2), weights.sum(2))


@torch.no_grad()
def batch_sums(feature: Tensor, masks: Tensor) -> Sums:
    """`image_sums` over all images, (K, D), without gradient."""
    sums, counts = image_sums(feature, masks)
    return Sums(sums.sum(0), counts.sum(0))


class ClassMeans:
    """Running means per class: sums in float64, so memory does not grow and every pixel weighs the same."""

    def __init__(self) -> None:
        self.sums = torch.zeros(1, 1, dtype=torch.float64)
        self.counts = torch.zeros(1, dtype=torch.float64)

    def add(self, sums: Tensor, counts: Tensor) -> None:
        """Add sums (K, D) of a batch and how many were summed, (K,)."""
        self.sums = self.sums + sums.detach().to("cpu", torch.float64)
        self.counts = self.counts + counts.detach().to("cpu", torch.float64)

    def pool(self, labelled: LabelledMap, masks: str = "area") -> None:
        """Add the features of every class of a batch; for masks see `LabelledMap.shares`."""
        self.add(*batch_sums(labelled.feature, labelled.shares(masks)))

    def means(self) -> dict[str, Tensor]:
        """From class to its mean, (D,) in float32; a class that was never seen is absent."""
        return {str(c): (self.sums[c] / self.counts[c]).float() for c in self.counts.nonzero().flatten().tolist()}
