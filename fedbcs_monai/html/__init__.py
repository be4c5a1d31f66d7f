"""HTML: the shared template of all pages, self-contained and written atomically."""

import base64
import io
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from jinja2.loaders import ChoiceLoader
from PIL import Image

from fedbcs_monai.errors import UserError
from fedbcs_monai.files import write_whole


def templates(*rooms: str) -> Environment:
    """The templates of rooms of this package, and those that all rooms share, such as ``look.css``."""
    return Environment(
        loader=ChoiceLoader([PackageLoader("fedbcs_monai", room) for room in (*rooms, "html")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def embedded(image: Image.Image, longest: int = 400) -> str:
    """A picture as a data URI, at most `longest` pixels a side: JPEG, as a stained slide is ten times that as PNG."""
    image = image.convert("RGB")
    image.thumbnail((longest, longest))
    stored = io.BytesIO()
    image.save(stored, "JPEG", quality=86, subsampling=0)
    return "data:image/jpeg;base64," + base64.b64encode(stored.getvalue()).decode("ascii")


def write_html(output: Path, html: str) -> None:
    """Write a page, of which a reader never meets half."""
    try:
        write_whole(output, html.encode(errors="replace"))  # names of files may hold bytes that are no text
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror}). Name another place to write it to.") from None
