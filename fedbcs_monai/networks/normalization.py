"""Normalization layers: their tensors, and forward passes without updates of running statistics."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

LAYERS = (_NormBase, nn.GroupNorm, nn.LayerNorm)
"""Batch, instance, group and layer norm; style recalibration is none of them."""


def normalization_tensors(network: nn.Module) -> set[str]:
    """Names of the affine part, running statistics and counters of every normalization layer in a network's state."""
    layers = [(name, module) for name, module in network.named_modules() if isinstance(module, LAYERS)]
    return {f"{name}.{tensor}" for name, layer in layers for tensor in layer.state_dict()}


@contextmanager
def statistics_kept(network: nn.Module) -> Iterator[None]:
    """Batch norm in training mode uses each batch's statistics as ever, but for so long does not keep them."""
    layers = [module for module in network.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    for layer in layers:
        layer.track_running_stats = False
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True
