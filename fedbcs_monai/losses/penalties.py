"""Penalties: distance between weights, and variety of predictions and features."""

import torch
from torch import Tensor, nn

from fedbcs_monai.tensors import Tensors


def squared_distance(network: nn.Module, weights: Tensors) -> Tensor:
    """Sum of the squared differences between a network's parameters and the weights of the same names, a scalar."""
    return torch.stack([(p - weights[name]).square().sum() for name, p in network.named_parameters()]).sum()


def deviations(samples: Tensor) -> Tensor:
    """Standard deviation (unbiased) of each column, (N, K) -> (K,), N > 1; never below 1e-4, where gradients end."""
    return (samples.var(0) + 1e-8).sqrt()


def closeness(vectors: Tensor) -> Tensor:
    """How far vectors are from lying uniformly: the mean of exp(-|a - b|^2 / sigma) over all pairs.

    sigma is the lower median of the squared distances that are not 0, and takes part in the gradient (Son et al., CVPR
    2024, as in the authors' code).

    Args:
        vectors: (N, D).

    Returns:
        a scalar in [0, 1]; 0 without a pair, 1 if all are equal, constant for a single pair
    """
    first, second = torch.triu_indices(len(vectors), len(vectors), 1, device=vectors.device)
    if not len(first):
        return vectors.new_zeros(())
    squares = (vectors[first] - vectors[second]).square().sum(1)
    apart = squares[squares > 0]
    sigma = apart.median().clamp_min(1e-12) if len(apart) else 1.0
    return torch.exp(-squares / sigma).mean()
