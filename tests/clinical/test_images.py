"""Images: what is found, and that a mask lies where its image lies."""

from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedbcs_monai.clinical.images import find_images, mask_suffixes, read_source, write_mask
from fedbcs_monai.errors import UserError

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
    write_mask(tmp_path / "m.nii.gz", MASK, read_source(tmp_path / "a.nii"))
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
        write_mask(tmp_path / f"{name}_mask.nii.gz", MASK, read_source(tmp_path / f"{name}.nii"))
    assert (tmp_path / "little_mask.nii.gz").read_bytes() == (tmp_path / "big_mask.nii.gz").read_bytes()


@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_an_itk_mask_has_its_image_s_geometry(tmp_path, suffix):
    path = tmp_path / f"größe Ω.{suffix}"
    image = itk.image_from_array(np.ascontiguousarray(VOXELS.T))
    image.SetSpacing([0.5, 0.7, 3.0])
    image.SetOrigin([-80.5, 12, 3])
    image.SetDirection(itk.matrix_from_array(turned(0.3) @ np.diag([-1.0, 1, 1])))
    itk.imwrite(image, str(path))
    write_mask(tmp_path / f"m.{suffix}", MASK, read_source(path))
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
    write_mask(tmp_path / "m.png", mask, read_source(tmp_path / "a.png"))
    with Image.open(tmp_path / "m.png") as file:
        assert file.size == (5, 3)
        assert np.array_equal(np.asarray(file), mask * 255)


def test_spacing_is_the_length_of_a_step_and_unknown_for_pictures(tmp_path):
    nib.save(nib.Nifti1Image(VOXELS, SAGITTAL), tmp_path / "a.nii.gz")
    Image.fromarray(np.arange(15, dtype=np.uint8).reshape(3, 5)).save(tmp_path / "a.png", dpi=(300, 300))
    assert np.allclose(read_source(tmp_path / "a.nii.gz").spacing_mm, (0.5, 0.7, 3.0))
    assert read_source(tmp_path / "a.png").spacing_mm is None


def test_a_folder_gives_its_own_images_sorted_and_names_those_of_another_kind(tmp_path):
    (tmp_path / "deeper").mkdir()
    for name in ("b.PNG", "a.tif", ".hidden.png", "notes.txt", "c.nii.gz", "deeper/d.png"):
        (tmp_path / name).touch()
    found = find_images(tmp_path, wants_pictures=True)
    assert [path.name for path in found.images] == ["a.tif", "b.PNG"]
    assert found.skipped == ["c.nii.gz"]


@pytest.mark.parametrize(
    ("names", "inputs", "said"),
    [
        (["a.nii.gz"], ".", "holds only others, such as a.nii.gz; this model segments pictures"),
        (["a.txt"], ".", "holds no image; this model segments pictures"),
        (["a.nii.gz"], "a.nii.gz", "a.nii.gz: this model segments pictures"),
        ([], "there is none.png", "no such file or folder"),
        (["a.png", "A.tif"], ".", "A.tif and a.png would get masks of one name"),
    ],
)
def test_what_the_model_cannot_read_is_refused(tmp_path, names, inputs, said):
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=said):
        find_images(tmp_path / inputs, wants_pictures=True)


def test_a_name_that_hides_compression_is_refused(tmp_path):
    nib.save(nib.Nifti1Image(VOXELS, OBLIQUE), tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    with pytest.raises(UserError, match="compressed"):
        read_source(tmp_path / "a.nii")


@pytest.mark.parametrize(
    ("name", "suffix"), [("a.nii", ".nii.gz"), ("a.MHA", ".mha"), ("a.nrrd", ".nrrd"), ("a.jpg", ".png")]
)
def test_a_mask_is_of_its_image_s_kind(name, suffix):
    assert mask_suffixes(Path(name))[0] == suffix
