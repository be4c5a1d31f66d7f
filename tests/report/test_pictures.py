"""Pictures: outlines follow the pixels of a mask exactly."""

import numpy as np

from fedbcs_monai.report.pictures import outline


def test_outline_of_one_pixel_is_its_square():
    assert outline(np.array([[False, False], [False, True]])) == "M1 1h1M1 2h1M1 1v1M2 1v1"


def test_outline_of_nothing_is_empty():
    assert outline(np.zeros((3, 3), bool)) == ""


def test_outline_of_a_hole_has_both_edges():
    ring = np.ones((3, 3), bool)
    ring[1, 1] = False
    assert "M1 1h1" in outline(ring)
