"""FPL: features are contrasted with clusters of all sites' prototypes, and pulled to the clusters' mean."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.losses.contrastive import class_info_nce, similarities
from fedbcs_monai.messages import State, Update
from fedbcs_monai.methods.base import Batch, Local, Method, choose, labelled, not_negative, positive
from fedbcs_monai.networks import TAPS
from fedbcs_monai.prototypes.anchors import ANCHORS, AVERAGES, Anchors, draw_anchors
from fedbcs_monai.prototypes.clustering import cluster_means
from fedbcs_monai.prototypes.known import Prototypes, read_prototypes
from fedbcs_monai.prototypes.pooling import MASKS, ClassMeans
from fedbcs_monai.tensors import Tensors, joined


@dataclass(frozen=True)
class FPL(Method):
    """Cluster and unbiased prototypes against domain shift (Huang et al., CVPR 2023, CPCL and UPCR).

    A site sends the mean feature of each class. The server clusters the means of a class with FINCH: P_c are the
    plain means of its clusters, and the mean of these counts every domain the same, however many sites it has. The
    loss is

        segmentation + weight * mean over anchors z of class c of
            [ InfoNCE(z; P_c, P_rest, tau) + mean over dimensions of (z - mean P_c)^2 ]

    Background is a class of its own. An anchor whose class has no prototype, as all in the first round, adds 0 and
    still counts; with prototypes of one class alone there is no contrast. The contrast is a difference of two
    log-sum-exps, where the authors' code exponentiates, which overflows in half precision.

    Args:
        tau: temperature of the contrast, > 0 (authors: 0.02; the benchmark MarsFL: 0.2). Its gradient grows like 1/tau.
        weight: of both terms, >= 0; 0 is FedAvg, and nothing but networks is sent (authors: 1).
        tap: features that are compared: the ``bottleneck``, or the ``penultimate`` map that the last layer reads.
        anchor: what is pulled: random pixels (``pixel``) or the mean of each class in each image (``image_class``).
        anchors_per_class: at most so many random pixels a class and batch; 0: all of them.
        average: of the anchors: within each class and then over ``classes``, or over all ``anchors`` (authors).
        masks: whose features a class's mean is: every pixel of the map by its share of the class (``area``), or the
            pixels whose ``nearest`` label it is. By nearest, small objects vanish from a bottleneck.
        prototype_pass: means of the training passes of the last epoch, ``running``, or of a ``fresh`` pass with the
            trained network (authors).
    """

    tau: float = 0.2
    weight: float = 1.0
    tap: str = "bottleneck"
    anchor: str = "pixel"
    anchors_per_class: int = 512
    average: str = "classes"
    masks: str = "area"
    prototype_pass: str = "running"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        positive("tau", self.tau)
        not_negative("weight", self.weight)
        choose("tap", self.tap, TAPS)
        choose("anchor", self.anchor, ANCHORS)
        not_negative("anchors_per_class", self.anchors_per_class)
        choose("average", self.average, AVERAGES)
        choose("masks", self.masks, MASKS)
        choose("prototype_pass", self.prototype_pass, ("running", "fresh"))

    # At a site.

    def begin(self, local: Local) -> None:
        """Read the global clusters."""
        local.scratch["known"] = read_prototypes(local.here(local.received.shared))
        local.scratch["own"] = ClassMeans()

    def loss(self, local: Local, batch: Batch) -> Tensor:
        """Segmentation loss, contrast and consistency."""
        if not self.weight:
            return super().loss(local, batch)
        features = local.features(batch)
        loss = local.segmentation(features.logits, batch)
        feature = labelled(features, batch, self.tap)
        if self.prototype_pass == "running" and local.last_epoch:
            local.scratch["own"].pool(feature, self.masks)
        if local.scratch["known"] is None:
            return loss
        anchors = draw_anchors(feature, self.anchor, self.anchors_per_class)
        return loss + self.weight * self.alignment(local, anchors, local.scratch["known"])

    def alignment(self, local: Local, anchors: Anchors, known: Prototypes) -> Tensor:
        """Contrast with the clusters (CPCL) and distance to their mean (UPCR)."""
        cosine = similarities(anchors.vectors, known.clusters)
        contrast = class_info_nce(cosine, anchors.classes, known.owners, self.tau)
        consistency = known.distances(anchors)
        return local.record("contrast", anchors.mean(contrast, self.average)) + local.record(
            "consistency", anchors.mean(consistency, self.average)
        )

    def finish(self, local: Local) -> Tensors:
        """Send one prototype a class, {class: (D,)}."""
        own: ClassMeans = local.scratch["own"]
        if self.weight and self.prototype_pass == "fresh":
            for features, batch in local.survey(local.epochs):
                own.pool(labelled(features, batch, self.tap), self.masks)
        return own.means()

    # At the server.

    def share(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Cluster each class's prototypes, {class: (S, D)}."""
        sent = joined(update.shared for update in updates)
        return {c: cluster_means(prototypes) for c, prototypes in sent.items()}
