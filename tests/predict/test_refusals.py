"""Refusals: what MONAI loads wrongly without a word is refused or warned of by name; what is sound passes."""

import gzip
import struct

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel.nifti1 import unit_codes
from PIL import Image

from fedbcs_monai.components import build
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.images import PICTURE_SUFFIXES, read_source

RNG = np.random.default_rng(0)
VOXELS = RNG.integers(0, 500, (7, 5, 4)).astype(np.int16)
AFFINE = np.array([[-0.5, 0, 0, 31], [0, -0.5, 0, -12.5], [0, 0, 3.0, 5], [0, 0, 0, 1]])
GREY = RNG.integers(0, 255, (6, 8)).astype(np.uint8)
PIXDIM, VOX_OFFSET, QOFFSET, SROW = 76, 108, 268, 280  # where they lie in a NIfTI-1 header


def nifti(array=VOXELS, **codes):
    image = nib.Nifti1Image(array, AFFINE)
    image.set_sform(AFFINE, codes.get("sform", 1))
    image.set_qform(AFFINE, codes.get("qform", 1))
    return image


def patched(*changes):
    """A NIfTI file with single numbers of its header replaced."""

    def write(path):
        content = bytearray(nifti().to_bytes())
        for at, value in changes:
            struct.pack_into("<f", content, at, value)
        path.with_suffix(".nii").write_bytes(content)
        return path.with_suffix(".nii")

    return write


def volume(array, **codes):
    def write(path):
        nib.save(nifti(array, **codes), path.with_suffix(".nii.gz"))
        return path.with_suffix(".nii.gz")

    return write


def wrong_checksum(path):
    content = bytearray(gzip.compress(nifti().to_bytes()))
    content[-6] ^= 0xFF
    path.with_suffix(".nii.gz").write_bytes(content)
    return path.with_suffix(".nii.gz")


def in_unit(unit):
    def write(path):
        image = nifti()
        image.header["xyzt_units"] = unit if isinstance(unit, int) else unit_codes[unit]
        path.with_suffix(".nii").write_bytes(image.to_bytes())
        return path.with_suffix(".nii")

    return write


def longer(path):
    path.with_suffix(".nii").write_bytes(nifti().to_bytes() + bytes(70))
    return path.with_suffix(".nii")


def pair_longer(path):
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), path.with_suffix(".img"))
    with path.with_suffix(".img").open("ab") as file:
        file.write(bytes(70))
    return path.with_suffix(".img")


def png_with_wrong_checksum(path):
    Image.fromarray(GREY).save(path.with_suffix(".png"))
    content = bytearray(path.with_suffix(".png").read_bytes())
    content[content.index(b"IEND") - 8] ^= 0xFF  # the last four bytes of the pixels' chunk are its checksum
    path.with_suffix(".png").write_bytes(content)
    return path.with_suffix(".png")


def as_in_training(path):
    """The file as the shipped configurations read it."""
    config = load_config("nuclei" if path.suffix in PICTURE_SUFFIXES else "prostate", {})
    return build(config, "reading").transforms[0]({"image": path})["image"]


def text(suffix, old, new):
    """An ITK file with its header edited."""

    def write(path):
        path = path.with_suffix(suffix)
        image = itk.image_from_array(np.ascontiguousarray(VOXELS.T))
        image.SetSpacing([0.75, 0.75, 3.0])
        itk.imwrite(image, str(path))
        content = path.read_bytes()
        assert old in content
        path.write_bytes(content.replace(old, new))
        return path

    return write


def picture(mode="L", suffix=".png", pixels=GREY, **saved):
    def write(path):
        made = Image.fromarray(pixels).convert(mode)
        if mode in ("RGBA", "LA"):
            made.putpixel((0, 0), (*made.getpixel((0, 0))[:-1], 0))
        made.save(path.with_suffix(suffix), **saved)
        return path.with_suffix(suffix)

    return write


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def two_pages(path):
    page = Image.fromarray(GREY)
    page.save(path.with_suffix(".tif"), save_all=True, append_images=[page])
    return path.with_suffix(".tif")


@pytest.mark.parametrize(
    ("write", "said"),
    [
        pytest.param(patched((PIXDIM + 4, 0.9)), "voxel size 0.9 x 0.5 x 3 mm contradicts", id="pixdim"),
        pytest.param(patched((PIXDIM + 4, 0.0)), "voxel size 0 x 0.5 x 3 mm;", id="zero pixdim"),
        pytest.param(patched((QOFFSET, 41.0)), "sform and qform differ by up to 20.0 voxels", id="two forms"),
        pytest.param(patched((PIXDIM + 12, 0.0), (SROW + 40, 1.0)), "voxel size 0.5 x 0.5 x 0 mm", id="zero, for 1 mm"),
        pytest.param(patched((VOX_OFFSET, 0.0)), "begin inside its header .vox_offset 0.", id="header as voxels"),
        pytest.param(in_unit("meter"), "states lengths in metres", id="metres"),
        pytest.param(in_unit("micron"), "states lengths in micrometres", id="micrometres"),
        pytest.param(in_unit(5), "states lengths in an unknown unit", id="no unit"),
        pytest.param(longer, "holds 70 bytes more than its 7 x 5 x 4 voxels are", id="more voxels than stated"),
        pytest.param(pair_longer, "holds 70 bytes more than its 7 x 5 x 4 voxels are", id="more voxels in a pair"),
        pytest.param(volume(np.where(VOXELS > 400, 1e303, 1.0)), "beyond single precision", id="1e303"),
        pytest.param(volume(np.where(VOXELS > 400, 3e38, -3e38)), "beyond single precision", id="a range of 6e38"),
        pytest.param(volume(VOXELS, sform=0, qform=0), "no orientation", id="no form"),
        pytest.param(patched((SROW, np.nan)), "differ by up to nan voxels", id="NaN in the affine"),
        pytest.param(patched((SROW, 0.0), (PIXDIM + 4, 0.0)), "voxel size 0 x", id="singular affine"),
        pytest.param(volume(np.where(VOXELS > 400, np.nan, 1.0)), "NaN or infinite voxels", id="NaN"),
        pytest.param(volume(np.where(VOXELS > 400, np.inf, 1.0)), "NaN or infinite voxels", id="infinite"),
        pytest.param(volume(np.full(VOXELS.shape, 7, np.int16)), "every voxel is 7", id="constant"),
        pytest.param(volume(np.stack([VOXELS, VOXELS], -1)), "expected one volume of three axes", id="two volumes"),
        pytest.param(volume(VOXELS.astype(np.complex64)), "one number for each voxel", id="complex"),
        pytest.param(wrong_checksum, "not a readable NIfTI file .CRC check failed", id="checksum"),
        pytest.param(text(".mha", b"0.75 0.75 3", b"0,75 0,75 3"), "not a readable image .*spacing", id="comma, MHA"),
        pytest.param(text(".mha", b"0.75 0.75 3", b"0 0.75 3"), "not a readable image .*spacing", id="zero, MHA"),
        pytest.param(text(".nrrd", b"(0.75,0,0)", b"(0,75,0,0)"), "not a readable image", id="comma, NRRD"),
        pytest.param(text(".nrrd", b"(0.75,0,0)", b"(nan,0,0)"), "not a readable image", id="NaN, NRRD"),
        pytest.param(picture("RGB", ".jpg", exif=rotated()), "rotated by its EXIF tag", id="EXIF"),
        pytest.param(picture("CMYK", ".tif"), "colour mode CMYK", id="CMYK"),
        pytest.param(picture("RGBA"), "transparent pixels", id="RGBA"),
        pytest.param(picture("LA"), "transparent pixels", id="grey with alpha"),
        pytest.param(picture("F", ".tif"), "colour mode F", id="32 bits"),
        pytest.param(picture(pixels=np.zeros((6, 8), np.uint8)), "every voxel is 0", id="black"),
        pytest.param(png_with_wrong_checksum, "not a readable picture .*checksum", id="checksum, PNG"),
        pytest.param(two_pages, "has 2 pages", id="pages"),
    ],
)
def test_what_would_be_segmented_wrongly_is_refused_by_name(tmp_path, write, said):
    path = write(tmp_path / "größe 1")
    with pytest.raises(UserError, match=rf"größe 1\..*: .*({said})"):
        read_source(path)
    if not said.startswith("every voxel"):  # a label may be empty, and training's reader does not know which it reads
        with pytest.raises(UserError, match=rf"größe 1\..*: .*({said})"):
            as_in_training(path)


def big_endian(path):
    image = nib.Nifti1Image(VOXELS, AFFINE, nib.Nifti1Header(endianness=">"))
    nib.save(image, path.with_suffix(".nii"))
    return path.with_suffix(".nii")


def scaled(path):
    image = nifti()
    image.header.set_slope_inter(2.5, -7)
    nib.save(image, path.with_suffix(".nii.gz"))
    return path.with_suffix(".nii.gz")


def pair(path):
    nib.save(nib.Nifti1Pair(VOXELS, AFFINE), path.with_suffix(".img"))
    return path.with_suffix(".img")


def compressed_without_saying_so(path):
    path.with_suffix(".nii").write_bytes(gzip.compress(nifti().to_bytes()))
    return path.with_suffix(".nii")


def not_compressed(path):
    path.with_suffix(".nii.gz").write_bytes(nifti().to_bytes())
    return path.with_suffix(".nii.gz")


SOUND = [
    *(big_endian, scaled, pair, compressed_without_saying_so, not_compressed),
    *(volume(VOXELS, sform=0), volume(VOXELS, qform=0), volume(VOXELS[..., None]), volume(VOXELS[..., None, None])),
    text(".mha", b"NDims", b"NDims"),
]


@pytest.mark.parametrize("write", SOUND)
def test_training_reads_the_bits_and_the_place_that_prediction_reads(tmp_path, write):
    path = write(tmp_path / "a")
    theirs, ours = as_in_training(path), read_source(path).tensor()
    assert theirs.shape == VOXELS.shape
    assert torch.equal(theirs.as_tensor(), ours.as_tensor())
    assert torch.equal(theirs.affine, ours.affine)


@pytest.mark.parametrize("write", SOUND[:-1])
def test_sound_volumes_are_accepted(tmp_path, write):
    source = read_source(write(tmp_path / "ein Bild, größer Ω"))
    assert np.corrcoef(source.array.ravel(), VOXELS.ravel())[0, 1] > 0.999
    assert np.abs(source.affine - AFFINE).max() < 1e-5
    assert source.notes == ()


@pytest.mark.parametrize(
    ("write", "shape"),
    [
        (picture("P"), (6, 8, 3)),
        (picture("1"), (6, 8)),
        (picture("I;16", ".tif", GREY.astype(np.uint16) * 256), (6, 8)),
        (picture("RGB", ".bmp"), (6, 8, 3)),
    ],
)
def test_sound_pictures_are_accepted(tmp_path, write, shape):
    assert read_source(write(tmp_path / "a")).array.shape == shape


def test_a_nrrd_that_does_not_say_how_it_lies_is_warned_of(tmp_path):
    write = text(".nrrd", b"space: left-posterior-superior\n", b"")
    path = write(tmp_path / "a")
    content = path.read_bytes().replace(
        b"space directions: (0.75,0,0) (0,0.75,0) (0,0,3)\n", b"spacings: 0.75 0.75 3\n"
    )
    path.write_bytes(content.replace(b"space origin: (0,0,0)\n", b""))
    assert "which way the patient lies" in read_source(path).notes[0]
    assert read_source(text(".nrrd", b"NRRD", b"NRRD")(tmp_path / "b")).notes == ()
