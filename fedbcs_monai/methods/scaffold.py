"""SCAFFOLD: federated averaging with gradients corrected for the drift of each site."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn

from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.method import ClientContext, Method, TensorSpec
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.tensors import Tensors, detached, prefixed, under


@dataclass(frozen=True)
class SCAFFOLD(Method):
    """Correct every gradient by control variates, g + c - c_i (Karimireddy et al., ICML 2020, Algorithm 1).

    A site's c_i is the mean of its gradients over the steps of its last round, the server's c their mean over sites.
    For plain SGD without weight decay c_i is option II of eq. 4, ``c_i - c + (x - y_i) / (K lr)``. That formula
    overrates the gradient by up to 1 / (1 - momentum) with momentum; with Adam it is not a gradient at all; the mean
    stays one, and is corrected before the optimizer makes its step of it. The paper's analysis covers plain SGD.

    In the first round nothing is corrected. Control variates double what is sent, both ways. The server's step is 1,
    and with ``weighting: equal`` all means are the paper's, provided that every site answers in every round; a site
    that misses one is missing from both means.
    """

    def on_round_start(self, client: ClientContext) -> None:
        """Read c, and c_i of the round before."""
        server, own = (client.here(under("control", tensors)) for tensors in (client.received.shared, client.memory))
        client.scratch["correction"] = {name: c - own[name] if name in own else c for name, c in server.items()}
        client.scratch["sums"] = {}

    @torch.no_grad()
    def modify_gradients(self, client: ClientContext) -> None:
        """Add the gradient to the site's sum, then the correction to the gradient (eq. 3)."""
        sums, correction = client.scratch["sums"], client.scratch["correction"]
        for name, parameter in client.network.named_parameters():
            if parameter.grad is not None:
                # A step that overflows in half precision is not made; 0 stands for it.
                sums[name] = sums.get(name, 0) + parameter.grad.nan_to_num(0, 0, 0)
                if name in correction:
                    parameter.grad += correction[name]

    def client_payload(self, client: ClientContext) -> Tensors:
        """Keep and send the mean gradient of the round."""
        sums = client.scratch["sums"]
        means = {
            name: sums.get(name, torch.zeros_like(p)) / client.steps for name, p in trained(client.network).items()
        }
        control = prefixed("control", detached(means))
        client.memory.update(control)
        return control

    def payload(self, network: Segmenter) -> dict[str, TensorSpec]:
        """A control variate for each trained weight; their mean needs all of them."""
        return {f"control/{name}": TensorSpec(tuple(p.shape), needed=True) for name, p in trained(network).items()}

    def aggregate(self, state: State, updates: Iterable[Update]) -> State:
        """Average networks and control variates alike, holding one site's at a time."""
        joined = (replace(update, weights={**update.weights, **update.shared}, shared={}) for update in updates)
        both = super().aggregate(state, joined)
        control = under("control", both.weights)
        weights = {name: tensor for name, tensor in both.weights.items() if not name.startswith("control/")}
        return State(both.round, weights, prefixed("control", control))


def trained(network: Segmenter) -> dict[str, nn.Parameter]:
    """What a loss of the logits reaches, by name: all parameters but those of a fusion."""
    return {name: p for name, p in network.named_parameters() if not name.startswith("fusion.")}
