"""FedUV: regularizes variance of predictions and uniformity of features, as with IID data."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.federated.method import Batch, ClientContext, Method, choose, not_negative
from fedbcs_monai.losses.penalties import closeness, deviations
from fedbcs_monai.networks import FEATURE_LAYERS, Features, feature_layer, pooled

TARGETS = ("labels", "identity")
POINTS = ("images", "pixels")
PIXELS = 256
"""So many pixels of a batch stand for all: their pairs are what costs."""


@dataclass(frozen=True)
class FedUV(Method):
    """Regularize the classifier's variance and the features' uniformity (Son et al., CVPR 2024).

        segmentation + variance * classes_mean( relu(gamma_c - std(p_c)) )
                     + uniformity * pairs_mean( exp(-|h_i - h_j|^2 / sigma) )

    p_c is the predicted probability of class c at every pixel of a batch, and h_i are features of an image, the mean of
    a feature map over its pixels, or of a pixel. sigma is the median of the squared distances.

    The authors ask of every class the deviation that it has among equally frequent classes. A rare class cannot have
    that much, and is predicted too often for trying; so the default asks for the deviation of the batch's own labels,
    which predictions without error have.

    Args:
        variance: weight of the first term, >= 0.
        uniformity: weight of the second term, >= 0. With both 0 it is FedAvg.
        gamma: the deviations asked for, of the batch's ``labels``, or of the ``identity`` matrix: the root of 1/K for
            each of K classes (authors).
        feature_layer: which feature map, ``bottleneck`` or ``penultimate`` (authors, before a classifier).
        points: whose features are to be uniform: of the batch's ``images``, which says nothing of batches with fewer
            than three, or of at most 256 random ``pixels``.
    """

    variance: float = 2.5
    uniformity: float = 0.5
    gamma: str = "labels"
    feature_layer: str = "bottleneck"
    points: str = "images"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("variance", self.variance)
        not_negative("uniformity", self.uniformity)
        choose("gamma", self.gamma, TARGETS)
        choose("feature_layer", self.feature_layer, FEATURE_LAYERS)
        choose("points", self.points, POINTS)

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss plus both regularizers."""
        if not self.variance and not self.uniformity:
            return super().loss(client, batch)
        features = client.features(batch)
        lacking = client.record("variance", self.lacking_variance(features.logits.float(), batch["label"]))
        close = client.record("uniformity", closeness(self.vectors(features)))
        return client.segmentation(features.logits, batch) + self.variance * lacking + self.uniformity * close

    def lacking_variance(self, logits: Tensor, label: Tensor) -> Tensor:
        """By how much the deviations of the predicted classes fall short, mean over classes, a scalar.

        Args:
            logits: (B, K, *).
            label: (B, 1, *).
        """
        classes = logits.shape[1]
        predicted = logits.softmax(1).movedim(1, -1).flatten(0, -2)
        wanted = F.one_hot(label.flatten().long(), classes) if self.gamma == "labels" else torch.eye(classes)
        return torch.relu(deviations(wanted.to(predicted)) - deviations(predicted)).mean()

    def vectors(self, features: Features) -> Tensor:
        """The features that are to be uniform, (N, C) in float32."""
        if self.points == "images":
            return pooled(features, self.feature_layer)
        pixels = feature_layer(features, self.feature_layer).movedim(1, -1).flatten(0, -2).float()
        return pixels[torch.randperm(len(pixels), device=pixels.device)[:PIXELS]]
