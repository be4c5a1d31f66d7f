"""FedAvg: federated averaging."""

from dataclasses import dataclass

from fedbcs_monai.federated.method import Method


@dataclass(frozen=True)
class FedAvg(Method):
    """Train at every site, average the networks (McMahan et al., AISTATS 2017, Algorithm 1)."""
