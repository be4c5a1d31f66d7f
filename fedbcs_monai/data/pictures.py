"""PictureReader: reads PNG, TIFF, JPEG and BMP as (H, W) arrays, and refuses files that would be read wrongly."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import PILReader
from numpy.typing import NDArray
from PIL import Image

from fedbcs_monai.errors import UserError

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp")

_ORIENTATION = 0x0112  # the EXIF tag


class PictureReader(PILReader):  # type: ignore[misc]  # MONAI is untyped
    """Read a picture as rows and columns, `(H, W)` or `(H, W, 3)`, in the file's own integers.

    MONAI's `PILReader` gives `(W, H)`, takes palette numbers for grey levels, keeps alpha as a fourth channel and
    ignores EXIF rotation. A bare grey or RGB picture with rows first is all that networks and masks need. A 16-bit grey
    picture keeps its depth (`meta["mode"]` starts with "I;16"); of 16-bit RGB, Pillow reads the upper 8 bits.
    """

    def __init__(self) -> None:
        super().__init__(reverse_indexing=False)

    def verify_suffix(self, filename: Any) -> bool:
        """Whether every file name ends as a picture's does."""
        return all(str(name).lower().endswith(SUFFIXES) for name in _names(filename))

    def read(self, data: Any, **_: Any) -> tuple[Path, ...]:
        """The paths only: LoadImage buries in a page of traces whatever is raised here, so `get_data` opens them."""
        return tuple(Path(name) for name in _names(data))

    def get_data(self, img: Any) -> tuple[NDArray[Any], dict[str, Any]]:
        """The pixels and their metadata.

        Raises:
            UserError: a file that is not a sound, upright grey or RGB picture.
        """
        array, meta = super().get_data([open_picture(path) for path in img])
        return array, meta

    def _get_meta_dict(self, img: Image.Image) -> dict[str, Any]:
        return {"mode": img.mode, "width": img.width, "height": img.height}

    def _get_spatial_shape(self, img: Image.Image) -> NDArray[Any]:
        return np.asarray((img.height, img.width))


def open_picture(path: Path) -> Image.Image:
    """Decode a picture as mode L (8-bit grey), I;16 (16-bit grey) or RGB.

    Raises:
        UserError: the file cannot be decoded, or its meaning is open: several pages, an EXIF rotation, transparency,
            CMYK, or grey values of 32 bits, which have no defined white.
    """
    path = Path(path)
    try:
        with Image.open(path) as file:
            file.verify()  # checksums, which decoding a PNG ignores
        with Image.open(path) as file:
            orientation = file.getexif().get(_ORIENTATION, 1)
            pages = getattr(file, "n_frames", 1)
            file.load()
            picture = file.copy()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UserError(f"{path}: not a readable picture ({error}); export it again") from None
    if pages > 1:
        raise UserError(f"{path}: has {pages} pages; save each as a picture of its own")
    if orientation not in (0, 1):
        raise UserError(f"{path}: is rotated by its EXIF tag ({orientation}); save it upright, as its mask is")
    return _grey_or_rgb(picture, path)


def _grey_or_rgb(picture: Image.Image, path: Path) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        if np.asarray(picture)[..., 3].min() < 255:
            raise UserError(f"{path}: has transparent pixels; save it without an alpha channel")
    if picture.mode in ("L", "RGB") or picture.mode.startswith("I;16"):
        return picture
    if picture.mode == "1":
        return picture.convert("L")
    if picture.mode in ("P", "RGBA"):
        return picture.convert("RGB")
    raise UserError(f"{path}: colour mode {picture.mode}; save it as 8-bit grey or RGB")


def _names(data: Any) -> Sequence[Any]:
    return data if isinstance(data, list | tuple) else (data,)
