"""Tally: the statistics of rows that come one after another are those of the whole."""

import numpy as np
import pytest
from scipy import ndimage

from fedbcs_monai.predict.large_image.running_statistics import RunningStatistics
from fedbcs_monai.predict.mask_statistics import mask_statistics
from fedbcs_monai.predict.source import Source

RNG = np.random.default_rng(0)


def whole_and_parts(mask, heights):
    probabilities = RNG.random((3, *mask.shape)).astype(np.float32)
    running, top = RunningStatistics(3), 0
    for height in heights:
        running.add(mask[top : top + height], probabilities[:, top : top + height])
        top += height
    return mask_statistics(mask, probabilities, Source("a.png", mask, None)), running.statistics()


@pytest.mark.parametrize("heights", [(60,), (1,) * 60, (7, 20, 33), (59, 1)])
@pytest.mark.parametrize("density", [0.1, 0.3, 0.5, 0.9])
def test_parts_add_up_to_the_whole(heights, density):
    mask = (ndimage.gaussian_filter(RNG.random((60, 45)), 1) < np.quantile(RNG.random(1000), density)).astype(np.uint8)
    mask = np.where(RNG.random(mask.shape) < density / 4, 2, mask).astype(np.uint8)
    whole, parts = whole_and_parts(mask, heights)
    assert parts["foreground_fraction"] == pytest.approx(whole["foreground_fraction"])
    for number in ("1", "2"):
        ours, theirs = parts["classes"][number], whole["classes"][number]
        assert ours.pop("bounding_box") == theirs.pop("bounding_box")
        assert ours == pytest.approx(theirs, abs=1e-6)


def test_a_spiral_is_one_component_though_every_row_cuts_it():
    mask = np.zeros((9, 9), np.uint8)
    mask[0, :], mask[:, 8], mask[8, :], mask[2:, 0], mask[2, :7], mask[2:7, 6], mask[6, 2:7], mask[4:7, 2] = (1,) * 8
    whole, parts = whole_and_parts(mask, (1,) * 9)
    assert whole["classes"]["1"]["components"] == parts["classes"]["1"]["components"] == 1


def test_nothing_has_no_box():
    whole, parts = whole_and_parts(np.zeros((6, 5), np.uint8), (2, 4))
    assert whole == parts
    assert parts["classes"]["1"] == {"area_px": 0, "components": 0, "bounding_box": None, "mean_probability": None}
