"""Options: no command drops a value that it was given."""

import argparse
from argparse import Namespace

import pytest

from fedbcs_monai.cli.benchmark import choice_of
from fedbcs_monai.cli.main import _parser, main
from fedbcs_monai.cli.train import overrides_of
from fedbcs_monai.errors import UserError


def parsers(parser, path=()):
    """Every command and action with the words that lead to it."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if not inner:
        yield path, parser
    for action in inner:
        for name, below in action.choices.items():
            yield from parsers(below, (*path, name))


OPTIONS = [
    pytest.param(path, action, id=f"{'-'.join(path)}-{action.option_strings[-1]}")
    for path, parser in parsers(_parser())
    for action in parser._actions
    if action.option_strings and action.nargs != 0
]


def words(path, action, *parts):
    """A command line with an option, and whatever else the command cannot do without."""
    (parser,) = (parser for of, parser in parsers(_parser()) if of == path)
    needed = [one for one in parser._actions if one.required and one.dest != action.dest]
    said = [word for one in needed for word in (*one.option_strings[:1], "1")]
    return [*path, *said, *parts]


def values(action):
    if action.choices:
        return [str(choice) for choice in list(action.choices)[:2]]
    return ["1", "2"]


@pytest.mark.parametrize(("path", "action"), OPTIONS)
def test_an_option_takes_several_values_both_ways_or_is_refused_when_repeated(path, action, capsys):
    flag, (one, other) = action.option_strings[-1], values(action)
    if action.nargs == "+":
        together, apart = (
            vars(_parser().parse_args(words(path, action, *said)))[action.dest]
            for said in ([flag, one, other], [flag, one, flag, other])
        )
        assert together == apart
        assert [str(value) for value in apart] == [one, other]
    else:
        with pytest.raises(SystemExit) as stop:
            main(words(path, action, flag, one, flag, other))
        assert stop.value.code == 2
        assert "is given more than once; give it once" in capsys.readouterr().err


def test_a_list_of_values_is_none_of_an_earlier_command_line():
    for _ in range(2):
        assert _parser().parse_args(["sites", "folder", "--unseen", "A"]).unseen == ["A"]
    assert _parser().parse_args(["sites", "folder"]).unseen == []


@pytest.mark.parametrize("again", [["--rounds", "6"], ["--rounds=6"]])
def test_a_key_of_the_configuration_is_given_once(again):
    with pytest.raises(UserError, match="--rounds is given more than once"):
        overrides_of(["--rounds", "5", *again])


@pytest.mark.parametrize("named", [["nuclei=a.json", "nuclei=b.json"], ["a.json", "b.json"]])
def test_a_task_has_one_site_list(named):
    with pytest.raises(UserError, match="names one task's site list more than once"):
        choice_of(Namespace(sites=named, leave_one_site_out=False, parts=None))
