"""Pages: pictures inside, text escaped, whole or not at all."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from fedbcs_monai.errors import UserError
from fedbcs_monai.html import embedded, templates, write_html


def test_pictures_are_embedded_no_larger_than_asked():
    uri = embedded(Image.new("L", (100, 50)), longest=20)
    stored = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(stored)).size == (20, 10)


def test_a_picture_of_noise_is_embedded_too():
    noise = np.random.default_rng(0).integers(0, 255, (200, 300, 3)).astype(np.uint8)
    assert embedded(Image.fromarray(noise)).startswith("data:image/jpeg;base64,")


@pytest.mark.parametrize("room", ["report", "predict"])
def test_every_page_has_the_one_look(room):
    environment = templates(room)
    assert "--paper" in environment.get_template("look.css").render()
    assert '{% include "look.css" %}' in environment.loader.get_source(environment, "page.html")[0]


def test_a_page_that_cannot_be_written_leaves_nothing(tmp_path):
    (tmp_path / "page").write_text("a file")
    with pytest.raises(UserError, match="cannot be written"):
        write_html(tmp_path / "page" / "page.html", "<p>")
    assert [path.name for path in tmp_path.iterdir()] == ["page"]
