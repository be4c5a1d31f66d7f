"""Gradient matching: the published code's numbers, and gradients by definition."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.prototypes.matching import (
    Layer,
    descend,
    distance,
    first_points,
    layer_gradients,
    layer_of,
    point_gradient,
)
from fedbcs_monai.prototypes.pooling import LabelledMap

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "fedhpro.npz")
FLOOR = 1e-6
"""Of the published code's cosines."""


def vector(name: str) -> Tensor:
    return torch.from_numpy(VECTORS[name])


def close(mine: Tensor, theirs: Tensor) -> None:
    """The tolerance of the reference numbers: 1e-4 of the largest."""
    assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-9


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# The published code's numbers.


@pytest.mark.parametrize("scale", [1.0, 0.001])
@pytest.mark.parametrize(("metric", "theirs"), [("signs", "matching"), ("mse", "mse"), ("cos", "cos")])
def test_distances_and_gradients_are_those_of_the_published_code(metric, theirs, scale):
    points = (scale * vector("in_gsyn")).requires_grad_()
    loss = distance(points.mean(0, keepdim=True), scale * vector("in_greal")[None], metric, FLOOR)
    (gradient,) = torch.autograd.grad(loss, points)
    close(loss.detach().double(), vector(f"out_match_{theirs}_s{scale}"))
    wanted = vector(f"out_gmatch_{theirs}_s{scale}")
    if (metric, scale) == ("signs", 1.0):  # the true gradient is next to nothing
        assert (gradient - wanted).abs().max() <= 1e-2 * wanted.abs().max()
    else:
        close(gradient, wanted)


@pytest.mark.parametrize(("metric", "theirs"), [("cos", "matching"), ("mse", "mse")])
def test_distances_of_layers_are_those_of_the_published_code(metric, theirs):
    weight = distance(vector("in_ms0"), vector("in_mr0"), metric, FLOOR)
    bias = distance(vector("in_ms1")[None], vector("in_mr1")[None], metric, FLOOR)
    close((weight + bias).double(), vector(f"out_matchmeta_{theirs}"))


@pytest.mark.parametrize("steps", [1, 30])
@pytest.mark.parametrize(("metric", "theirs"), [("signs", "matching"), ("mse", "mse"), ("cos", "cos")])
def test_hyper_prototypes_move_as_in_the_published_code(metric, theirs, steps):
    head = Layer(vector("in_W").double(), vector("in_b").double())
    moved = []
    for c in (0, 1):
        real = (vector(f"out_grad{c}") + vector(f"out_grad2_{c}")).double()[None] / 2

        def loss(points, c=c, real=real):
            feature = point_gradient(points, c, head).bias @ head.weight / 5  # they divide by the points twice
            return distance(feature[None], real, metric, FLOOR)

        start = vector("in_hp0")[5 * c : 5 * c + 5]
        moved.append(descend(start, loss, 0.1, steps) - start)
    mine, theirs = torch.cat(moved), vector(f"out_hp_{theirs}_r{steps}") - vector("in_hp0")
    if metric == "cos":
        assert max(mine.abs().max(), theirs.abs().max()) < 1e-4
    else:
        assert (mine - theirs).abs().max() <= 1e-3 * theirs.abs().max()


# By definition.


@pytest.mark.parametrize("size", [(5, 4), (3, 4, 2)], ids=str)
def test_the_closed_form_is_the_gradient_of_the_cross_entropy(size):
    read = LabelledMap(random(2, 6, *size), random(2, 1, *size).abs().long().clamp_max(2), 3)
    head = Layer(random(3, 6, seed=1).requires_grad_(), random(3, seed=2).requires_grad_())
    logits = F.linear(read.feature.movedim(1, -1), *head).movedim(-1, 1)
    losses, label = F.cross_entropy(logits, read.label[:, 0], reduction="none"), read.label[:, 0]
    weight, bias = layer_gradients(logits, read)
    for c in range(3):
        wanted = torch.autograd.grad(losses[label == c].sum(), head, retain_graph=True)
        torch.testing.assert_close(weight[c], wanted[0])
        torch.testing.assert_close(bias[c], wanted[1])


def test_the_gradient_on_points_is_that_of_the_cross_entropy():
    head = Layer(random(3, 6, seed=1).requires_grad_(), random(3, seed=2).requires_grad_())
    points = random(5, 6)
    loss = F.cross_entropy(F.linear(points, *head), torch.full((5,), 2))
    torch.testing.assert_close(point_gradient(points, 2, head), Layer(*torch.autograd.grad(loss, head)))


def test_a_layer_is_read_from_its_two_parameters():
    layer = layer_of({"a.last.weight": torch.ones(3, 6, 1, 1), "a.last.bias": torch.zeros(3)})
    assert (layer.weight.shape, layer.bias.shape) == ((3, 6), (3,))


def test_equal_gradients_have_no_distance_whatever_their_size():
    gradient = 1e-5 * random(3, 6)
    assert distance(gradient, gradient, "mse") == 0
    assert distance(gradient, 7 * gradient, "cos") == pytest.approx(0, abs=1e-9)
    assert distance(gradient, -gradient, "cos") == pytest.approx(6)


def test_descent_goes_down_the_slope_and_leaves_its_start_alone():
    start = torch.tensor([4.0])
    assert descend(start, lambda at: 0.5 * at.square().sum(), rate=0.5, steps=2).tolist() == [1]
    assert descend(start, lambda at: at.sum(), rate=0.5, steps=0).tolist() == start.tolist() == [4]


def test_points_start_alike_in_every_run_and_apart_in_every_class():
    assert torch.equal(first_points(1, 5, 4), first_points(1, 5, 4))
    assert not torch.equal(first_points(0, 5, 4), first_points(1, 5, 4))
