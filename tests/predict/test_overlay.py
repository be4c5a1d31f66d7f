"""Overlay: turned as radiologists look, with the right marks, millimetres square."""

import numpy as np
import pytest

from fedbcs_monai.predict.overlay import CELL, OUTLINE, chosen_slices, overlay, view_of
from fedbcs_monai.predict.source import Source

RAS, LPS = np.diag([1.0, 1, 3, 1]), np.diag([-1.0, -1, 3, 1])
CORONAL = np.array([[1.0, 0, 0, 0], [0, 0, 3, 0], [0, -1, 0, 0], [0, 0, 0, 1]])  # axes to R, I, A
SAGITTAL = np.array([[0, 0, 3.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # axes to A, S, R
AXIAL_TURNED = np.array([[0, 1.0, 0, 0], [1, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1]])  # axes to A, R, S


@pytest.mark.parametrize(
    ("affine", "marks", "corner"),
    [
        (RAS, "RLAP", (-1, -1)),
        (LPS, "RLAP", (0, 0)),
        (AXIAL_TURNED, "RLAP", (-1, -1)),
        (CORONAL, "RLSI", (-1, 0)),
        (SAGITTAL, "APSI", (-1, -1)),
    ],
)
def test_the_patient_s_right_is_left_and_the_top_anterior_or_superior(affine, marks, corner):
    view, plane = view_of(affine), np.arange(6).reshape(2, 3)
    assert view.marks == tuple(marks)
    assert view.turned(plane)[0, 0] == plane[corner]


def test_an_oblique_view_names_what_it_leans_to():
    tilted = np.array([[-0.6, 0, 0, 0], [0, -0.5, 1, 0], [0, -0.3, 2.8, 0], [0, 0, 0, 1]])
    assert view_of(tilted).marks == ("R", "L", "AS", "PI")


def test_turned_slices_keep_rows_and_columns_apart():
    assert view_of(AXIAL_TURNED).turned(np.zeros((2, 3))).shape == (2, 3)
    assert view_of(RAS).turned(np.zeros((2, 3))).shape == (3, 2)


def test_slices_with_prediction_are_spread_and_the_middle_stands_for_none():
    mask = np.zeros((2, 2, 40), bool)
    assert chosen_slices(mask) == list(range(14, 26))
    mask[0, 0, 3:33] = True
    chosen = chosen_slices(mask)
    assert (len(chosen), chosen[0], chosen[-1]) == (12, 3, 32)
    assert len(set(chosen)) == 12
    assert chosen_slices(mask[..., :5]) == [3, 4]


def test_the_outline_of_a_picture_lies_on_its_mask():
    mask = np.zeros((100, 160), np.uint8)
    mask[60:90, 10:40] = 1
    picture = np.asarray(overlay(Source("a.png", np.zeros((100, 160, 3), np.uint8), None), mask))
    assert picture.shape == (500, 800, 3)
    rows, columns = np.nonzero((picture == OUTLINE).all(-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (300, 449, 50, 199)
    assert (picture[350:400, 100:150] == 0).all()


def test_an_anisotropic_slice_is_shown_in_its_proportions():
    array = np.random.default_rng(0).random((20, 10, 3))
    mask = np.zeros(array.shape, np.uint8)
    mask[5:15, 2:8, 1] = 1  # 10 mm wide and 24 mm high
    picture = np.asarray(overlay(Source("a.nii", array, np.diag([-1.0, -4, 3, 1])), mask))
    rows, columns = np.nonzero((picture == OUTLINE).all(-1))
    height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
    assert height / width == pytest.approx(2.4, rel=0.03)
    assert height == pytest.approx(24 * CELL / 40, abs=2)


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 300, 1), (5, 5, 3)])
def test_odd_volumes_have_an_overlay(shape):
    array = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    overlay(Source("a.nii", array, RAS), np.zeros(shape, np.uint8))
    overlay(Source("a.nii", array, RAS), np.ones(shape, np.uint8))
