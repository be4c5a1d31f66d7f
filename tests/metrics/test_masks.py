"""Metrics: numbers that can be checked by hand, and the defined edges."""

import math

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance

from fedbcs_monai.metrics.masks import dice, score, slice_dice, surface_distances


def one_pixel(*place: int, shape: tuple[int, ...] = (8, 8)) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[place] = True
    return mask


@pytest.mark.parametrize(
    ("pred", "ref", "expected"),
    [
        ([1, 1, 0, 0], [1, 0, 0, 0], 2 / 3),
        ([1, 1, 0, 0], [0, 0, 1, 1], 0.0),
        ([1, 0, 1, 0], [1, 0, 1, 0], 1.0),
        ([0, 0, 0, 0], [0, 0, 0, 0], 1.0),
        ([1, 0, 0, 0], [0, 0, 0, 0], 0.0),
        ([0, 0, 0, 0], [1, 0, 0, 0], 0.0),
    ],
)
def test_dice_of_masks_worked_by_hand(pred, ref, expected):
    assert dice(np.array([pred]), np.array([ref])) == expected


@pytest.mark.parametrize(
    ("spacing_mm", "expected_mm"), [((1.0, 1.0), 5.0), ((2.0, 2.0), 10.0), ((4.0, 1.0), math.hypot(12, 4))]
)
def test_two_pixels_are_as_far_apart_as_spacing_says(spacing_mm, expected_mm):
    distances = surface_distances(one_pixel(1, 1), one_pixel(4, 5), spacing_mm)
    assert distances == pytest.approx((expected_mm, expected_mm))


def test_thick_slices_count_along_the_last_axis():
    pred, ref = one_pixel(2, 2, 1, shape=(6, 6, 4)), one_pixel(2, 2, 2, shape=(6, 6, 4))
    assert surface_distances(pred, ref, (0.5, 0.5, 3.0)) == pytest.approx((3.0, 3.0))


def test_assd_averages_over_the_pixels_of_both_surfaces():
    pred, ref = one_pixel(0, 0), one_pixel(0, 0) | one_pixel(0, 2)
    distances = surface_distances(pred, ref, (1.0, 1.0))
    assert distances.assd_mm == pytest.approx((0 + 0 + 2) / 3)
    assert distances.hd95_mm == pytest.approx(0.95 * 2)  # 95th percentile of 0 and 2, interpolated


@pytest.mark.filterwarnings("ignore:monai.metrics.utils get_mask_edges:FutureWarning")
@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.5, 0.6, 3.0)])
def test_distances_are_those_of_monai(spacing_mm):
    pred, ref = torch.rand(2, 9, 10, 6, generator=torch.Generator().manual_seed(1)) > 0.7
    pair = {"y_pred": pred[None, None], "y": ref[None, None], "include_background": True, "spacing": spacing_mm}
    hd95_mm = compute_hausdorff_distance(percentile=95, **pair)
    assd_mm = compute_average_surface_distance(symmetric=True, **pair)
    assert surface_distances(pred, ref, spacing_mm) == pytest.approx((hd95_mm.item(), assd_mm.item()), rel=1e-6)


def test_a_mask_at_the_border_has_a_surface_there():
    full = torch.ones(5, 5, dtype=torch.bool)
    assert surface_distances(full, one_pixel(2, 2, shape=(5, 5)), (1.0, 1.0)).hd95_mm == pytest.approx(8**0.5)


def test_prediction_and_reference_may_change_places():
    pred, ref = one_pixel(1, 1) | one_pixel(1, 2) | one_pixel(7, 7), one_pixel(3, 5)
    assert surface_distances(pred, ref, (1, 2)) == pytest.approx(surface_distances(ref, pred, (1, 2)), rel=1e-12)


def test_two_empty_masks_agree():
    empty = torch.zeros(4, 4, dtype=torch.bool)
    assert score(empty, empty, (1.0, 1.0)) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("swap", [False, True])
def test_one_empty_mask_costs_the_diagonal_in_mm(swap):
    masks = [torch.zeros(3, 4, dtype=torch.bool), one_pixel(0, 0, shape=(3, 4))]
    assert score(*(masks[::-1] if swap else masks), (2.0, 2.0)) == (0.0, 10.0, 10.0)


def test_without_spacing_distances_are_nan():
    scores = score(one_pixel(0, 0), one_pixel(0, 0), None)
    assert scores.dice == 1.0
    assert math.isnan(scores.hd95_mm)
    assert math.isnan(scores.assd_mm)


def test_slice_dice_leaves_out_slices_that_are_empty_in_both():
    pred = np.zeros((2, 2, 4), bool)
    ref = pred.copy()
    pred[0, 0, 0] = ref[0, 0, 0] = True  # found: 1
    pred[0, 0, 1] = True  # made up: 0
    ref[:, 0, 2] = pred[0, 0, 2] = True  # half found: 2/3
    assert slice_dice(pred, ref) == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert slice_dice(np.zeros((2, 2, 2)), np.zeros((2, 2, 2))) == 1.0


@pytest.mark.parametrize("kind", [np.uint8, np.float64, bool, ">i2"])
def test_read_only_arrays_of_any_type_are_taken(kind):
    mask = np.eye(4).astype(kind)
    mask.flags.writeable = False
    assert score(mask, torch.eye(4), (1, 1)) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("pred", "ref", "spacing_mm", "message"),
    [
        (torch.full((2, 2), 0.4), torch.ones(2, 2), (1, 1), "threshold it first"),
        (torch.ones(2, 3), torch.ones(3, 2), (1, 1), "differ in shape"),
        (torch.ones(2, 2), torch.ones(2, 2), (1, 1, 1), "expected 2 positive spacings"),
        (torch.ones(2, 2), torch.ones(2, 2), (1, 0), "positive spacings"),
    ],
)
def test_what_is_not_a_pair_of_masks_is_refused(pred, ref, spacing_mm, message):
    with pytest.raises(ValueError, match=message):
        score(pred, ref, spacing_mm)
