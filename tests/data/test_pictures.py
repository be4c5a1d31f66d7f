"""Reading pictures: rows first, and nothing read wrongly without a word."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose, EnsureChannelFirstd, LoadImaged
from PIL import Image

from fedbcs_monai.data.pictures import PictureReader, open_picture
from fedbcs_monai.data.transforms import RGBd
from fedbcs_monai.errors import UserError

RGB = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14  # two rows, three columns


def read(path) -> torch.Tensor:
    steps = Compose(
        [LoadImaged("image", reader=PictureReader()), EnsureChannelFirstd("image"), RGBd("image")],
    )
    return steps({"image": str(path)})["image"]


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
def test_rows_come_first_and_values_lie_in_0_to_1(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}")
    image = read(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 2, 3)
    assert image.dtype == torch.float32
    assert torch.equal(image.as_tensor(), torch.from_numpy(RGB).movedim(-1, 0) / 255)
    assert image.meta["spatial_shape"].tolist() == [2, 3]


def test_grey_is_repeated(tmp_path):
    Image.fromarray(RGB[..., 0]).save(tmp_path / "a.png")
    image = read(tmp_path / "a.png")
    assert image.shape == (3, 2, 3)
    assert torch.equal(image[0], image[2])


def test_16_bit_grey_is_divided_by_its_own_white(tmp_path):
    Image.fromarray(np.array([[0, 65535, 32768]], np.uint16)).save(tmp_path / "a.png")
    assert read(tmp_path / "a.png")[0].flatten().tolist() == pytest.approx([0, 1, 32768 / 65535])


def test_a_palette_is_looked_up(tmp_path):
    Image.fromarray(RGB).quantize(8).save(tmp_path / "a.png")
    expected = np.array(Image.open(tmp_path / "a.png").convert("RGB"))
    assert torch.equal(read(tmp_path / "a.png").as_tensor(), torch.from_numpy(expected).movedim(-1, 0) / 255)


def test_opaque_alpha_is_dropped(tmp_path):
    Image.fromarray(RGB).convert("RGBA").save(tmp_path / "a.png")
    assert torch.equal(read(tmp_path / "a.png").as_tensor(), torch.from_numpy(RGB).movedim(-1, 0) / 255)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(RGB).save(path, exif=exif)


def transparent(path):
    picture = Image.fromarray(RGB).convert("RGBA")
    picture.putalpha(128)
    picture.save(path)


@pytest.mark.parametrize(
    ("name", "save", "message"),
    [
        ("a.jpg", rotated, "rotated by its EXIF tag"),
        ("a.png", rotated, "rotated by its EXIF tag"),
        ("a.png", transparent, "transparent pixels"),
        ("a.jpg", lambda p: Image.fromarray(RGB).convert("CMYK").save(p), "colour mode CMYK"),
        ("a.tif", lambda p: Image.fromarray(RGB[..., 0].astype(np.float32)).save(p), "colour mode F"),
        (
            "a.tif",
            lambda p: Image.new("L", (3, 2)).save(p, save_all=True, append_images=[Image.new("L", (3, 2))]),
            "2 pages",
        ),
        ("a.png", lambda p: p.write_text("no picture"), "not a readable picture"),
        ("a.png", lambda p: None, "not a readable picture"),
    ],
)
def test_an_unsound_picture_is_refused_by_name_in_one_line(tmp_path, name, save, message):
    save(tmp_path / name)
    with pytest.raises(UserError, match=message) as caught:
        open_picture(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_picture_cut_short_is_refused(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(UserError, match="not a readable picture"):
        open_picture(tmp_path / "a.png")
