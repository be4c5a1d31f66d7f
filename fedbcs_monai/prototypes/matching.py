"""Gradient matching: optimize points until the last layer's gradient on them matches that on real features."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.prototypes.pooling import LabelledMap, Sums, batch_sums
from fedbcs_monai.tensors import Tensors

METRICS = ("cos", "mse", "signs")


class Layer(NamedTuple):
    """The last layer, or a gradient with respect to it.

    Args:
        weight: W, (K, D).
        bias: b, (K,).
    """

    weight: Tensor
    bias: Tensor


def layer_gradients(logits: Tensor, read: LabelledMap) -> Sums:
    """Sums over the pixels of each class c of the cross-entropy's gradients, (p - e_c) z' and p - e_c.

    Args:
        logits: W z + b, (B, K, *).
        read: z with its label, as fine as the logits.

    Returns:
        (K, K, D) and (K, K), the class first.
    """
    owners = read.shares("nearest")
    residual = logits.to(torch.promote_types(torch.float32, logits.dtype)).softmax(1) - owners
    sums, counts = batch_sums(read.feature, (owners[:, :, None] * residual[:, None]).flatten(1, 2))
    return Sums(sums.reshape(read.classes, read.classes, -1), counts.reshape(read.classes, read.classes))


def layer_of(tensors: Tensors) -> Layer:
    """The layer out of its two parameters, ``name.bias`` and ``name.weight``, in float64."""
    bias, weight = (tensors[name].double() for name in sorted(tensors))
    return Layer(weight.flatten(1), bias)


def first_points(c: int, points: int, dimensions: int) -> Tensor:
    """Where a class's hyper-prototypes start: standard normal, the same in every run."""
    return torch.randn(points, dimensions, generator=torch.Generator().manual_seed(c))


def point_gradient(points: Tensor, c: int, head: Layer) -> Layer:
    """Mean gradient of the cross-entropy with respect to the layer over points (I, D) of class c."""
    residual = (points @ head.weight.T + head.bias).softmax(1)
    residual = residual - F.one_hot(torch.tensor(c), len(head.bias))
    return Layer(residual.T @ points / len(points), residual.mean(0))


def distance(points: Tensor, real: Tensor, metric: str, floor: float = 1e-20) -> Tensor:
    """How far gradients (n, D) are from real ones: a sum over rows, of squares or of one minus the cosine.

    Args:
        points: of the points.
        real: of the sites.
        metric: one of `METRICS`.
        floor: added to the product of two lengths in a cosine. The authors' 1e-6 would hide gradients as small as those
            of a trained network; with ``signs`` it is kept, for without it there is no slope at all.
    """
    if metric == "mse":
        return (points - real).square().sum()
    if metric == "signs":
        return distance(points.reshape(-1, 1), real.reshape(-1, 1), "cos", floor=1e-6)
    cosine: Tensor = (points * real).sum(1) / (points.norm(dim=1) * real.norm(dim=1) + floor)
    return (1 - cosine).sum()


def descend(start: Tensor, loss: Callable[[Tensor], Tensor], rate: float, steps: int) -> Tensor:
    """Plain gradient descent in float64; the result has the type of the start."""
    at = start.double()
    for _ in range(steps):
        at.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(at), at)
        at = at.detach() - rate * gradient
    return at.detach().to(start)
