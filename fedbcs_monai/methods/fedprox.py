"""FedProx: federated averaging with a proximal term."""

from dataclasses import dataclass

from torch import Tensor

from fedbcs_monai.federated.method import Batch, Local, Method, not_negative
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

    def begin(self, local: Local) -> None:
        """Hold on to the weights received."""
        local.scratch["received"] = local.here(local.received.weights)

    def loss(self, local: Local, batch: Batch) -> Tensor:
        """Segmentation loss plus the proximal term."""
        loss = super().loss(local, batch)
        if not self.mu:
            return loss
        distance = squared_distance(local.network, local.scratch["received"])
        return loss + self.mu / 2 * local.record("squared_distance", distance)
