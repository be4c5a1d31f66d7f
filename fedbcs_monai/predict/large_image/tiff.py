"""Tiled TIFF: read a large picture by rows, and write its mask in tiles."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from fedbcs_monai.errors import UserError

LARGE = 2**24
"""Pixels above which a picture is segmented strip by strip: 4096 x 4096."""

TILE = 256
_BUFFER = 2**24  # bytes read at once
_SEGMENT = 2**28  # bytes of a tile or strip that are decoded at once


def size_of(path: Path) -> tuple[int, int]:
    """Height and width of the first page.

    Raises:
        UserError: it is not a readable TIFF.
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            return page.imagelength, page.imagewidth
    except Exception as error:  # what tifffile raises has no common ancestor
        raise UserError(f"{path}: not a readable TIFF ({error}); export it again") from None


def rows_of(path: Path) -> Iterator[NDArray[np.generic]]:
    """The rows of a large TIFF from the top, some at a time, (N, W) or (N, W, 3); one row of its tiles is in memory.

    Raises:
        UserError: it cannot be read in parts, or is not an upright grey or RGB picture without transparency.
    """
    with tifffile.TiffFile(path) as file:
        page = file.pages.first
        problem = _problem(file, page)
        if problem:
            raise UserError(f"{path}: {problem}")
        try:
            yield from _bands(page)
        except UserError:
            raise
        except Exception as error:  # what the decoders raise has no common ancestor
            raise UserError(f"{path}: cannot be decoded ({type(error).__name__}: {error}); export it again") from None


def write_tiled(path: Path, raw: Path, size: tuple[int, int]) -> None:
    """Write a raw file of bytes, row by row, as a tiled and compressed TIFF.

    Args:
        path: of the TIFF.
        raw: of the bytes, one for each pixel.
        size: height and width.
    """
    height, width = size

    def tiles() -> Iterator[NDArray[np.uint8]]:
        for top in range(0, height, TILE):
            rows = np.fromfile(raw, np.uint8, min(TILE, height - top) * width, offset=top * width).reshape(-1, width)
            for left in range(0, width, TILE):
                part = rows[:, left : left + TILE]
                yield np.pad(part, [(0, TILE - side) for side in part.shape])

    with tifffile.TiffWriter(path) as file:
        file.write(
            tiles(),
            shape=(height, width),
            dtype=np.uint8,
            tile=(TILE, TILE),
            photometric="minisblack",
            compression="zlib",
            metadata=None,
        )


def _problem(file: tifffile.TiffFile, page: tifffile.TiffPage) -> str:
    if any(not other.is_reduced for other in file.pages[1:]):
        return f"has {len(file.pages)} pages; save each as a picture of its own"
    if page.tags.valueof("Orientation", 1) != 1:
        return "is rotated by its Orientation tag; save it upright"
    grey = page.photometric == tifffile.PHOTOMETRIC.MINISBLACK and page.samplesperpixel == 1
    colours = page.photometric in (tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.YCBCR) and page.samplesperpixel == 3
    if not ((grey and page.dtype in (np.uint8, np.uint16)) or (colours and page.dtype == np.uint8)):
        kind = f"{page.photometric.name} with {page.samplesperpixel} samples of {page.dtype}"
        return f"is {kind}; save it as 8-bit grey or RGB without an alpha channel"
    if colours and page.planarconfig != tifffile.PLANARCONFIG.CONTIG:
        return "keeps its colours in separate planes; save them interleaved"
    height = page.tilelength if page.is_tiled else page.rowsperstrip
    if not page.is_memmappable and height * page.imagewidth * page.samplesperpixel * page.dtype.itemsize > _SEGMENT:
        return f"has compressed strips of {height} rows, too large to be read in parts; save it tiled"
    return ""


def _bands(page: tifffile.TiffPage) -> Iterator[NDArray[np.generic]]:
    """The decoded tiles or strips put together to full rows."""
    if page.is_memmappable:
        array = page.asarray(out="memmap").reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
        yield from (_squeezed(np.array(array[top : top + TILE])) for top in range(0, len(array), TILE))
        return
    band, top = None, -1
    for data, (_, _, row, column, _), (_, height, width, samples) in page.segments(maxworkers=1, buffersize=_BUFFER):
        if row != top:
            if band is not None:
                yield _squeezed(band)
            rows = min(height, page.imagelength - row)
            band, top = np.zeros((rows, page.imagewidth, samples), page.dtype), row
        if data is not None:
            assert band is not None
            part = data[0][: len(band), : page.imagewidth - column]
            band[: len(part), column : column + width][:, : part.shape[1]] = part
    if band is not None:
        yield _squeezed(band)


def _squeezed(band: NDArray[np.generic]) -> NDArray[np.generic]:
    return band[..., 0] if band.shape[-1] == 1 else band
