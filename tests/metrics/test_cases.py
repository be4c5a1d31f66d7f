"""Cases: a mask lies on the grid of the file it was made from, and distances are that file's millimetres."""

from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.metrics.cases import CaseScorer, spacing_mm
from fedbcs_monai.runs.setup import build_segmentation, compute_of

SMALL = {"device": "cpu", "preprocessing::transforms::2::spatial_size": [32, 32, -1]}
SPACING = (0.5, 0.8, 3.0)


class Threshold(nn.Module):
    """Foreground is where the middle slice is bright: the network whose mask is known."""

    def forward(self, image):
        bright = 20 * (image[:, image.shape[1] // 2] - 0.5)
        return torch.stack([-bright, bright], 1)


def volume(folder: Path, shape=(40, 24, 6), affine=None, shift=0):
    """A bright box in a dark volume, and its label, moved by so many voxels along the first axis."""
    label = np.zeros(shape, np.uint8)
    label[8:24, 6:18, 1:5] = 1
    affine = np.diag([*SPACING, 1.0]) if affine is None else affine
    nibabel.save(nibabel.Nifti1Image((100 * label).astype(np.int16), affine), folder / "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image(np.roll(label, shift, 0), affine), folder / "label.nii.gz")
    return {"image": str(folder / "image.nii.gz"), "label": str(folder / "label.nii.gz"), "case": "box"}, label


def segmentation(task="prostate", **overrides):
    config = load_config(task, {**SMALL, **overrides} if task == "prostate" else overrides)
    return build_segmentation(config, compute_of(config))


def mask_of(segmentation, item):
    return segmentation.mask(Threshold(), segmentation.prepare(item)).numpy()


FLIPPED = np.array([[-0.5, 0, 0, 20], [0, -0.8, 0, 12], [0, 0, 3, -30], [0, 0, 0, 1.0]])
TURNED = np.array([[0, 0.8, 0, 0], [-0.5, 0, 0, 0], [0, 0, 3, 0], [0, 0, 0, 1.0]])


@pytest.mark.parametrize("affine", [None, FLIPPED, TURNED], ids=["plain", "flipped", "turned"])
def test_a_mask_comes_back_on_the_grid_of_its_volume(tmp_path, affine):
    item, label = volume(tmp_path, affine=affine)
    assert np.array_equal(mask_of(segmentation(), item), label)


@pytest.mark.parametrize(
    "step",
    [
        {"_target_": "CenterSpatialCropd", "keys": "image", "roi_size": [36, 22, -1]},
        {"_target_": "SpatialPadd", "keys": "image", "spatial_size": [50, 50, -1]},
        {"_target_": "Spacingd", "keys": "image", "pixdim": [0.25, 0.4, 3.0]},
        {"_target_": "Flipd", "keys": "image", "spatial_axis": 0},
    ],
    ids=lambda step: step["_target_"],
)
def test_what_the_preprocessing_does_is_undone(tmp_path, step):
    item, label = volume(tmp_path)
    assert np.array_equal(mask_of(segmentation(**{"preprocessing::transforms::2": step}), item), label)


def test_a_picture_that_was_padded_comes_back_at_its_size(tmp_path):
    label = np.zeros((40, 50), np.uint8)
    label[5:20, 10:30] = 255
    Image.fromarray(np.repeat(label[..., None], 3, 2)).save(tmp_path / "image.png")
    Image.fromarray(label).save(tmp_path / "label.png")
    item = {"image": str(tmp_path / "image.png"), "label": str(tmp_path / "label.png"), "case": "box"}
    made = segmentation("nuclei", device="cpu")
    assert mask_of(made, item).shape == made.reference(item).shape == (40, 50)
    (score,) = CaseScorer(made, [item]).scores(Threshold())
    assert score.dice == 1
    assert np.isnan([score.hd95_mm, score.assd_mm, score.slice_dice]).all()


def test_spacing_is_that_of_the_file_whatever_the_network_sees(tmp_path):
    item, _ = volume(tmp_path, affine=TURNED)
    assert spacing_mm(segmentation().prepare(item)["image"]) == pytest.approx([0.5, 0.8, 3.0])


def test_distances_of_volumes_from_itk_are_millimetres_too(tmp_path):
    item, label = volume(tmp_path)
    for name, array in {"image": 100 * label, "label": np.roll(label, 4, 0)}.items():
        made = itk.image_from_array(np.ascontiguousarray(array.T))
        made.SetSpacing(SPACING)
        item[name] = str(tmp_path / f"{name}.mha")
        itk.imwrite(made, item[name])
    (score,) = CaseScorer(segmentation(), [item]).scores(Threshold())
    assert score.hd95_mm == pytest.approx(2)


@pytest.mark.parametrize(("shift", "millimetres"), [(0, 0), (1, 0.5), (4, 2.0)])
def test_distances_are_millimetres(tmp_path, shift, millimetres):
    item, _ = volume(tmp_path, shift=shift)
    (score,) = CaseScorer(segmentation(), [item]).scores(Threshold())
    assert score.hd95_mm == pytest.approx(millimetres)
    assert 0 <= score.assd_mm <= millimetres
    assert score.dice == pytest.approx((16 - shift) / 16)  # of 16 rows that the box is long
    assert score.slice_dice == pytest.approx(score.dice)  # each of the four slices that are not empty


def test_scores_and_examples_do_not_depend_on_how_a_volume_is_stored(tmp_path):
    """Slices along the first axis, and reversed, are the slices that they are along the last."""
    shift, sides = 3, {}
    item, label = volume(tmp_path, affine=FLIPPED)
    moved = np.roll(label, shift, 0)
    moved[:, :, 4] = label[:, :, 4]  # slices differ in their Dice
    moved[0, 0, 2] = 1  # and one has most reference
    way = np.array([[1, -1], [2, 1], [0, -1]])
    for name, turn in {"canonical": None, "turned": way}.items():
        affine = FLIPPED if turn is None else FLIPPED @ nibabel.orientations.inv_ornt_aff(way, label.shape)
        for file, array in {"image": 100 * label, "label": moved}.items():
            array = array.astype(np.int16)
            kept = array if turn is None else nibabel.orientations.apply_orientation(array, way)
            nibabel.save(nibabel.Nifti1Image(kept, affine), item[file])
        scorer = CaseScorer(segmentation(), [item])
        sides[name] = (*scorer.scores(Threshold()), *scorer.examples(Threshold(), 1), scorer.look())
    (first, seen, look), (second, shown, glance) = sides.values()
    assert first == second
    assert first.slice_dice == pytest.approx((2 * 13 / 16 + 2 * 156 / (192 + 193) + 1) / 4)
    assert np.array_equal(seen.image, shown.image)
    assert np.array_equal(seen.truth, shown.truth)
    assert np.array_equal(seen.prediction, shown.prediction)
    assert np.array_equal(look, glance)


@pytest.mark.parametrize("slices", [12, 20])
def test_volumes_as_the_synthetic_sites_store_them_are_not_touched(tmp_path, slices):
    """Made-up and published prostates run left, back, head: turning them changes no bit."""
    array = np.random.default_rng(0).integers(0, 900, (36, 28, slices)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(array, FLIPPED), tmp_path / "image.nii.gz")
    item = {"image": str(tmp_path / "image.nii.gz")}
    plain = segmentation(**{"preprocessing::transforms::0": "@reading", "slice_plane": "file"})
    assert torch.equal(*(made.prepare(item)["image"].as_tensor() for made in (segmentation(), plain)))


def test_a_case_is_read_once(tmp_path):
    item, _ = volume(tmp_path)
    scorer = CaseScorer(segmentation(), [item])
    first = scorer.mean_dice(Threshold())
    Path(item["image"]).unlink()
    assert scorer.mean_dice(Threshold()) == first == 1


def test_no_cases_have_no_mean_dice():
    assert np.isnan(CaseScorer(segmentation(), []).mean_dice(Threshold()))


@pytest.mark.parametrize(("towards", "seen"), [((1, 1), np.s_[::-1, ::-1, 2]), ((-1, -1), np.s_[:, :, 2])])
def test_an_example_shows_the_slice_with_most_reference_as_a_radiologist_sees_it(tmp_path, towards, seen):
    """Axes towards the patient's right and front are turned; axes towards left and back are not."""
    affine = np.diag([*towards, 1, 1])
    label = np.zeros((8, 6, 3), np.uint8)
    label[2:4, 2:4, 1] = label[1:6, 1:3, 2] = label[6, 3, 2] = 1
    nibabel.save(nibabel.Nifti1Image((100 * label).astype(np.int16), affine), tmp_path / "image.nii.gz")
    nibabel.save(nibabel.Nifti1Image(label, affine), tmp_path / "label.nii.gz")
    item = {"image": str(tmp_path / "image.nii.gz"), "label": str(tmp_path / "label.nii.gz"), "case": "box"}
    (example,) = CaseScorer(segmentation(), [item]).examples(Threshold(), 3)
    assert np.array_equal(example.truth, label[seen].T > 0)
    assert np.array_equal(example.prediction, example.truth)
    assert example.image.shape == (6, 8, 3)
    assert example.dice == 1


def test_what_the_user_can_mend_arrives_unwrapped(tmp_path):
    item, label = volume(tmp_path)
    nibabel.save(nibabel.Nifti1Image(label * 3, np.eye(4)), item["label"])
    with pytest.raises(UserError, match="threshold it"):
        segmentation().reference(item)
