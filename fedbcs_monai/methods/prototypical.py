"""Prototypical: what methods share that align a feature map with class prototypes of all sites."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.federated.method import (
    Batch,
    Local,
    Method,
    Parcel,
    choose,
    labelled,
    not_negative,
    vectors_of_classes,
)
from fedbcs_monai.networks import TAPS, Segmenter
from fedbcs_monai.prototypes.anchors import ANCHORS, AVERAGES, Anchors, draw_anchors
from fedbcs_monai.prototypes.bank import Prototypes, read_prototypes
from fedbcs_monai.prototypes.pooling import LabelledMap
from fedbcs_monai.tensors import Tensors

PASSES = ("running", "fresh")


@dataclass(frozen=True)
class Prototypical(Method, ABC):
    """A site makes prototypes of its features and aligns anchors among them with those that the server sends back.

    Background is a class of its own. An anchor whose class has no prototype, as all in the first round, adds 0 and
    still counts. The networks are averaged as in `FedAvg`.

    Args:
        weight: of the alignment, >= 0; 0 is FedAvg, and nothing but networks is sent.
        tap: features that are compared: the ``bottleneck``, or the ``penultimate`` map that the last layer reads.
        anchor: what is aligned: random pixels (``pixel``) or the mean of each class in each image (``image_class``).
        anchors_per_class: at most so many random pixels a class and batch; 0: all of them.
        average: of the anchors: within each class and then over ``classes``, or over all ``anchors`` (authors).
        prototype_pass: prototypes from the training passes of the last epoch, ``running``, or from a ``fresh`` pass
            with the trained network.
    """

    weight: float = 1.0
    tap: str = "bottleneck"
    anchor: str = "pixel"
    anchors_per_class: int = 512
    average: str = "classes"
    prototype_pass: str = "running"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("weight", self.weight)
        choose("tap", self.tap, TAPS)
        choose("anchor", self.anchor, ANCHORS)
        not_negative("anchors_per_class", self.anchors_per_class)
        choose("average", self.average, AVERAGES)
        choose("prototype_pass", self.prototype_pass, PASSES)

    @abstractmethod
    def alignment(self, local: Local, anchors: Anchors, known: Prototypes) -> Tensor:
        """The loss of a batch's anchors against the global prototypes, a scalar, its terms recorded."""

    @abstractmethod
    def pool(self, local: Local, feature: LabelledMap) -> None:
        """Add one batch to what the site will send."""

    @abstractmethod
    def pooled(self, local: Local) -> Tensors:
        """What the site sends, by class."""

    def begin(self, local: Local) -> None:
        """Read the global prototypes."""
        local.scratch["known"] = read_prototypes(local.here(local.received.shared))

    def loss(self, local: Local, batch: Batch) -> Tensor:
        """Segmentation loss plus the alignment."""
        if not self.weight:
            return super().loss(local, batch)
        features = local.features(batch)
        loss = local.segmentation(features.logits, batch)
        feature = labelled(features, batch, self.tap)
        if self.prototype_pass == "running" and local.last_epoch:
            self.pool(local, feature)
        known: Prototypes | None = local.scratch["known"]
        if known is None:
            return loss
        anchors = draw_anchors(feature, self.anchor, self.anchors_per_class)
        return loss + self.weight * self.alignment(local, anchors, known)

    def finish(self, local: Local) -> Tensors:
        """Send the prototypes, from another pass if they are to be fresh."""
        if self.weight and self.prototype_pass == "fresh":
            for features, batch in local.survey(local.epochs):
                self.pool(local, labelled(features, batch, self.tap))
        return self.pooled(local)

    def luggage(self, network: Segmenter) -> dict[str, Parcel]:
        """One prototype a class."""
        return vectors_of_classes(network, self.tap)
