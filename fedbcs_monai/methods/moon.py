"""MOON: model-contrastive federated learning."""

from dataclasses import dataclass

from monai.networks.utils import eval_mode
from torch import Tensor

from fedbcs_monai.federated.method import Batch, ClientContext, Method, choose, not_negative, positive
from fedbcs_monai.losses.contrastive import model_contrast
from fedbcs_monai.networks import FEATURE_LAYERS, features_under, pooled
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
        feature_layer: which feature map, ``bottleneck`` or ``penultimate``.
    """

    mu: float = 1.0
    tau: float = 0.5
    feature_layer: str = "bottleneck"

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("mu", self.mu)
        positive("tau", self.tau)
        choose("feature_layer", self.feature_layer, FEATURE_LAYERS)

    def on_round_start(self, client: ClientContext) -> None:
        """Take out both frozen networks."""
        client.scratch["global"] = client.here(client.received.weights)
        client.scratch["previous"] = client.here(under("previous", client.memory))

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss plus the model-contrastive loss."""
        if not self.mu or not client.scratch["previous"]:
            return super().loss(client, batch)
        features = client.features(batch)
        frozen = [self.frozen(client, client.scratch[which], batch) for which in ("global", "previous")]
        contrast = model_contrast(pooled(features, self.feature_layer), frozen, self.tau).mean()
        return client.segmentation(features.logits, batch) + self.mu * client.record("contrast", contrast)

    def frozen(self, client: ClientContext, weights: Tensors, batch: Batch) -> Tensor:
        """An image's features under other weights, (B, C), without gradient."""
        with eval_mode(client.network), client.autocast():
            return pooled(features_under(weights, client.network, batch["image"]), self.feature_layer)

    def client_payload(self, client: ClientContext) -> Tensors:
        """Keep the trained network for the next round."""
        client.memory.update(prefixed("previous", detached(client.network.state_dict())))
        return super().client_payload(client)
