"""FedProx: federated averaging with a proximal term."""

from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.federated.method import Batch, ClientContext, Method, not_negative
from fedbcs_monai.losses.penalties import squared_distance


@dataclass(frozen=True)
class FedProx(Method):
    """Keep the local weights near those received (Li et al., MLSys 2020, eq. 2).

        segmentation + mu / 2 * |w - w_received|^2

    over all trained parameters.

    Args:
        mu: weight of the proximal term, >= 0; 0 is FedAvg. The paper chooses among 0.001, 0.01, 0.1 and 1. Later
            comparisons state 0.01, but their published code multiplies it by another 0.01.
    """

    mu: float = 0.01

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("mu", self.mu)

    def on_round_start(self, client: ClientContext) -> None:
        """Hold on to the weights received."""
        client.scratch["received"] = client.here(client.received.weights)

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """Segmentation loss plus the proximal term."""
        loss = super().loss(client, batch)
        if not self.mu:
            return loss
        distance = squared_distance(client.network, client.scratch["received"])
        return loss + self.mu / 2 * client.record("squared_distance", distance)
