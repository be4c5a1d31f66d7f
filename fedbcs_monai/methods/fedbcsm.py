"""FedBCSM: FedBCS with momentum from round to round."""

from dataclasses import dataclass

from fedbcs_monai.methods.fedavgm import FedAvgM
from fedbcs_monai.methods.fedbcs import FedBCS


@dataclass(frozen=True)
class FedBCSM(FedAvgM, FedBCS):
    """`FedBCS` whose global network moves with the momentum of `FedAvgM`: our own, of no paper.

    Where a federation stays behind training in one place, most of the gap is that pooled training makes as many
    steps one after the other as all sites make side by side (docs/results.md). Momentum makes up for a part of them,
    at no message more. With ``beta: 0`` it is FedBCS, with ``weight: 0`` FedAvgM, bit for bit.
    """
