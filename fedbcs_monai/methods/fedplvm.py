"""FedPLVM: features are contrasted with prototypes that are clustered twice, at the sites and at the server."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.method import ClientContext, TensorSpec, class_vectors, not_negative, positive
from fedbcs_monai.losses.contrastive import class_info_nce, similarities
from fedbcs_monai.methods.prototypical import Prototypical
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.prototypes.anchors import Anchors, draw, pixels_at
from fedbcs_monai.prototypes.bank import Prototypes
from fedbcs_monai.prototypes.clustering import cluster_means, clustered
from fedbcs_monai.prototypes.pooling import LabelledMap, classes_in
from fedbcs_monai.tensors import Tensors, joined

LEAST_COSINE = 1e-4
"""Cosines are raised to alpha from here up: below 0 the power is not a number, and at 0 its slope is infinite."""


@dataclass(frozen=True)
class FedPLVM(Prototypical):
    """Dual-level clustering and an alpha-sparse contrast (Wang et al., NeurIPS 2024).

    A site clusters the pixels of each class in each mini-batch of its last epoch with FINCH and sends every cluster's
    mean; the server clusters what all sites sent for a class, G_c, and u_c is the plain mean of G_c. How many
    prototypes a site sends depends on its data. The loss is

        segmentation + weight * mean over anchors z of class c of
            [ InfoNCE(z; G_c, G_rest) of cos^alpha / tau + 2 (cos(z, u_c) - 1)^2 ]

    An alpha below 1 flattens the cosines near 1, so that features are not crowded around their prototypes. Cosines
    below 1e-4 count as 1e-4, where the authors' code gives NaN: features there are not negative, behind a ReLU.

    The original clusters the features of all images at once, one per image. Here there is one per pixel, hence the
    mini-batches: a handful of clusters from each makes hundreds per site, as in Zhao et al. (AAAI 2026, Table 3).

    The authors' weight lambda is 100, chosen for image classification; beside cross-entropy with Dice it outweighs the
    segmentation and slows it down. Their prototypes are ``fresh``.

    Args:
        alpha: power of the cosine, in (0, 1]; 1 is the plain contrast (authors: 0.25).
        tau: temperature of the contrast, > 0 (authors: 0.07).
        pixels_per_class: maximum number of random pixels per class and batch to cluster, in quadratic time; 0: all.

    The other arguments are those of `Prototypical`.
    """

    alpha: float = 0.25
    tau: float = 0.07
    pixels_per_class: int = 2048

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise UserError(f"alpha is {self.alpha}: it must be more than 0 and at most 1")
        positive("tau", self.tau)
        not_negative("pixels_per_class", self.pixels_per_class)

    # At a site.

    def alignment(self, client: ClientContext, anchors: Anchors, known: Prototypes) -> Tensor:
        """The contrast of the flattened cosines, and the correction that pulls to the mean."""
        flattened = similarities(anchors.vectors, known.clusters).clamp_min(LEAST_COSINE) ** self.alpha
        contrast = class_info_nce(flattened, anchors.classes, known.owners, self.tau)
        target, there = known.targets(anchors.classes)
        correction = 2 * (F.cosine_similarity(anchors.vectors, target) - 1).square() * there
        return client.record("contrast", anchors.mean(contrast, self.average)) + client.record(
            "correction", anchors.mean(correction, self.average)
        )

    def pool(self, client: ClientContext, feature: LabelledMap) -> None:
        """Add the clusters of a batch."""
        client.scratch.setdefault("own", []).append(self.clusters(feature))

    @torch.no_grad()
    def clusters(self, feature: LabelledMap) -> dict[str, Tensor]:
        """Cluster the pixels of each class in one batch, {class: (S, D)}."""
        pixels, found = feature.pixels, {}
        for c in classes_in(pixels):
            drawn = pixels_at(feature.feature, pixels, draw(pixels, [c], self.pixels_per_class))
            found[str(c)] = cluster_means(drawn.vectors.cpu())
        return found

    def pooled(self, client: ClientContext) -> Tensors:
        """The clusters of every batch, {class: (n, D)}."""
        return joined(client.scratch.get("own", []))

    def payload(self, network: Segmenter) -> dict[str, TensorSpec]:
        """Any number of vectors per class."""
        return class_vectors(network, self.feature_layer, -1)

    # At the server.

    def aggregate_payload(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Cluster what all sites sent for a class, {class: (S, D)}."""
        return clustered(update.shared for update in updates)
