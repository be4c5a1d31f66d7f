"""FedDyn: federated averaging with dynamic regularization."""

from dataclasses import dataclass

import torch
from torch import Tensor

from fedbcs_monai.federated.method import Batch, ClientContext, Method, not_negative
from fedbcs_monai.losses.penalties import squared_distance
from fedbcs_monai.tensors import Tensors, combine, under


@dataclass(frozen=True)
class FedDyn(Method):
    """Regularize so that the sites agree where the mean of their losses is least (Acar et al., ICLR 2021, Algorithm 1).

    Let v be the sum, over its rounds, of how far a site moved from the weights it received. The paper's linear term,
    the gradient of the site's loss in the round before, is -alpha v, and its server's h is -alpha times the mean of the
    v. So the paper's local loss is, but for a constant,

        segmentation + alpha / 2 * |w - (w_received - v)|^2

    and its server's step, ``mean(w) - h / alpha``, is the mean of ``w + v``. This is what a site sends, and the server
    averages as in FedAvg. These are the paper's numbers with `weighting` ``equal`` when every site answers in every
    round; one that misses a round is missing from the mean. Buffers, such as running statistics, are averaged and not
    moved.

    The argument holds for any optimizer that finds a stationary point of the local loss; few local steps come only near
    one.

    Args:
        alpha: weight of the regularization, >= 0; the paper chooses among 0.001, 0.01 and 0.1. 0 is FedAvg, but what is
            sent does not shrink with alpha: near 0 the global network overshoots.
    """

    alpha: float = 0.01

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("alpha", self.alpha)

    def on_round_start(self, client: ClientContext) -> None:
        """Set the point that the weights are drawn to."""
        parameters = dict(client.network.named_parameters())
        received = client.here({name: client.received.weights[name] for name in parameters})
        drift = client.here(under("drift", client.memory)) or combine(torch.zeros_like, received)
        client.scratch["target"] = combine(torch.sub, received, drift)

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss plus dynamic regularization (eq. 1)."""
        loss = super().loss(client, batch)
        if not self.alpha:
            return loss
        distance = squared_distance(client.network, client.scratch["target"])
        return loss + self.alpha / 2 * client.record("squared_distance", distance)

    @torch.no_grad()
    def client_payload(self, client: ClientContext) -> Tensors:
        """Keep the drift v, and add it to the weights that are sent."""
        if self.alpha:
            for name, parameter in client.network.named_parameters():
                drift: Tensor = parameter - client.scratch["target"][name]
                client.memory[f"drift/{name}"] = drift.to("cpu", copy=True)
                parameter.add_(drift)
        return super().client_payload(client)
