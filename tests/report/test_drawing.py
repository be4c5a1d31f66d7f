"""Drawing: files of three kinds, the same bytes whenever they are written, with names as they are."""

import re
import xml.etree.ElementTree as ET

import pytest
from matplotlib import rc_context

from fedbcs_monai.errors import UserError
from fedbcs_monai.report.drawing import charts, finished, name_axes, name_rows, write_figures
from fedbcs_monai.report.style import RC

SVG = "{http://www.w3.org/2000/svg}"


def drawing(*titles, label="FedAvg"):
    with rc_context(RC):
        figure, shown = charts(titles or ["Ash"], 1.5, share_y=True)
        for axes in shown:
            axes.plot([10, 20], [0, 0])
            name_rows(axes, [label])
        name_axes(shown, "Dice, %")
        return finished("dice", "Dice <by> site", "Dots & boxes", figure)


def test_every_figure_is_written_as_pdf_svg_and_png(tmp_path):
    written = write_figures(tmp_path / "figures", [drawing()])
    assert [path.name for path in written] == ["dice.pdf", "dice.svg", "dice.png"]
    starts = [path.read_bytes()[:8] for path in written]
    assert starts[0].startswith(b"%PDF-") and starts[1].startswith(b"<?xml") and starts[2] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("kind", ["pdf", "svg", "png"])
def test_a_figure_is_the_same_bytes_whenever_it_is_drawn_and_says_nothing_of_the_moment(kind):
    one = drawing()
    assert one.encoded(kind) == one.encoded(kind) == drawing().encoded(kind)
    assert not re.search(rb"(?i)matplotlib (v|version)|creationdate|20\d\d-\d\d-\d\d", one.encoded(kind))


def test_an_svg_has_its_title_and_caption_inside_and_its_letters_as_paths():
    root = ET.fromstring(drawing().encoded("svg"))
    assert root.findtext(f"{SVG}title") == "Dice <by> site"
    assert "Dots & boxes" in "".join(root.itertext())
    assert root.findall(f".//{SVG}text") == []


def test_a_pdf_has_no_type_3_font():
    assert b"/Type3" not in drawing().encoded("pdf")


def test_a_name_with_dollars_is_not_mathematics():
    figure = drawing(label=r"a $\alpha$").figure
    assert figure.axes[0].get_yticklabels()[0].get_text() == r"a $\alpha$"
    assert b"mathdefault" not in drawing(label=r"a $\alpha$").encoded("svg")


def test_five_panels_leave_no_axis_without_numbers():
    shown = drawing(*"abcde").figure.axes
    assert [axes.get_title(loc="left") for axes in shown] == list("abcde")
    assert [axes.xaxis.get_tick_params()["labelbottom"] for axes in shown] == [False, False, True, True, True]


def test_a_folder_that_cannot_be_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"dice\.pdf cannot be written .* Name another --figures"):
        write_figures(tmp_path / "file", [drawing()])
