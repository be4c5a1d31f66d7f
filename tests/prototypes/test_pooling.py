"""Pooling: every pixel weighs the same, small objects are not lost, and pictures are as volumes."""

import pytest
import torch

from fedbcs_monai.prototypes.pooling import ClassMeans, LabelledMap, batch_sums, classes_in, image_sums, one_hot


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def labels(*shape, classes=3, seed=0):
    return torch.randint(classes, shape, generator=torch.Generator().manual_seed(seed))


def test_area_counts_what_nearest_overlooks():
    label = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    label[0, 0, 1, 1] = 1
    labelled = LabelledMap(torch.zeros(1, 1, 2, 2), label, 2)
    assert labelled.shares("area")[0, 1].tolist() == [[0.25, 0], [0, 0]]
    assert labelled.shares("nearest")[0, 1].tolist() == [[0, 0], [0, 0]]
    assert labelled.pixels.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("masks", ["area", "nearest"])
@pytest.mark.parametrize("grid", [(8, 6), (3, 3), (16, 12), (5, 4, 3)], ids=str)
def test_shares_sum_to_one_at_any_size(masks, grid):
    label = labels(2, 1, *(16, 12, 9)[: len(grid)])
    shares = LabelledMap(torch.zeros(2, 1, *grid), label, 4).shares(masks)
    assert shares.shape == (2, 4, *grid)
    torch.testing.assert_close(shares.sum(1), torch.ones(2, *grid))


@pytest.mark.parametrize("masks", ["area", "nearest"])
def test_at_the_labels_own_size_shares_are_one_hot(masks):
    label = labels(2, 1, 5, 7)
    shares = LabelledMap(torch.zeros(2, 1, 5, 7), label, 3).shares(masks)
    assert torch.equal(shares, one_hot(label, (5, 7), 3))
    assert torch.equal(shares.argmax(1), label[:, 0])


@pytest.mark.parametrize("size", [(6, 5), (4, 3, 2)], ids=str)
def test_sums_are_those_of_the_pixels(size):
    feature, label = random(2, 4, *size), labels(2, 1, *size)
    masks = one_hot(label, size, 3)
    sums, counts = image_sums(feature, masks)
    for b in range(2):
        for c in range(3):
            torch.testing.assert_close(sums[b, c], feature[b][:, label[b, 0] == c].sum(1))
            assert counts[b, c] == (label[b] == c).sum()
    whole = batch_sums(feature, masks)
    torch.testing.assert_close(whole.sums, sums.sum(0))
    assert torch.equal(whole.counts, counts.sum(0))


def test_half_precision_is_summed_in_float32():
    feature = torch.full((1, 1, 64, 64), 1.001, dtype=torch.bfloat16)
    sums, counts = image_sums(feature, torch.ones(1, 1, 64, 64))
    assert sums.dtype == torch.float32
    assert sums.item() == counts.item() == 4096


def test_means_over_batches_weigh_every_pixel_the_same():
    feature, label = random(5, 4, 6, 6), labels(5, 1, 6, 6)
    parts, whole = ClassMeans(), ClassMeans()
    for at in ([0], [1, 2, 3], [4]):
        parts.pool(LabelledMap(feature[at], label[at], 3))
    whole.pool(LabelledMap(feature, label, 3))
    for c in range(3):
        torch.testing.assert_close(parts.means()[str(c)], whole.means()[str(c)])
        torch.testing.assert_close(whole.means()[str(c)], feature.movedim(1, -1)[label[:, 0] == c].mean(0))


def test_a_class_that_was_never_seen_has_no_mean():
    means = ClassMeans()
    assert means.means() == {}
    means.pool(LabelledMap(torch.ones(1, 2, 2, 2), torch.full((1, 1, 2, 2), 2), 4))
    assert {c: mean.tolist() for c, mean in means.means().items()} == {"2": [1, 1]}


def test_means_keep_no_graph():
    means = ClassMeans()
    means.pool(LabelledMap(random(1, 2, 2, 2).requires_grad_(), labels(1, 1, 2, 2), 3))
    assert not means.sums.requires_grad


def test_classes_are_named_in_order():
    assert classes_in(torch.tensor([3, -1, 0, 3])) == [0, 3]
    assert classes_in(torch.tensor([-1])) == []
