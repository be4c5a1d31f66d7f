"""FedPLVM: features are contrasted with prototypes that are clustered twice, at the sites and at the server."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.losses.contrastive import class_info_nce, similarities
from fedbcs_monai.messages import State, Update
from fedbcs_monai.methods.base import Batch, Local, Method, choose, labelled, not_negative, positive
from fedbcs_monai.networks import TAPS
from fedbcs_monai.prototypes.anchors import ANCHORS, AVERAGES, Anchors, draw, draw_anchors, pixels_at
from fedbcs_monai.prototypes.clustering import cluster_means
from fedbcs_monai.prototypes.known import Prototypes, read_prototypes
from fedbcs_monai.prototypes.pooling import LabelledMap, classes_in
from fedbcs_monai.tensors import Tensors, joined

LEAST_COSINE = 1e-4
"""Cosines are raised to alpha from here up: below 0 the power is not a number, and at 0 its slope is infinite."""


@dataclass(frozen=True)
class FedPLVM(Method):
    """Dual-level clustering and an alpha-sparse contrast (Wang et al., NeurIPS 2024).

    A site clusters the pixels of each class in each mini-batch of its last epoch with FINCH and sends every cluster's
    mean; the server clusters what all sites sent for a class, G_c, and u_c is the plain mean of G_c. How many
    prototypes a site sends depends on its data. The loss is

        segmentation + weight * mean over anchors z of class c of
            [ InfoNCE(z; G_c, G_rest) of cos^alpha / tau + 2 (cos(z, u_c) - 1)^2 ]

    An alpha below 1 flattens the cosines near 1, so that features are not crowded around their prototypes. Cosines
    below 1e-4 count as 1e-4, where the authors' code gives NaN: features there are not negative, behind a ReLU.

    The original clusters the features of all images at once, one an image. Here there is one a pixel, hence the
    mini-batches: a handful of clusters from each makes hundreds a site, as in Zhao et al. (AAAI 2026, Table 3).
    Background is a class of its own. An anchor whose class has no prototype, as all in the first round, adds 0 and
    still counts.

    Args:
        alpha: power of the cosine, in (0, 1]; 1 is the plain contrast (authors: 0.25).
        tau: temperature of the contrast, > 0 (authors: 0.07).
        weight: of both terms, lambda, >= 0; 0 is FedAvg, and nothing but networks is sent. The authors' 100 was chosen
            for image classification; beside cross-entropy with Dice it outweighs the segmentation and slows it down.
        tap: features that are compared: the ``bottleneck``, or the ``penultimate`` map that the last layer reads.
        anchor: what is pulled: random pixels (``pixel``) or the mean of each class in each image (``image_class``).
        anchors_per_class: at most so many random pixels a class and batch; 0: all of them.
        average: of the anchors: within each class and then over ``classes``, or over all ``anchors`` (authors).
        pixels_per_class: at most so many random pixels of a class and batch are clustered, in quadratic time; 0: all.
        prototype_pass: cluster the training passes of the last epoch, ``running``, or a ``fresh`` pass with the trained
            network (authors).
    """

    alpha: float = 0.25
    tau: float = 0.07
    weight: float = 1.0
    tap: str = "bottleneck"
    anchor: str = "pixel"
    anchors_per_class: int = 512
    average: str = "classes"
    pixels_per_class: int = 2048
    prototype_pass: str = "running"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 < self.alpha <= 1:
            raise UserError(f"alpha is {self.alpha}: it must be more than 0 and at most 1")
        positive("tau", self.tau)
        not_negative("weight", self.weight)
        choose("tap", self.tap, TAPS)
        choose("anchor", self.anchor, ANCHORS)
        not_negative("anchors_per_class", self.anchors_per_class)
        choose("average", self.average, AVERAGES)
        not_negative("pixels_per_class", self.pixels_per_class)
        choose("prototype_pass", self.prototype_pass, ("running", "fresh"))

    # At a site.

    def begin(self, local: Local) -> None:
        """Read the global prototypes."""
        local.scratch["known"] = read_prototypes(local.here(local.received.shared))
        local.scratch["own"] = []

    def loss(self, local: Local, batch: Batch) -> Tensor:
        """Segmentation loss, alpha-sparse contrast and correction."""
        if not self.weight:
            return super().loss(local, batch)
        features = local.features(batch)
        loss = local.segmentation(features.logits, batch)
        feature = labelled(features, batch, self.tap)
        if self.prototype_pass == "running" and local.last_epoch:
            local.scratch["own"].append(self.clusters(feature))
        if local.scratch["known"] is None:
            return loss
        anchors = draw_anchors(feature, self.anchor, self.anchors_per_class)
        return loss + self.weight * self.alignment(local, anchors, local.scratch["known"])

    def alignment(self, local: Local, anchors: Anchors, known: Prototypes) -> Tensor:
        """The contrast of the flattened cosines, and the correction that pulls to the mean."""
        flattened = similarities(anchors.vectors, known.clusters).clamp_min(LEAST_COSINE) ** self.alpha
        contrast = class_info_nce(flattened, anchors.classes, known.owners, self.tau)
        target, there = known.targets(anchors.classes)
        correction = 2 * (F.cosine_similarity(anchors.vectors, target) - 1).square() * there
        return local.record("contrast", anchors.mean(contrast, self.average)) + local.record(
            "correction", anchors.mean(correction, self.average)
        )

    @torch.no_grad()
    def clusters(self, feature: LabelledMap) -> dict[str, Tensor]:
        """Cluster the pixels of each class in one batch, {class: (S, D)}."""
        pixels, found = feature.pixels, {}
        for c in classes_in(pixels):
            drawn = pixels_at(feature.feature, pixels, draw(pixels, [c], self.pixels_per_class))
            found[str(c)] = cluster_means(drawn.vectors.cpu())
        return found

    def finish(self, local: Local) -> Tensors:
        """Send the clusters of every batch, {class: (n, D)}."""
        own: list[Tensors] = local.scratch["own"]
        if self.weight and self.prototype_pass == "fresh":
            for features, batch in local.survey(local.epochs):
                own.append(self.clusters(labelled(features, batch, self.tap)))
        return joined(own)

    # At the server.

    def share(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Cluster what all sites sent for a class, {class: (S, D)}."""
        sent = joined(update.shared for update in updates)
        return {c: cluster_means(prototypes) for c, prototypes in sent.items()}
