"""Known prototypes: read from a broadcast, and what an anchor is compared with."""

import torch

from fedbcs_monai.prototypes.anchors import Anchors
from fedbcs_monai.prototypes.bank import read_prototypes

SHARED = {"10": torch.tensor([[4.0, 0.0]]), "2": torch.tensor([[1.0, 0.0], [0.0, 1.0]])}


def test_classes_are_in_the_order_of_their_numbers():
    known = read_prototypes(SHARED)
    assert known.owners.tolist() == [2, 2, 10]
    assert known.clusters.tolist() == [[1, 0], [0, 1], [4, 0]]
    assert {c: mean.tolist() for c, mean in known.means.items()} == {2: [0.5, 0.5], 10: [4, 0]}


def test_before_the_first_round_there_are_none():
    assert read_prototypes({}) is None


def test_targets_are_the_means_and_a_class_may_lack_one():
    target, there = read_prototypes(SHARED).targets(torch.tensor([10, 0, 2]))
    assert target.tolist() == [[4, 0], [0, 0], [0.5, 0.5]]
    assert there.tolist() == [True, False, True]


def test_distances_are_mean_squares_and_0_without_a_prototype():
    anchors = Anchors(torch.tensor([[4.0, 2.0], [9.0, 9.0]]), torch.tensor([10, 0]))
    assert read_prototypes(SHARED).distances(anchors).tolist() == [2, 0]
