"""HarmoFL: amplitude normalization of images, and weight perturbation towards flat minima."""

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.method import Batch, ClientContext, Method, not_negative
from fedbcs_monai.networks import AmplitudeNormalization
from fedbcs_monai.networks.normalization import statistics_kept


@dataclass(frozen=True)
class HarmoFL(Method):
    """Normalize the images' amplitudes, and train where the loss is flat (Jiang et al., AAAI 2022).

    Amplitude normalization is a layer of the network (`AmplitudeNormalization`; ``network_def::harmonize`` in a
    configuration), so that it is done wherever the network is used. A site collects its amplitude in the first round;
    it is sent with the weights, averaged like them, and from then on no site changes it.

    Weight perturbation takes two passes per step. The gradient g at the weights w moves them to
    ``w + alpha g / |g|``; the gradient there is what the optimizer steps with, from w. Batch norm keeps the running
    statistics of the first pass.

    The authors weigh all sites equally (``weighting: equal``).

    Args:
        alpha: length of the perturbation, >= 0. With 0, and without the layer, it is FedAvg.
        momentum: share of each batch after the first in the running amplitude of a site, 0 to 1. With 0 the first
            batch's is kept, which is what the authors' code does where it means 0.1.
    """

    alpha: float = 0.05
    momentum: float = 0.1

    network_layers: ClassVar[Mapping[str, Any]] = {"harmonize": {}}

    def __post_init__(self) -> None:
        """Check the fields."""
        super().__post_init__()
        not_negative("alpha", self.alpha)
        if not 0 <= self.momentum <= 1:
            raise UserError(f"momentum is {self.momentum}: it must be 0 to 1")

    def on_round_start(self, client: ClientContext) -> None:
        """Say so if the network leaves images as they are."""
        if not isinstance(client.network.harmonize, AmplitudeNormalization):
            warnings.warn("HarmoFL on a network without amplitude normalization only perturbs weights; set "
                          "network_def::harmonize to {} to have it", stacklevel=2)  # fmt: skip

    def step(self, client: ClientContext, batch: Batch) -> None:
        """One optimizer step from the present weights, with the gradient of perturbed ones."""
        if client.received.round == 1:
            self.collect(client, batch)
        client.optimizer.zero_grad()
        loss = self.loss(replace(client, terms={}), batch)
        client.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        client.scratch["weights"] = perturb(client.network.parameters(), self.alpha)
        with statistics_kept(client.network):
            super().step(client, batch)

    @torch.no_grad()
    def modify_gradients(self, client: ClientContext) -> None:
        """Take the perturbation back."""
        for weight, before in zip(client.network.parameters(), client.scratch["weights"], strict=True):
            weight.copy_(before)

    def collect(self, client: ClientContext, batch: Batch) -> None:
        """Add a batch to the site's amplitude."""
        if isinstance(client.network.harmonize, AmplitudeNormalization):
            client.network.harmonize.collect(batch["image"], self.momentum if client.steps else 1.0)


@torch.no_grad()
def perturb(parameters: Iterable[Tensor], alpha: float) -> list[Tensor]:
    """Move parameters by a step of length alpha along their gradient; returns copies of what they were."""
    weights = list(parameters)
    before = [weight.clone() for weight in weights]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    length = torch.stack([gradient.norm() for gradient in gradients]).norm()
    for weight in weights:
        if weight.grad is not None:
            weight += weight.grad * (alpha / (length + 1e-12))
    return before
