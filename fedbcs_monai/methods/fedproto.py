"""FedProto: features are pulled to the mean of all sites' prototypes."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.messages import State, Update
from fedbcs_monai.methods.base import Batch, Local, Method, choose, labelled, not_negative
from fedbcs_monai.networks import TAPS
from fedbcs_monai.prototypes.anchors import ANCHORS, AVERAGES, draw_anchors
from fedbcs_monai.prototypes.known import read_prototypes
from fedbcs_monai.prototypes.pooling import MASKS, ClassMeans
from fedbcs_monai.tensors import Tensors, joined


@dataclass(frozen=True)
class FedProto(Method):
    """Pull the features of each class to its global prototype (Tan et al., AAAI 2022, Algorithm 1).

    A site sends the mean feature of each class, the server returns their plain mean T over the sites that have the
    class. The loss is

        segmentation + weight * mean over anchors z and dimensions of (T - z)^2

    Background is a class of its own. An anchor whose class has no prototype, as all in the first round, adds 0 and
    still counts. The original keeps a personal network at every site and shares prototypes alone; here, as in the
    comparison of Zhao et al. (AAAI 2026), the networks are averaged too.

    The squared distance has no scale of its own: how strong a weight is depends on the size of the features.

    Args:
        weight: of the pull, lambda, >= 0; 0 is FedAvg, and nothing but networks is sent (authors: 1).
        tap: features that are compared: the ``bottleneck``, or the ``penultimate`` map that the last layer reads.
        anchor: what is pulled: random pixels (``pixel``) or the mean of each class in each image (``image_class``).
        anchors_per_class: at most so many random pixels a class and batch; 0: all of them.
        average: of the anchors: within each class and then over ``classes``, or over all ``anchors`` (authors).
        masks: whose features a class's mean is: every pixel of the map by its share of the class (``area``), or the
            pixels whose ``nearest`` label it is. By nearest, small objects vanish from a bottleneck.
        prototype_pass: means of the training passes of the last epoch, ``running`` (authors), or of a ``fresh`` pass
            with the trained network.
    """

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
        not_negative("weight", self.weight)
        choose("tap", self.tap, TAPS)
        choose("anchor", self.anchor, ANCHORS)
        not_negative("anchors_per_class", self.anchors_per_class)
        choose("average", self.average, AVERAGES)
        choose("masks", self.masks, MASKS)
        choose("prototype_pass", self.prototype_pass, ("running", "fresh"))

    # At a site.

    def begin(self, local: Local) -> None:
        """Read the global prototypes."""
        local.scratch["known"] = read_prototypes(local.here(local.received.shared))
        local.scratch["own"] = ClassMeans()

    def loss(self, local: Local, batch: Batch) -> Tensor:
        """Segmentation loss plus the distance to the global prototypes."""
        if not self.weight:
            return super().loss(local, batch)
        features = local.features(batch)
        loss = local.segmentation(features.logits, batch)
        own, known = local.scratch["own"], local.scratch["known"]
        feature = labelled(features, batch, self.tap)
        if self.prototype_pass == "running" and local.last_epoch:
            own.pool(feature, self.masks)
        if known is None:
            return loss
        anchors = draw_anchors(feature, self.anchor, self.anchors_per_class)
        distance = anchors.mean(known.distances(anchors), self.average)
        return loss + self.weight * local.record("consistency", distance)

    def finish(self, local: Local) -> Tensors:
        """Send one prototype a class, {class: (D,)}."""
        own: ClassMeans = local.scratch["own"]
        if self.weight and self.prototype_pass == "fresh":
            for features, batch in local.survey(local.epochs):
                own.pool(labelled(features, batch, self.tap), self.masks)
        return own.means()

    # At the server.

    def share(self, state: State, updates: Sequence[Update]) -> Tensors:
        """Plain mean of each class's prototypes, {class: (1, D)}."""
        sent = joined(update.shared for update in updates)
        return {c: prototypes.mean(0, keepdim=True) for c, prototypes in sent.items()}
