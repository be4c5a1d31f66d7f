"""LocalOnly: every site trains alone; the baseline that a federation must beat."""

from dataclasses import dataclass

from fedbcs_monai.federated.method import Method
from fedbcs_monai.networks import Segmenter


@dataclass(frozen=True)
class LocalOnly(Method):
    """Nothing is shared: every site trains a network of its own, from the same start and with as many steps.

    What a federation must beat at each of its sites. There is no global network: a site that did not train has none.
    """

    def private(self, network: Segmenter) -> set[str]:
        """Every tensor of the network."""
        return set(network.state_dict())
