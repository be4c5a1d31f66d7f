"""TIFF: rows come whole and in order however they are stored, and what cannot be read in parts is refused."""

import numpy as np
import pytest
import tifffile

from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.large_image.tiff import rows_of, size_of, write_tiled

PIXELS = np.random.default_rng(0).integers(0, 255, (301, 530, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"rowsperstrip": 7},
        {"rowsperstrip": 7, "compression": "lzw", "predictor": True},
        {"tile": (64, 128)},
        {"tile": (256, 256), "compression": "zlib"},
        {"tile": (16, 1024), "compression": "deflate", "bigtiff": True, "byteorder": ">"},
    ],
)
@pytest.mark.parametrize("pixels", [PIXELS, PIXELS[..., 0], PIXELS[..., 1].astype(np.uint16) * 257])
def test_rows_are_those_of_the_picture(tmp_path, stored, pixels):
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", **stored)
    assert size_of(tmp_path / "a.tif") == (301, 530)
    assert np.array_equal(np.concatenate(list(rows_of(tmp_path / "a.tif"))), pixels)


def test_jpeg_in_its_own_colours_comes_as_rgb(tmp_path):
    smooth = np.broadcast_to(np.linspace(0, 255, 530)[None, :, None], PIXELS.shape).astype(np.uint8).copy()
    smooth[..., 2] = 30
    tifffile.imwrite(tmp_path / "a.tif", smooth, photometric="rgb", tile=(64, 64), compression="jpeg")
    rows = np.concatenate(list(rows_of(tmp_path / "a.tif")))
    assert np.array_equal(rows, tifffile.imread(tmp_path / "a.tif"))
    assert np.abs(rows[:256, :512].astype(int) - smooth[:256, :512]).max() < 12


def test_a_smaller_copy_of_the_picture_behind_it_is_no_second_page(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(PIXELS, photometric="rgb", tile=(64, 64))
        file.write(PIXELS[::2, ::2], photometric="rgb", tile=(64, 64), subfiletype=1)
    assert np.array_equal(np.concatenate(list(rows_of(tmp_path / "a.tif"))), PIXELS)


@pytest.mark.parametrize(
    ("pixels", "stored", "said"),
    [
        (np.dstack([PIXELS, PIXELS[..., 0]]), {"photometric": "rgb", "extrasamples": ["unassalpha"]}, "alpha"),
        (PIXELS.astype(np.uint16), {"photometric": "rgb"}, "RGB with 3 samples of uint16"),
        (PIXELS[..., 0].astype(np.float32), {"photometric": "minisblack"}, "samples of float32"),
        (PIXELS[..., 0], {"photometric": "miniswhite"}, "MINISWHITE"),
        (np.dstack([PIXELS, PIXELS[..., 0]]), {"photometric": "separated"}, "SEPARATED with 4 samples"),
        (np.moveaxis(PIXELS, 2, 0), {"photometric": "rgb", "planarconfig": "separate"}, "separate planes"),
        (PIXELS, {"photometric": "rgb", "extratags": [("Orientation", "H", 1, 6, True)]}, "rotated by its Orientation"),
        (np.stack([PIXELS, PIXELS]), {"photometric": "rgb"}, "has 2 pages"),
    ],
)
def test_pictures_of_open_meaning_are_refused(tmp_path, pixels, stored, said):
    tifffile.imwrite(tmp_path / "a.tif", pixels, metadata=None, **stored)
    with pytest.raises(UserError, match=rf"a.tif: .*{said}"):
        list(rows_of(tmp_path / "a.tif"))


def test_one_compressed_strip_too_large_to_decode_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("fedbcs_monai.predict.large_image.tiff._SEGMENT", 1000)
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", compression="zlib", rowsperstrip=301)
    with pytest.raises(UserError, match="compressed strips of 301 rows"):
        list(rows_of(tmp_path / "a.tif"))


def test_a_file_cut_short_is_named(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", PIXELS, photometric="rgb", tile=(64, 64), compression="zlib")
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"a.tif: "):
        size_of(tmp_path / "a.tif")
        list(rows_of(tmp_path / "a.tif"))
    (tmp_path / "b.tif").write_bytes(b"no TIFF")
    with pytest.raises(UserError, match=r"b.tif: not a readable TIFF"):
        size_of(tmp_path / "b.tif")


def test_a_tiled_mask_is_read_back(tmp_path):
    mask = PIXELS[..., 0]
    (tmp_path / "raw").write_bytes(mask.tobytes())
    write_tiled(tmp_path / "m.tif", tmp_path / "raw", mask.shape)
    assert np.array_equal(tifffile.imread(tmp_path / "m.tif"), mask)
    with tifffile.TiffFile(tmp_path / "m.tif") as file:
        assert file.pages.first.is_tiled
