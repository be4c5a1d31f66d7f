"""VolumeSegmenter: applies a 2-D network to every slice of a volume, for hosts that expect a 3-D network."""

from typing import Any

import torch
from torch import Tensor, nn


class VolumeSegmenter(nn.Module):
    """Segment every slice of a volume, its neighbours as channels, and stack the logits.

    The numbers are those of `NeighbouringSlicesInferer`, in a form that scripts and exports with any size and batch.
    The weights have the names that they have in the 2-D network, so that one file serves both.

    Args:
        network: from (N, slices, H, W) to logits (N, K, H, W).
        slices: the slice and its neighbours, odd; beyond an end the end is repeated.
        at_once: the most slices in one batch, which is as even as can be and never mixes volumes. An exported graph,
            which knows no loops, takes all slices at once.
    """

    def __init__(self, network: nn.Module, slices: int = 3, at_once: int = 16) -> None:
        super().__init__()
        self.network = network
        self.slices = slices
        self.at_once = at_once
        self.register_state_dict_post_hook(_without_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_with_prefix)  # type: ignore[no-untyped-call]

    def forward(self, volume: Tensor) -> Tensor:
        """(B, 1, H, W, D) -> logits (B, K, H, W, D)."""
        stack = volume[:, 0].movedim(-1, 1)
        depth = stack.shape[1]
        reach = torch.arange(self.slices, device=volume.device) - self.slices // 2
        window = torch.arange(depth, device=volume.device)[:, None] + reach
        windows = stack[:, window.clamp(0, depth - 1)]
        if not torch.jit.is_scripting() and torch.compiler.is_compiling():  # type: ignore[attr-defined]
            logits = self.network(windows.flatten(0, 1))
        else:
            parts: list[Tensor] = []
            for one in windows.unbind(0):
                for part in one.tensor_split(-(-depth // self.at_once)):
                    parts.append(self.network(part))
            logits = torch.cat(parts)
        stacked: Tensor = logits.unflatten(0, (volume.shape[0], depth)).movedim(1, -1)
        return stacked


def over_volumes(network: nn.Module, slices: int = 0, at_once: int = 16) -> nn.Module:
    """The network of a whole image: a `VolumeSegmenter` of neighbouring slices; with 0 slices the network itself."""
    return VolumeSegmenter(network, slices, at_once) if slices else network


def _without_prefix(module: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    for name in [name for name in state if name.startswith(f"{prefix}network.")]:
        state[prefix + name.removeprefix(f"{prefix}network.")] = state.pop(name)


def _with_prefix(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    for name in [name for name in state if name.startswith(prefix)]:
        state[f"{prefix}network.{name.removeprefix(prefix)}"] = state.pop(name)
