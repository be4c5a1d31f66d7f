"""Anchors: of the right class, at most so many, drawn by torch's own generator, and averaged as asked."""

import pytest
import torch

from fedbcs_monai.prototypes.anchors import Anchors, draw, draw_anchors, window_anchors
from fedbcs_monai.prototypes.pooling import LabelledMap


def numbered(*size, classes=3):
    """A map whose two channels are the number of the pixel and its class."""
    label = torch.randint(classes, (2, 1, *size), generator=torch.Generator().manual_seed(0))
    number = torch.arange(label.numel()).reshape(label.shape)
    return LabelledMap(torch.cat([number, label], 1).float(), label, classes)


def test_at_most_so_many_pixels_of_a_class_are_drawn():
    classes = torch.tensor([0, 1, 1, 0, 1, 2, 1, 2])
    drawn = draw(classes, [1, 2], 3)
    assert drawn.tolist() == sorted(drawn.tolist())
    assert classes[drawn].bincount().tolist() == [0, 3, 2]
    assert draw(classes, [1, 2], 0).tolist() == [1, 2, 4, 5, 6, 7]
    assert draw(classes, [], 3).tolist() == []


def test_the_generator_decides_which():
    pixels = torch.zeros(1000, dtype=torch.long)
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(draw(pixels, [0], 5).tolist())
    assert drawn[0] == drawn[1] != drawn[2]


@pytest.mark.parametrize("size", [(8, 6), (4, 3, 2)], ids=str)
@pytest.mark.parametrize("most", [0, 4])
def test_pixels_come_with_their_own_class(size, most):
    labelled = numbered(*size)
    anchors = draw_anchors(labelled, "pixel", most)
    number, owner = anchors.vectors.T.long()
    assert torch.equal(owner, anchors.classes)
    assert torch.equal(labelled.label.flatten()[number], anchors.classes)
    assert len(number.unique()) == len(number) == (3 * most or labelled.label.numel())


def test_the_gradient_reaches_the_drawn_pixels_alone():
    labelled = numbered(8, 6)
    labelled.feature.requires_grad_()
    anchors = draw_anchors(labelled, "pixel", 4)
    anchors.vectors.sum().backward()
    assert labelled.feature.grad[:, 0].sum() == len(anchors.classes) == 12


def test_each_class_of_each_image_has_a_mean():
    feature = torch.tensor([[1.0, 3.0, 5.0], [2.0, 4.0, 9.0]])[:, None, None]
    label = torch.tensor([[0, 0, 1], [1, 1, 1]])[:, None, None]
    anchors = draw_anchors(LabelledMap(feature, label, 3), "image_class", 0)
    assert anchors.vectors.tolist() == [[2], [5], [5]]
    assert anchors.classes.tolist() == [0, 1, 1]


def test_classes_or_anchors_are_averaged():
    anchors = Anchors(torch.zeros(4, 1), torch.tensor([1, 1, 1, 4]))
    values = torch.tensor([1.0, 2.0, 3.0, 10.0])
    assert anchors.mean(values, "classes") == 6
    assert anchors.mean(values, "anchors") == 4


# Windows: of a map of two by four, the left one is background, three quarters of the right one foreground.

LABEL = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 0]])[None, None]
FEATURE = torch.arange(8.0).reshape(1, 1, 2, 4)


def test_windows_of_one_class_are_averaged():
    anchors = window_anchors(LabelledMap(FEATURE, LABEL, 2), 2, 0.95, 0)
    assert (anchors.vectors.tolist(), anchors.classes.tolist()) == ([[2.5]], [0])
    anchors = window_anchors(LabelledMap(FEATURE, LABEL, 2), 2, 0.75, 0)
    assert (anchors.vectors.tolist(), anchors.classes.tolist()) == ([[2.5], [4.5]], [0, 1])


def test_a_map_smaller_than_a_window_is_one_window_and_there_may_be_none():
    assert window_anchors(LabelledMap(FEATURE, torch.zeros_like(LABEL), 2), 9, 1, 3).vectors.tolist() == [[3.5]]
    assert len(window_anchors(LabelledMap(FEATURE, LABEL, 2), 9, 1, 3).classes) == 0


def test_windows_of_volumes_are_as_those_of_pictures():
    flat = window_anchors(LabelledMap(FEATURE, LABEL, 2), 2, 0.75, 0)
    deep = window_anchors(LabelledMap(FEATURE[..., None], LABEL[..., None], 2), 2, 0.75, 0)
    assert torch.equal(flat.vectors, deep.vectors)
    assert torch.equal(flat.classes, deep.classes)
