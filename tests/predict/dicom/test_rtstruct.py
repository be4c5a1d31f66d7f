"""DICOM RTSTRUCT: the voxels inside its contours are those of the mask."""

import numpy as np
import pydicom
import pytest
from matplotlib.path import Path as Polygon

from fedbcs_monai.predict.dicom.rtstruct import written

MODEL = {"name": "prostate_fedbcs", "version": "0123456789ab"}


def filled(contours, source) -> np.ndarray:
    """The voxels whose centres lie inside an odd number of contours of their plane."""
    found = np.zeros(source.shape, np.uint8)
    to_voxels = np.linalg.inv(np.asarray(source.series.geometry.affine))
    x, y = np.meshgrid(*map(np.arange, source.shape[:2]), indexing="ij")
    for contour in contours:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        places = (np.c_[points, np.ones(len(points))] @ to_voxels.T)[:, :3]
        z = round(places[:, 2].mean())
        assert np.abs(places[:, 2] - z).max() < 1e-4
        found[:, :, z] ^= Polygon(places[:, :2]).contains_points(np.c_[x.ravel(), y.ravel()]).reshape(x.shape)
    return found


def test_the_voxels_inside_the_contours_are_the_mask(source, tmp_path):
    mask = (source.array > 500).astype(np.uint8)
    mask[3:5, 5:9, 1] = 0  # a hole
    mask[19, 31, 4] = 1  # one voxel in the last corner
    written(mask, source.series, ["prostate"], MODEL).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    back = pydicom.dcmread(tmp_path / "a.dcm")
    contours = back.ROIContourSequence[0].ContourSequence
    assert np.array_equal(filled(contours, source), mask)
    assert {contour.ContourGeometricType for contour in contours} == {"CLOSED_PLANAR", "CLOSEDPLANAR_XOR"}


def test_each_contour_refers_to_the_image_of_its_plane(source, tmp_path, made):
    mask = np.zeros(source.shape, np.uint8)
    mask[2:5, 2:5, 3] = 1
    back = written(mask, source.series, ["prostate"], MODEL)
    (contour,) = back.ROIContourSequence[0].ContourSequence
    expected = made.slices(made.voxels())[3].SOPInstanceUID
    assert contour.ContourImageSequence[0].ReferencedSOPInstanceUID == expected
    assert back.PatientName == made.PATIENT["PatientName"]


@pytest.mark.parametrize("empty", [False, True])
def test_the_standard_s_own_checker_finds_no_error(source, tmp_path, errors, empty):
    mask = (source.array > (1e9 if empty else 500)).astype(np.uint8)
    written(mask, source.series, ["prostate"], MODEL).save_as(tmp_path / "a.dcm", enforce_file_format=True)
    assert errors(tmp_path / "a.dcm") == []
