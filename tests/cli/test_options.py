"""Options: no command drops a value that it was given."""

import pytest
from cyclopts.argument import ArgumentCollection

from fedbcs_monai.cli.benchmark import choice_of
from fedbcs_monai.cli.main import COMMANDS, app, main
from fedbcs_monai.cli.overrides import overrides_of
from fedbcs_monai.cli.train import _start
from fedbcs_monai.errors import UserError


def commands(of=app, path=()):
    """Every command and action with the words that lead to it."""
    names = COMMANDS if of is app else [name for name in of if not name.startswith("-")]
    for name in names:
        if of[name].default_command is None:
            yield from commands(of[name], (*path, name))
        else:
            yield (*path, name), of[name].assemble_argument_collection()


ALL = dict(commands())


def takes_values(argument):
    return argument.field_info.is_keyword and argument.children == ArgumentCollection() and argument.token_count()[0]


OPTIONS = [
    pytest.param(path, argument, id=f"{'-'.join(path)}-{argument.names[0]}")
    for path, arguments in ALL.items()
    for argument in arguments
    if argument.show and argument.names[0].startswith("-") and takes_values(argument)
]


def words(path, argument, *parts):
    """A command line with an option, and whatever else the command cannot do without."""
    needed = [one for one in ALL[path] if one.required and one.name != argument.name]
    said = [word for one in needed for word in (*(name for name in one.names[:1] if name.startswith("-")), "1")]
    return [*path, *said, *parts]


def values(argument):
    return (argument.get_choices() or ("3", "2"))[:2]


def parsed(argument, line):
    given = app.parse_args(line)[1].arguments
    found = given.get(argument.field_info.name)
    return getattr(given.get("job"), argument.field_info.name) if found is None else found


def test_every_command_has_options():
    assert len(ALL) == 19
    assert len(OPTIONS) > 60


@pytest.mark.parametrize(("path", "argument"), OPTIONS)
def test_an_option_takes_several_values_both_ways_or_is_refused_when_repeated(path, argument, capsys):
    flag, (one, other) = argument.names[0], values(argument)
    if argument.name != "--resume" and argument.parameter.consume_multiple:
        together, apart = (
            parsed(argument, words(path, argument, *said)) for said in ([flag, one, other], [flag, one, flag, other])
        )
        assert list(together) == list(apart)
        assert [str(value) for value in apart] == [one, other]
    else:
        assert main(words(path, argument, flag, one, flag, other)) == 2
        assert f"{flag} is given more than once; give it once" in capsys.readouterr().err


def test_a_list_of_values_is_none_of_an_earlier_command_line():
    for _ in range(2):
        assert app.parse_args(["sites", "folder", "--unseen", "A"])[1].arguments["unseen"] == ["A"]
    assert "unseen" not in app.parse_args(["sites", "folder"])[1].arguments


@pytest.mark.parametrize(
    ("said", "resume"),
    [([], False), (["--resume"], True), (["--resume", "1"], 1), (["--resume", "0"], 0), (["--resume=7"], 7)],
)
def test_resuming_is_from_the_newest_checkpoint_or_from_a_round(said, resume):
    given = app.parse_args(["train", "x", *said, "--rounds", "5"])[1].arguments
    found = _start(given.get("resume"))
    assert (found, type(found)) == (resume, type(resume))
    assert given["overrides"] == ("--rounds", "5")


def test_keys_of_the_configuration_are_every_word_that_is_no_option():
    line = [
        "train",
        "x",
        "--lr",
        "-1e-3",
        "-o",
        "out",
        "--method::tau=0.1",
        "--trust",
        "a",
        "b",
        "--features",
        "[8, 8]",
    ]
    given = app.parse_args(line)[1].arguments
    assert overrides_of(given["overrides"]) == {"lr": -0.001, "method::tau": 0.1, "features": [8, 8]}
    assert (str(given["output"]), given["trust"]) == ("out", ["a", "b"])


@pytest.mark.parametrize("again", [["--rounds", "6"], ["--rounds=6"]])
def test_a_key_of_the_configuration_is_given_once(again):
    with pytest.raises(UserError, match="--rounds is given more than once"):
        overrides_of(["--rounds", "5", *again])


@pytest.mark.parametrize("named", [["nuclei=a.json", "nuclei=b.json"], ["a.json", "b.json"]])
def test_a_task_has_one_site_list(named):
    with pytest.raises(UserError, match="names one task's site list more than once"):
        choice_of(sites=named)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["trian", "x"], 'Did you mean "train"?'),
        (["flare", "exprt", "x"], 'Did you mean "export"?'),
        (["predict", "m", "-i", "x", "-o", "y", "--overwrit"], "Did you mean --overwrite?"),
        (
            ["train", "nuclei", "--overwrit", "--rounds", "5"],
            "unknown option --overwrit, did you mean --overwrite",
        ),
        (["train", "nuclei", "--roundz", "5"], "unknown key 'roundz', did you mean 'rounds'"),
        (["flare", "export", "x", "-o", "y", "--job-nam", "z"], "unknown option --job-nam, did you mean --job-name?"),
        (["train", "--rounds", "5", "x"], "The configuration comes first, then its keys"),
        (["report"], "RUNS"),
        (["sites", "x", "-q", "--json"], "Mutually exclusive"),
        (["sites", "x", "--folds", "two"], "--folds"),
        (["evaluate", "x", "--part", "all"], 'Choose from: "train", "val", "test"'),
    ],
)
def test_a_command_line_that_cannot_be_is_one_line_and_exit_code_two(line, said, capsys):
    assert main(line) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.startswith("fedbcs")
    assert len(error.strip().splitlines()) == 1
