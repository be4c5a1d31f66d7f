"""An image and its label: sound files pass, and each defect is named."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from fedbcs_monai.data.check import check_pair

SWIG_WARNS = pytest.mark.filterwarnings("ignore:builtin type .* has no __module__ attribute:DeprecationWarning")
AFFINE = np.array([[0.6, 0.1, 0, -30], [-0.1, 0.6, 0, 12], [0, 0, 3, 5], [0, 0, 0, 1]], float)


def image(**changes) -> nib.Nifti1Image:
    voxels = (
        np.random.default_rng(0).integers(0, 500, changes.get("shape", (8, 7, 3))).astype(changes.get("dtype", "i2"))
    )
    made = nib.Nifti1Image(voxels, changes.get("affine", AFFINE))
    made.set_sform(made.affine, code=changes.get("code", 1))
    made.set_qform(changes.get("qform", made.affine), code=changes.get("code", 1))
    return made


def label(values=(0, 1), **changes) -> nib.Nifti1Image:
    kind = np.float32 if isinstance(values[0], float) else np.uint8
    voxels = np.zeros(changes.get("shape", (8, 7, 3)), kind)
    voxels[:4, 0, 0] = np.resize(values, 4)
    return nib.Nifti1Image(voxels, changes.get("affine", AFFINE))


def problems(folder, first, second, suffix="nii.gz"):
    paths = folder / f"case.{suffix}", folder / f"label.{suffix}"
    for path, file in zip(paths, (first, second), strict=True):
        path.write_bytes(file) if isinstance(file, bytes) else nib.save(file, path)
    return check_pair(*paths).problems


@pytest.mark.parametrize("suffix", ["nii", "nii.gz"])
def test_a_sound_pair_has_no_problem(tmp_path, suffix):
    assert problems(tmp_path, image(), label(), suffix) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (image(dtype=">i2"), label()),
        (image(dtype="f4"), label((0.0, 255.0))),
        (nib.Nifti2Image(image().get_fdata(), AFFINE), label()),
        (image(), label(affine=AFFINE + 1e-5)),
        (image(), label((0, 0))),
    ],
)
def test_what_is_sound_is_accepted(tmp_path, first, second):
    assert problems(tmp_path, first, second) == []


def with_nan():
    voxels = np.ones((8, 7, 3), np.float32)
    voxels[0, 0, 0] = np.nan
    return nib.Nifti1Image(voxels, AFFINE)


def patched(offset: int, *values: float) -> bytes:
    """A sound file with other floats at this place of its header: pixdim is at 76, the sform at 280."""
    made = image()
    made.set_qform(None, code=0)
    content = bytearray(made.to_bytes())
    struct.pack_into(f"<{len(values)}f", content, offset, *values)
    return bytes(content)


def gzip_with_wrong_checksum():
    content = bytearray(gzip.compress(image().to_bytes()))
    content[-8] ^= 0xFF
    return bytes(content)


SHIFTED = AFFINE + np.array([[0, 0, 0, 10.0], [0] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        (with_nan(), label(), "case.nii: holds NaN"),
        (nib.Nifti1Image(np.full((8, 7, 3), 7, np.int16), AFFINE), label(), "every voxel is 7"),
        (image(code=0), label(), "no orientation"),
        (image(qform=SHIFTED), label(), "sform and qform differ"),
        (patched(76 + 12, 5.0), label(), "contradicts its own orientation"),
        (patched(280, float("nan")), label(), "singular or not finite"),
        (patched(280, *AFFINE[1], *AFFINE[0] * 0), label(), "contradicts"),
        (patched(280, *AFFINE[1], *AFFINE[1]), label(), "contradicts"),
        (image(shape=(8, 7, 3, 2)), label(), "three axes"),
        (b"no volume", label(), "not a readable NIfTI"),
        (image().to_bytes()[:600], label(), "not a readable NIfTI"),
        (gzip_with_wrong_checksum(), label(), "not a readable NIfTI"),
        (image(), label(shape=(8, 7, 4)), "label.nii: its size 8 x 7 x 4 is not the image's 8 x 7 x 3"),
        (image(), label(affine=SHIFTED), "16.4 voxels away"),
        (image(), label((0, 1, 2)), "holds 0, 1, 2"),
        (image(), label((0.0, 0.5, 1.0)), "holds 0, 0.5, 1"),
        (image(), nib.Nifti1Image(np.ones((8, 7, 3), np.uint8), AFFINE), "everything is foreground"),
    ],
)
def test_each_defect_is_named_in_one_line(tmp_path, first, second, message):
    found = problems(tmp_path, first, second, "nii")
    assert any(message in problem for problem in found), found
    assert all("\n" not in problem for problem in found)


def test_a_coloured_mask_is_refused(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    assert "coloured mask" in check_pair(tmp_path / "image.png", tmp_path / "image.png").problems[0]


def test_a_picture_does_not_match_a_volume(tmp_path):
    Image.new("L", (7, 8)).save(tmp_path / "label.png")
    nib.save(image(), tmp_path / "image.nii")
    assert "do not match" in check_pair(tmp_path / "image.nii", tmp_path / "label.png").problems[0]


@SWIG_WARNS
@pytest.mark.parametrize("suffix", ["nrrd", "mha"])
def test_nrrd_and_mha_are_read_with_their_grid(tmp_path, suffix):
    itk = pytest.importorskip("itk")
    for name, shift, values in (
        ("image", 0.0, np.arange(60)),
        ("label", 0.0, np.arange(60) < 9),
        ("far", 9.0, np.arange(60) < 9),
    ):
        made = itk.image_from_array(values.reshape(3, 4, 5).astype(np.uint8))
        made.SetSpacing([0.5, 0.5, 3.0])
        made.SetOrigin([shift, 0.0, 0.0])
        itk.imwrite(made, str(tmp_path / f"{name}.{suffix}"))
    files = {name: tmp_path / f"{name}.{suffix}" for name in ("image", "label", "far")}
    assert check_pair(files["image"], files["label"]).problems == []
    assert "18.0 voxels away" in check_pair(files["image"], files["far"]).problems[0]


@SWIG_WARNS
def test_a_broken_nrrd_is_named_in_one_line(tmp_path):
    (tmp_path / "a.nrrd").write_text("NRRD0004\nnothing")
    (problem,) = set(check_pair(tmp_path / "a.nrrd", tmp_path / "a.nrrd").problems)
    assert "a.nrrd: not a readable image" in problem
    assert "\n" not in problem
