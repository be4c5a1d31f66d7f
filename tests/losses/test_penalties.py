"""Penalties, worked by hand."""

import math

import pytest
import torch
from torch import nn

from fedbcs_monai.losses.penalties import closeness, deviations, squared_distance


def test_the_squared_distance_is_over_all_parameters():
    network = nn.Linear(2, 1)
    network.load_state_dict({"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])})
    distance = squared_distance(network, {"weight": torch.tensor([[0.0, 4.0]]), "bias": torch.tensor([0.0])})
    assert distance.item() == 1 + 4 + 9
    distance.backward()
    assert (network.weight.grad.tolist(), network.bias.grad.tolist()) == ([[2, -4]], [6])


def test_deviations_are_unbiased_and_have_a_finite_gradient_where_there_is_none():
    samples = torch.tensor([[1.0, 5.0], [3.0, 5.0]], requires_grad=True)
    found = deviations(samples)
    assert found.tolist() == [pytest.approx(math.sqrt(2)), pytest.approx(1e-4)]
    found.sum().backward()
    assert samples.grad[:, 1].tolist() == [0, 0]


def test_closeness_of_three_points_on_a_line():
    # Squared distances 1, 4, 9; their median is 4.
    points = torch.tensor([[0.0], [1.0], [3.0]])
    expected = (math.exp(-1 / 4) + math.exp(-4 / 4) + math.exp(-9 / 4)) / 3
    assert closeness(points).item() == pytest.approx(expected)
    assert closeness(10 * points).item() == pytest.approx(expected)


def test_the_median_leaves_out_pairs_that_coincide():
    # Squared distances 0, 4, 4: the median of those that are not 0 is 4.
    points = torch.tensor([[0.0], [0.0], [2.0]])
    assert closeness(points).item() == pytest.approx((1 + 2 * math.exp(-1)) / 3)


def test_equal_vectors_are_as_close_as_can_be_and_have_a_finite_gradient():
    points = torch.ones(4, 3, requires_grad=True)
    value = closeness(points)
    value.backward()
    assert value.item() == 1
    assert bool((points.grad == 0).all())


def test_a_vector_alone_is_close_to_nothing():
    assert closeness(torch.ones(1, 3)).item() == 0
