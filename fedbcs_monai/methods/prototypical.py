"""Prototypical: base of the methods that align features with class prototypes of all sites."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.federated.method import (
    Batch,
    ClientContext,
    Method,
    TensorSpec,
    choose,
    class_vectors,
    labelled,
    not_negative,
)
from fedbcs_monai.networks import FEATURE_LAYERS, Segmenter
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
        feature_layer: features that are compared: the ``bottleneck``, or the ``penultimate`` map before the last layer.
        anchor: what is aligned: random pixels (``pixel``) or the mean of each class in each image (``image_class``).
        anchors_per_class: maximum number of random pixels per class and batch; 0: all of them.
        average: of the anchors: within each class and then over ``classes``, or over all ``anchors`` (authors).
        prototype_pass: prototypes from the training passes of the last epoch, ``running``, or from a ``fresh`` pass
            with the trained network.
    """

    weight: float = 1.0
    feature_layer: str = "bottleneck"
    anchor: str = "pixel"
    anchors_per_class: int = 512
    average: str = "classes"
    prototype_pass: str = "running"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("weight", self.weight)
        choose("feature_layer", self.feature_layer, FEATURE_LAYERS)
        choose("anchor", self.anchor, ANCHORS)
        not_negative("anchors_per_class", self.anchors_per_class)
        choose("average", self.average, AVERAGES)
        choose("prototype_pass", self.prototype_pass, PASSES)

    @abstractmethod
    def alignment(self, client: ClientContext, anchors: Anchors, known: Prototypes) -> Tensor:
        """The loss of a batch's anchors against the global prototypes, a scalar, its terms recorded."""

    @abstractmethod
    def pool(self, client: ClientContext, feature: LabelledMap) -> None:
        """Add one batch to what the site will send."""

    @abstractmethod
    def pooled(self, client: ClientContext) -> Tensors:
        """What the site sends, by class."""

    def on_round_start(self, client: ClientContext) -> None:
        """Read the global prototypes."""
        client.scratch["known"] = read_prototypes(client.here(client.received.shared))

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss plus the alignment."""
        if not self.weight:
            return super().loss(client, batch)
        features = client.features(batch)
        loss = client.segmentation(features.logits, batch)
        feature = labelled(features, batch, self.feature_layer)
        if self.prototype_pass == "running" and client.last_epoch:
            self.pool(client, feature)
        known: Prototypes | None = client.scratch["known"]
        if known is None:
            return loss
        anchors = draw_anchors(feature, self.anchor, self.anchors_per_class)
        return loss + self.weight * self.alignment(client, anchors, known)

    def client_payload(self, client: ClientContext) -> Tensors:
        """Send the prototypes, from another pass if they are to be fresh."""
        if self.weight and self.prototype_pass == "fresh":
            for features, batch in client.survey(client.epochs):
                self.pool(client, labelled(features, batch, self.feature_layer))
        return self.pooled(client)

    def payload(self, network: Segmenter) -> dict[str, TensorSpec]:
        """One prototype per class."""
        return class_vectors(network, self.feature_layer)
