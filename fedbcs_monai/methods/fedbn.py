"""FedBN: federated averaging of all but the normalization layers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.method import ClientContext, Method
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.networks.normalization import normalization_tensors


@dataclass(frozen=True)
class FedBN(Method):
    """Every site keeps its own normalization layers (Li et al., ICLR 2021, Algorithm 1).

    The paper has batch norm, whose running statistics and affine part stay at the site. Of group and instance norm it
    is the affine part alone. The global network has these tensors as they were at the start: it is complete only at a
    site that has trained.
    """

    network_layers: ClassVar[Mapping[str, Any]] = {"norm": "batch"}

    def on_round_start(self, client: ClientContext) -> None:
        """Refuse a network of which nothing would be kept."""
        if not self.private(client.network):
            raise UserError("FedBN needs normalization layers with tensors: set network_def::norm to batch")

    def private(self, network: Segmenter) -> set[str]:
        """The tensors of the normalization layers."""
        return normalization_tensors(network)
