"""Measures: volumes by hand, and what deserves a second look."""

import nibabel as nib
import numpy as np
import pytest

from fedbcs_monai.clinical.images import Source
from fedbcs_monai.clinical.measures import measures, warnings

AXIAL = np.diag([-2.0, -2, 5, 1])


def source(shape, affine=AXIAL, unit="mm") -> Source:
    header = nib.Nifti1Header()
    header.set_xyzt_units(unit)
    return Source("a.nii", np.zeros(shape), affine, header)


def test_a_volume_is_counted_in_millilitres_and_a_corner_joins():
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[2, 2, 2] = mask[3, 3, 3] = mask[7, 7, 7] = 1  # 20 mm3 each
    found = measures(mask, source(mask.shape), classes=3)
    assert found["foreground_fraction"] == 0.003
    assert found["classes"]["1"] == {"volume_ml": pytest.approx(0.06), "components": 2}
    assert found["classes"]["2"] == {"volume_ml": 0, "components": 0}


def test_a_picture_is_counted_in_pixels():
    found = measures(np.array([[1, 0, 1]], np.uint8), Source("a.png", np.zeros((1, 3, 3)), None), classes=2)
    assert found["classes"]["1"] == {"area_px": 2, "components": 2}


@pytest.mark.parametrize(
    ("marked", "changes", "said"),
    [
        (np.s_[:0], {}, ["nothing was found"]),
        (np.s_[1:3, 1:3, 1:3], {}, []),
        (np.s_[1:3, 1:3, 2:], {}, ["reaches the edge"]),
        (np.s_[:], {}, ["100% of the image", "reaches the edge"]),
        (np.s_[1:3, 1:3, 1:3], {"affine": AXIAL[[2, 1, 0, 3]]}, ["are sagittal"]),
        (np.s_[1:3, 1:3, 1:3], {"unit": "meter"}, ["lengths in meter"]),
    ],
)
def test_what_is_unusual_is_said(marked, changes, said):
    mask = np.zeros((5, 5, 5), np.uint8)
    mask[marked] = 1
    found = warnings(mask, source(mask.shape, **changes))
    assert len(found) == len(said)
    assert all(part in line for part, line in zip(said, found, strict=True))
