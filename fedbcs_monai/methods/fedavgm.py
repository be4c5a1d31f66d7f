"""FedAvgM: federated averaging with momentum from round to round."""

from dataclasses import dataclass

import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.method import ClientContext, Method
from fedbcs_monai.tensors import Tensors, detached, prefixed, under


@dataclass(frozen=True)
class FedAvgM(Method):
    """Go on in the direction of the round before (Hsu et al., 2019, arXiv:1909.06335).

    The paper's server keeps a velocity v and moves the global weights w by it,

        v <- beta v + (mean of the sites' weights - w),    w <- w + v

    so v is how far w moved in the round before. A site sees that for itself: it keeps the weights that it received,
    and adds beta times their change to the weights that it sends. The mean of what is sent is then the paper's new w,
    every server and every transport stays that of FedAvg, and what is not trained, such as running statistics, is
    averaged and never pushed. A site that missed rounds sees their change too, and one that joins pushes a round later.

    Args:
        beta: share of the last move that is made again, 0 to below 1; moves grow up to 1 / (1 - beta) times as long.
            By the default, four sites' mean moves as far as the sum of their moves. 0 is FedAvg.

    Raises:
        UserError: ``beta`` is below 0, or 1 or more.
    """

    beta: float = 0.75

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        if not 0 <= self.beta < 1:
            raise UserError(f"beta is {self.beta}: it must be 0 or more and below 1")

    @torch.no_grad()
    def client_payload(self, client: ClientContext) -> Tensors:
        """Add the momentum to the weights that are sent, and keep those that were received."""
        sent = super().client_payload(client)
        if self.beta:
            received = {name: client.received.weights[name] for name, _ in client.network.named_parameters()}
            before, now = client.here(under("received", client.memory)), client.here(received)
            for name, parameter in client.network.named_parameters():
                if name in before:
                    parameter.add_(now[name] - before[name], alpha=self.beta)
            client.memory.update(prefixed("received", detached(received)))
        return sent
