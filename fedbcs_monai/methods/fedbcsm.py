"""FedBCSM: FedBCS with momentum from round to round."""

from dataclasses import dataclass

from fedbcs_monai.methods.fedavgm import FedAvgM
from fedbcs_monai.methods.fedbcs import FedBCS


@dataclass(frozen=True)
class FedBCSM(FedAvgM, FedBCS):
    """`FedBCS` whose global network moves with the momentum of `FedAvgM`: our own, of no paper.

    A site makes its steps beside those of the other sites, pooled training makes all of them one after the other.
    Momentum makes up for a part of that where rounds are few, at no message more; docs/results.md has what it gained.
    With ``beta: 0`` this is FedBCS, with ``weight: 0`` FedAvgM, bit for bit.
    """
