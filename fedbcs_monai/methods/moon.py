"""MOON: model-contrastive federated learning."""

from dataclasses import dataclass

from monai.networks.utils import eval_mode
from torch import Tensor

from fedbcs_monai.federated.method import Batch, Local, Method, choose, not_negative, positive
from fedbcs_monai.losses.contrastive import model_contrast
from fedbcs_monai.networks import TAPS, features_under, pooled
from fedbcs_monai.tensors import Tensors, detached, prefixed, under


@dataclass(frozen=True)
class MOON(Method):
    """Draw features to those of the global network, and away from the site's own of a round before.

        segmentation + mu * images_mean( -log( exp(s_global) / (exp(s_global) + exp(s_previous)) ) )

    with s the cosine, divided by tau, of an image's features under the weights in training with those under the weights
    received, or under the weights that this site trained in its round before (Li et al., CVPR 2021, eq. 3 and 4). Both
    other networks are frozen and in evaluation mode. In its first round a site has no network of its own yet, and the
    contrast is 0.

    An image's features are the mean of a feature map over its pixels. The paper's projection head is left out: it was
    made for classifiers, whose last layer reads the projection. Mind that most pixels of a picture are background.

    Args:
        mu: weight of the contrast, >= 0; 0 is FedAvg. The paper tries 0.1, 1, 5 and 10.
        tau: temperature, > 0.
        tap: which feature map, ``bottleneck`` or ``penultimate``.
    """

    mu: float = 1.0
    tau: float = 0.5
    tap: str = "bottleneck"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("mu", self.mu)
        positive("tau", self.tau)
        choose("tap", self.tap, TAPS)

    def begin(self, local: Local) -> None:
        """Take out both frozen networks."""
        local.scratch["global"] = local.here(local.received.weights)
        local.scratch["previous"] = local.here(under("previous", local.memory))

    def loss(self, local: Local, batch: Batch) -> Tensor:
        """Segmentation loss plus the model-contrastive loss."""
        if not self.mu or not local.scratch["previous"]:
            return super().loss(local, batch)
        features = local.features(batch)
        frozen = [self.frozen(local, local.scratch[which], batch) for which in ("global", "previous")]
        contrast = model_contrast(pooled(features, self.tap), frozen, self.tau).mean()
        return local.segmentation(features.logits, batch) + self.mu * local.record("contrast", contrast)

    def frozen(self, local: Local, weights: Tensors, batch: Batch) -> Tensor:
        """An image's features under other weights, (B, C), without gradient."""
        with eval_mode(local.network), local.autocast():
            return pooled(features_under(weights, local.network, batch["image"]), self.tap)

    def finish(self, local: Local) -> Tensors:
        """Keep the trained network for the next round."""
        local.memory.update(prefixed("previous", detached(local.network.state_dict())))
        return super().finish(local)
