"""Images: what is read, and that a mask lies where its image lies."""

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import EnsureChannelFirst, LoadImage
from PIL import Image

from fedbcs_monai.data import PictureReader
from fedbcs_monai.predict.images import content_of, mask_suffixes, read_source
from fedbcs_monai.predict.source import Source

OBLIQUE = np.array([[-0.58, 0.1, 0.2, 31], [-0.11, -0.55, 0.6, -12.5], [0.02, -0.2, 3.3, 5], [0, 0, 0, 1]])
FLIPPED = np.array([[1.25, 0, 0, -80], [0, -1.25, 0, 90], [0, 0, -3.6, 40], [0, 0, 0, 1]])
SAGITTAL = np.array([[0, 0, 3.0, -20], [0.5, 0, 0, 7], [0, -0.7, 0, 1], [0, 0, 0, 1]])
RNG = np.random.default_rng(0)
VOXELS = RNG.integers(0, 500, (7, 5, 4)).astype(np.int16)
MASK = (RNG.random((7, 5, 4)) > 0.5).astype(np.uint8)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("affine", [OBLIQUE, FLIPPED, SAGITTAL])
@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (2, 3), (4, 1)])
def test_a_nifti_mask_has_its_image_s_geometry(tmp_path, kind, affine, codes):
    if codes[1]:  # a qform cannot shear, and that oblique affine does a little
        affine = affine if affine is not OBLIQUE else nib.affines.from_matvec(turned(0.3) * [0.5, 0.7, 3], [1, 2, 3])
    image = kind(VOXELS, affine)
    image.set_sform(affine if codes[0] else None, codes[0])
    image.set_qform(affine if codes[1] else None, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"Jane Doe"
    nib.save(image, tmp_path / "a.nii")
    (tmp_path / "m.nii.gz").write_bytes(content_of(MASK, read_source(tmp_path / "a.nii"), ".nii.gz"))
    mask, image = nib.load(tmp_path / "m.nii.gz"), nib.load(tmp_path / "a.nii")
    assert type(mask) is kind
    assert mask.get_data_dtype() == np.uint8
    assert np.array_equal(np.asarray(mask.dataobj), MASK)
    assert np.abs(mask.affine - image.affine).max() < 1e-6
    assert mask.header.get_zooms() == image.header.get_zooms()
    assert mask.header.get_xyzt_units() == ("mm", "sec")
    for form in ("get_sform", "get_qform"):
        (ours, our_code), (theirs, their_code) = (getattr(i, form)(coded=True) for i in (mask, image))
        assert our_code == their_code
        assert ours is theirs is None or np.array_equal(ours, theirs)
    assert b"Jane" not in (tmp_path / "m.nii.gz").read_bytes() + bytes(mask.header["descrip"])


def turned(angle: float) -> np.ndarray:
    """A rotation about x."""
    return np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])


def test_a_big_endian_image_gives_the_same_mask(tmp_path):
    for name, order in (("little", "<"), ("big", ">")):
        image = nib.Nifti1Image(VOXELS, FLIPPED, nib.Nifti1Header(endianness=order))
        nib.save(image, tmp_path / f"{name}.nii")
    little, big = (read_source(tmp_path / f"{name}.nii") for name in ("little", "big"))
    assert content_of(MASK, little, ".nii") == content_of(MASK, big, ".nii")
    assert torch.equal(little.tensor(), big.tensor())


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_an_itk_mask_has_its_image_s_geometry(tmp_path, suffix):
    path = tmp_path / f"größe Ω.{suffix}"
    image = itk.image_from_array(np.ascontiguousarray(VOXELS.T))
    image.SetSpacing([0.5, 0.7, 3.0])
    image.SetOrigin([-80.5, 12, 3])
    image.SetDirection(itk.matrix_from_array(turned(0.3) @ np.diag([-1.0, 1, 1])))
    itk.imwrite(image, str(path))
    (tmp_path / f"m.{suffix}").write_bytes(content_of(MASK, read_source(path), f".{suffix}"))
    mask = itk.imread(str(tmp_path / f"m.{suffix}"))
    assert np.array_equal(itk.array_from_image(mask).T, MASK)
    assert itk.array_from_image(mask).dtype == np.uint8
    assert np.allclose(mask.GetSpacing(), image.GetSpacing(), atol=1e-6)
    assert np.allclose(mask.GetOrigin(), image.GetOrigin(), atol=1e-6)
    directions = [itk.array_from_matrix(each.GetDirection()) for each in (mask, image)]
    assert np.allclose(*directions, atol=1e-6)


def test_a_picture_s_mask_is_black_and_white_with_rows_first(tmp_path):
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5)).save(tmp_path / "a.png")
    mask = np.zeros((3, 5), np.uint8)
    mask[2, 0] = 1
    (tmp_path / "m.png").write_bytes(content_of(mask, read_source(tmp_path / "a.png"), ".png"))
    with Image.open(tmp_path / "m.png") as file:
        assert file.size == (5, 3)
        assert np.array_equal(np.asarray(file), mask * 255)


def test_spacing_is_the_length_of_a_step_and_unknown_for_pictures(tmp_path):
    nib.save(nib.Nifti1Image(VOXELS, SAGITTAL), tmp_path / "a.nii.gz")
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5)).save(tmp_path / "a.png", dpi=(300, 300))
    assert np.allclose(read_source(tmp_path / "a.nii.gz").spacing_mm, (0.5, 0.7, 3.0))
    assert read_source(tmp_path / "a.png").spacing_mm is None


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.nii", ".nii.gz"), ("a.MHA", ".mha"), ("a.nrrd", ".nrrd"), ("a.jpg", ".png")]
)
def test_a_mask_is_of_its_image_s_kind(name, suffix):
    assert mask_suffixes(Path(name))[0] == suffix


def test_a_pair_of_header_and_voxels_is_read_by_either_name(tmp_path):
    image = nib.Nifti1Pair(VOXELS, OBLIQUE)
    image.header.set_slope_inter(2, 1)
    nib.save(image, tmp_path / "a.img")
    expected = np.asarray(nib.load(tmp_path / "a.img").dataobj)
    for name in ("a.img", "a.hdr"):
        source = read_source(tmp_path / name)
        assert np.array_equal(source.array, expected)
        assert np.abs(source.affine - OBLIQUE).max() < 1e-6


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "g.png", "d.png", "c.png"])
def test_a_source_is_the_tensor_that_monai_reads(tmp_path, name):
    nib.save(nib.Nifti1Image(VOXELS, OBLIQUE), tmp_path / "a.nii.gz")
    itk.imwrite(itk.image_from_array(np.ascontiguousarray(VOXELS.T)), str(tmp_path / "a.mha"))
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5)).save(tmp_path / "g.png")
    Image.fromarray(np.arange(15, dtype=np.uint16).reshape(3, 5) * 4000).save(tmp_path / "d.png")
    Image.fromarray(np.arange(45, dtype=np.uint8).reshape(3, 5, 3)).save(tmp_path / "c.png")
    reader = PictureReader() if name.endswith("png") else None
    theirs, ours = LoadImage(reader, ensure_channel_first=True)(tmp_path / name), read_source(tmp_path / name).tensor()
    assert torch.equal(EnsureChannelFirst()(ours).as_tensor(), theirs.as_tensor())
    if reader is None:
        assert np.abs(np.asarray(ours.affine) - np.asarray(theirs.affine)).max() < 1e-6


def test_a_probability_keeps_its_values_and_in_a_picture_256_levels(tmp_path):
    nib.save(nib.Nifti1Image(VOXELS, OBLIQUE), tmp_path / "a.nii.gz")
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5)).save(tmp_path / "a.png")
    values = RNG.random(VOXELS.shape).astype(np.float32)
    volume, picture = (read_source(tmp_path / name) for name in ("a.nii.gz", "a.png"))
    (tmp_path / "p.nii").write_bytes(content_of(values, volume, ".nii"))
    (tmp_path / "p.png").write_bytes(content_of(np.full((3, 5), 0.5, np.float32), picture, ".png"))
    assert np.array_equal(np.asarray(nib.load(tmp_path / "p.nii").dataobj), values)
    assert set(np.asarray(Image.open(tmp_path / "p.png")).flat) == {128}


def test_an_oblique_scan_from_dicom_survives_as_nifti_to_a_millionth(tmp_path):
    turn = 0.3223  # about the left-right axis, in LPS: the rotation to RAS is then nearly half a turn
    lps = np.eye(4)
    lps[:3, :3] = [[1, 0, 0], [0, np.cos(turn), -np.sin(turn)], [0, np.sin(turn), np.cos(turn)]] @ np.diag(
        [0.5, 0.5, 3]
    )
    affine = np.diag([-1.0, -1, 1, 1]) @ lps
    voxels = RNG.integers(0, 500, (384, 384, 4)).astype(np.int16)
    (tmp_path / "a.nii.gz").write_bytes(content_of(voxels, Source(tmp_path, voxels, affine), ".nii.gz"))
    assert np.abs(read_source(tmp_path / "a.nii.gz").affine - affine).max() < 1e-6


def test_an_oblique_volume_whose_qform_is_only_rounded_is_accepted(tmp_path):
    turn, image = 0.3223, np.eye(4)
    image[:3, :3] = [[-1, 0, 0], [0, -np.cos(turn), np.sin(turn)], [0, np.sin(turn), np.cos(turn)]]
    made = nib.Nifti1Image(RNG.integers(0, 9, (512, 512, 2)).astype(np.int16), image)
    made.set_qform(image, 1)
    nib.save(made, tmp_path / "a.nii.gz")
    assert np.abs(read_source(tmp_path / "a.nii.gz").affine - image).max() < 1e-6
