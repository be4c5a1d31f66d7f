"""Measures: volumes by hand, and what deserves a second look."""

import numpy as np
import pytest

from fedbcs_monai.predict.intended_input import IntendedInput
from fedbcs_monai.predict.mask_statistics import mask_statistics, warnings
from fedbcs_monai.predict.source import Source

AXIAL = np.diag([-2.0, -2, 5, 1])


def source(shape, affine=AXIAL) -> Source:
    return Source("a.nii", np.zeros(shape), affine)


def test_a_volume_is_counted_in_millilitres_and_a_corner_joins():
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[2, 2, 2] = mask[3, 3, 3] = mask[7, 7, 7] = 1  # 20 mm3 each
    probabilities = np.stack([np.zeros(mask.shape), np.full(mask.shape, 0.5), np.zeros(mask.shape)]).astype(np.float32)
    probabilities[1, 2, 2, 2] = 0.8
    found = mask_statistics(mask, probabilities, source(mask.shape))
    assert found["foreground_fraction"] == 0.003
    assert found["classes"]["1"] == {
        "volume_ml": pytest.approx(0.06),
        "components": 2,
        "bounding_box": [[2, 7], [2, 7], [2, 7]],
        "mean_probability": pytest.approx(0.6),
    }
    nothing = {"volume_ml": 0, "components": 0, "bounding_box": None, "mean_probability": None}
    assert found["classes"]["2"] == nothing


def test_a_picture_is_counted_in_pixels():
    mask = np.array([[1, 0, 1]], np.uint8)
    found = mask_statistics(mask, np.ones((2, 1, 3), np.float32), Source("a.png", np.zeros((1, 3, 3)), None))
    box = [[0, 0], [0, 2]]
    assert found["classes"]["1"] == {"area_px": 2, "components": 2, "bounding_box": box, "mean_probability": 1}


@pytest.mark.parametrize(
    ("marked", "changes", "said"),
    [
        (np.s_[:0], {}, ["nothing was found"]),
        (np.s_[1:3, 1:3, 1:3], {}, []),
        (np.s_[1:3, 1:3, 2:], {}, ["reaches the edge"]),
        (np.s_[:], {}, ["100% of the image", "reaches the edge"]),
        (np.s_[1:3, 1:3, 1:3], {"affine": AXIAL[[2, 1, 0, 3]]}, ["are sagittal"]),
    ],
)
def test_what_is_unusual_is_said(marked, changes, said):
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[marked] = 1
    found = warnings(mask, source(mask.shape, **changes))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))


def test_a_model_that_states_its_plane_is_warned_of_others_only():
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[1:3, 1:3, 1:3] = 1
    sagittal = source(mask.shape, affine=AXIAL[[2, 1, 0, 3]])
    assert warnings(mask, sagittal, IntendedInput("MR", "sagittal")) == []
    assert "trained on coronal slices" in warnings(mask, sagittal, IntendedInput("", "coronal"))[0]


def test_what_the_reader_noted_comes_first():
    on_note = source((5, 5, 5))._replace(notes=("it is odd",))
    assert warnings(np.zeros((5, 5, 5), np.uint8), on_note) == ["it is odd", "nothing was found"]
