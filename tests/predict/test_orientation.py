"""Orientation: one scan gives one mask, whichever way its axes run in its file."""

import json
import shutil
from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedbcs_monai.files import sum_file
from fedbcs_monai.predict import Predictor

SHAPE, SPACING_MM = (9, 12, 5), (0.8, 0.6, 3.3)
TURN = nib.eulerangles.euler2mat(0.1, -0.2, 0.3)  # oblique, and still nearest to axial
AFFINE = nib.affines.from_matvec(TURN @ np.diag([-1.0, -1, 1]) @ np.diag(SPACING_MM), [31.0, -12.5, 5.0])
VOXELS = np.random.default_rng(0).integers(0, 500, SHAPE).astype(np.int16)
WAYS = [np.column_stack([axes, signs]) for axes in permutations(range(3)) for signs in product((1, -1), repeat=3)]
"""All 48 ways to store a volume: to which axis each goes, and whether it is reversed."""


def stored(way):
    """The volume and its affine, its axes permuted and reversed; it lies where it lay."""
    array = nib.orientations.apply_orientation(VOXELS, way)
    return array, AFFINE @ nib.orientations.inv_ornt_aff(way, SHAPE)


def back(array, way):
    """What lies on the grid of `stored`, on that of `VOXELS`."""
    identity = np.column_stack([range(3), np.ones(3)])
    return nib.orientations.apply_orientation(array, nib.orientations.ornt_transform(identity, way))


@pytest.fixture(scope="module")
def predictor(make_model):
    sizes = {"preprocessing::transforms::2::spatial_size": [16, 24, -1]}
    return Predictor(make_model("prostate", sizes), "cpu")


@pytest.fixture(scope="module")
def canonical(predictor, tmp_path_factory):
    path = tmp_path_factory.mktemp("canonical") / "a.nii.gz"
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), path)
    prediction = predictor(path)
    assert nib.aff2axcodes(prediction.affine) == ("L", "P", "S")
    assert 0.01 < prediction.mask.mean() < 0.99
    return prediction


def assert_same(prediction, canonical, way):
    assert np.array_equal(back(prediction.mask, way), canonical.mask)
    assert np.array_equal(back(prediction.probability, way), canonical.probability)
    assert not any("slices" in warning for warning in prediction.warnings)


def test_all_48_ways_to_store_a_volume_give_one_mask(tmp_path, predictor, canonical):
    for way in WAYS:
        array, affine = stored(way)
        nib.save(nib.Nifti1Image(array, affine), tmp_path / "a.nii")
        prediction = predictor(tmp_path / "a.nii")
        assert np.abs(prediction.affine - affine).max() < 1e-6
        assert_same(prediction, canonical, way)


def series(made, array, affine):
    """The volume as a DICOM series: columns, rows, slices, these in the order in which the array has them."""
    lps = np.diag([-1.0, -1, 1, 1]) @ affine
    steps = np.linalg.norm(lps[:3, :3], axis=0)
    row, column, _ = (lps[:3, :3] / steps).T
    images = made.slices(array.astype(np.uint16), [*row, *column])
    for n, image in enumerate(images):
        image.ImagePositionPatient = [round(float(x), 9) for x in lps[:3, 3] + n * lps[:3, 2]]
        image.PixelSpacing = [round(float(steps[1]), 9), round(float(steps[0]), 9)]
    return images


def test_all_48_ways_as_dicom_series_give_one_mask(tmp_path, predictor, canonical, made):
    """All acquisition planes, turned any way, with slices in either order; a reader makes them right-handed."""
    for n, way in enumerate(WAYS):
        array, affine = stored(way)
        folder = made.save(series(made, array, affine), tmp_path / f"{n}")
        prediction = predictor(folder)
        if np.linalg.det(affine) * np.linalg.det(prediction.affine) < 0:  # its slices came the other way round
            mask, probability = prediction.mask[..., ::-1], prediction.probability[..., ::-1]
            prediction = prediction._replace(mask=mask, probability=probability)
        assert_same(prediction, canonical, way)


def test_a_sagittal_scan_is_cut_as_the_network_was_trained_and_warned_of(tmp_path, predictor):
    thick = AFFINE @ np.diag([4.0, 1, 0.2, 1])
    nib.save(nib.Nifti1Image(VOXELS, thick), tmp_path / "a.nii.gz")
    (warning,) = [text for text in predictor(tmp_path / "a.nii.gz").warnings if "slices" in text]
    assert warning == "its slices are sagittal; a model trained on axial slices may fail"


def test_a_model_that_does_not_turn_volumes_keeps_to_the_file_s_axes(tmp_path, make_model):
    sizes = {"preprocessing::transforms::2::spatial_size": [16, 24, -1]}
    predictor = Predictor(
        make_model("prostate", {**sizes, "preprocessing::transforms::0": "@reading", "slice_plane": "file"}), "cpu"
    )
    way = WAYS[-1]
    for name, (array, affine) in {"a": (VOXELS, AFFINE), "b": stored(way)}.items():
        nib.save(nib.Nifti1Image(array, affine), tmp_path / f"{name}.nii")
    first, second = (predictor(tmp_path / f"{name}.nii") for name in "ab")
    assert not np.array_equal(back(second.probability, way), first.probability)
    assert any(text.startswith("the slices along the last axis are sagittal") for text in second.warnings)


def test_a_model_from_before_the_image_keys_has_them_derived_and_gives_the_same_mask(tmp_path, make_model):
    sizes = {"preprocessing::transforms::2::spatial_size": [16, 24, -1]}
    models = [make_model(task, changed) for task, changed in (("prostate", sizes), ("nuclei", {}))]
    nib.save(nib.Nifti1Image(VOXELS, AFFINE), tmp_path / "a.nii")
    Image.fromarray(VOXELS[..., 0].astype(np.uint8)).save(tmp_path / "b.png")
    of_each = [("a.nii", "volumes", "axial"), ("b.png", "pictures", "file")]
    for model, (image, reads, plane) in zip(models, of_each, strict=True):
        older = shutil.copytree(model, tmp_path / reads)
        config = json.loads((older / "config.json").read_text())
        assert (config.pop("reads"), config.pop("slice_plane")) == (reads, plane)
        (older / "config.json").write_text(json.dumps(config))
        sum_file(older / "config.json").unlink(missing_ok=True)
        with pytest.warns(UserWarning, match=f"without reads: {reads}, slice_plane: {plane}; these are taken") as told:
            derived = Predictor(older, "cpu")
        assert sum("an earlier version wrote it" in str(one.message) for one in told) == 1
        assert np.array_equal(derived(tmp_path / image).mask, Predictor(model, "cpu")(tmp_path / image).mask)
