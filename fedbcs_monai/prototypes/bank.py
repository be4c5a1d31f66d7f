"""Prototype bank: the server's prototypes of every class, as a site receives them."""

from typing import NamedTuple

import torch
from torch import Tensor

from fedbcs_monai.prototypes.anchors import Anchors
from fedbcs_monai.tensors import Tensors


class Prototypes(NamedTuple):
    """Global prototypes.

    Args:
        clusters: cluster means of all classes, (P, D).
        owners: class of each, (P,).
        means: per class the plain mean of its clusters (Zhao et al., AAAI 2026, eq. 14), {class: (D,)}.
    """

    clusters: Tensor
    owners: Tensor
    means: dict[int, Tensor]

    def targets(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """The mean of each anchor's class.

        Args:
            classes: of the anchors, (N,).

        Returns:
            (N, D), zero where a class has no prototypes; and which anchors have some, boolean (N,).
        """
        target = self.clusters.new_zeros(len(classes), self.clusters.shape[1])
        for c, mean in self.means.items():
            target[classes == c] = mean
        return target, torch.isin(classes, self.owners)

    def distances(self, anchors: Anchors) -> Tensor:
        """Mean over the D dimensions of the squared difference between an anchor and the mean of its class.

        Returns:
            (N,), 0 for an anchor whose class has no prototypes.
        """
        target, there = self.targets(anchors.classes)
        return (anchors.vectors - target).square().mean(1) * there


def read_prototypes(shared: Tensors) -> Prototypes | None:
    """Prototypes out of a broadcast, {class: (S, D)}; None when there are none yet."""
    if not shared:
        return None
    classes = {int(name): clusters for name, clusters in sorted(shared.items(), key=lambda x: int(x[0]))}
    owners = [c for c, clusters in classes.items() for _ in clusters]
    joined = torch.cat(list(classes.values()))
    means = {c: clusters.mean(0) for c, clusters in classes.items()}
    return Prototypes(joined, torch.tensor(owners, device=joined.device), means)
