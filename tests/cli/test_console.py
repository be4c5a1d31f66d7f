"""The console: names and paths are printed as they are."""

import io

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedbcs_monai.cli.console import RichConsole

NAMES = ["site [old]", "[/]", "[bold]x[/bold]", ":smile:", "a\\[b]", "[link=x]y", "{task}", "100 %", "'quoted' 12.5"]


def heard(name: str, width: int = 200) -> dict[str, str]:
    """What is printed where a name can stand, on a terminal."""
    say = RichConsole()
    streams = {"out": say.out, "console": say.console}
    for console in streams.values():
        console.file, console._force_terminal, console._color_system, console.width = io.StringIO(), True, None, width
        console._environ, console.is_interactive = {"TERM": "xterm"}, True
    say.bars.disable = False
    say.result("wrote", path=name)
    say.table("scores", name, {"site": "site", "dice_percent": "Dice %"}, [[name, 71.0]])
    say.note(name)
    say.on_evaluation(3, {name: 0.5})
    say.on_train_begin(name, 5, 0, {name: 2})
    say.on_step_end(name, 1)
    say.bars.refresh()
    say.on_train_end()
    with say.progress(name) as moved:
        moved(1, 2)
    return {which: console.file.getvalue() for which, console in streams.items()}


@pytest.mark.parametrize("name", NAMES)
def test_names_are_printed_as_they_are(name):
    said = heard(name)
    assert said["out"].count(name) == 3  # result, title and cell
    assert said["console"].count(name) >= 5  # note, scores, folder, two bars


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from(["[", "]", "/", "b", "red", ":", "smile", "\\", "=", "{", "7"]), min_size=1).map("".join)
)
def test_whatever_a_name_is_made_of_it_is_printed_as_it_is(name):
    said = heard(name)
    assert said["out"].count(name) >= 3
    assert said["console"].count(name) >= 3


def test_a_name_too_long_for_the_table_is_folded_not_cut():
    said = heard("s" * 90, width=60)["out"]
    assert "…" not in said
    assert said.count("s") >= 3 * 90
