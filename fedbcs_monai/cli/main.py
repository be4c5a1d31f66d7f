"""Entry point: registers the commands, and turns errors into one line and an exit code."""

import logging
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from inspect import signature

from cyclopts import App, CycloptsError, Parameter
from cyclopts.exceptions import RepeatArgumentError, UnknownOptionError

from fedbcs_monai.cli.options import default_shown
from fedbcs_monai.cli.system_errors import explained_os_error
from fedbcs_monai.errors import UserError
from fedbcs_monai.version import __version__

INTERRUPTED = 130

app = App(
    name="fedbcs",
    help=(
        "Train one segmentation network across hospitals that cannot share images.\n\n"
        "`fedbcs COMMAND --help` explains a command. Start with `fedbcs demo`."
    ),
    version=f"fedbcs {__version__}",
    default_parameter=Parameter(negative=(), show_default=default_shown),
    exit_on_error=False,
    print_error=False,
    suppress_keyboard_interrupt=False,
    result_action="return_value",
)

COMMANDS = (
    *("demo", "list", "sites", "train", "benchmark", "flare"),
    *("evaluate", "ood", "predict", "bundle", "report"),
)
"""In the order of the help. Each is imported when it is asked for; what takes seconds, such as torch, when it runs."""

RENAMED = {"familiarity": "ood"}
"""Commands of earlier versions, with their names of today."""

_FUNCTIONS = {"list": "list_available", "flare": "app"}  # where it is not called as the command is

for order, name in enumerate(COMMANDS):
    app.command(f"fedbcs_monai.cli.{name}:{_FUNCTIONS.get(name, name)}", name=name, sort_key=order)
app.register_install_completion_command(help="Let the shell complete commands and options with the Tab key.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0, or 1 when a run of a benchmark failed, or 2 when there is something for the user to correct, or 130 when
        interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0].startswith("-"):
        app.resolved_commands()  # for their first lines in the help
    if words and words[0] in RENAMED:
        return _failed(f"fedbcs {words[0]}", f"this command is now `fedbcs {RENAMED[words[0]]}`", words)
    command = f"fedbcs {words[0]}" if words and words[0] in app else "fedbcs"
    try:
        with _restoring():
            return int(app(words) or 0)
    except CycloptsError as error:
        return _failed(command, _explained(error), words)
    except UserError as error:
        return _failed(command, _misspelt(words) or str(error), words)
    except OSError as error:
        return _failed(command, explained_os_error(error), words)
    except KeyboardInterrupt:
        _failed(command, "interrupted", words)
        return INTERRUPTED


@contextmanager
def _restoring() -> Iterator[None]:
    """Leave warnings and the package's log to a caller in Python as they were."""
    logger = logging.getLogger("fedbcs_monai")
    level, handlers = logger.level, logger.handlers
    try:
        with warnings.catch_warnings():
            yield
    finally:
        logger.setLevel(level)
        logger.handlers = handlers


def _explained(error: CycloptsError) -> str:
    """What is wrong with a command line, in one line."""
    error.verbose = False
    if isinstance(error, RepeatArgumentError):
        return f"{error.token.keyword} is given more than once; give it once"
    text = " ".join(str(error).split())
    if isinstance(error, UnknownOptionError) and error.target and "overrides" in signature(error.target).parameters:
        text += " The configuration comes first, then its keys."
    return text


def _misspelt(words: Sequence[str]) -> str:
    """A hint if a word is not a key of a configuration but nearly an option of the command; else empty."""
    from fedbcs_monai.settings import KEYS

    _, apps, rest = app.parse_commands(words)
    if apps[-1].default_command is None or "overrides" not in signature(apps[-1].default_command).parameters:
        return ""
    options = [name for argument in apps[-1].assemble_argument_collection() for name in argument.names]
    for word in rest:
        key = word.partition("=")[0]
        if key.startswith("--") and key not in options and key.removeprefix("--").partition("::")[0] not in KEYS:
            near = get_close_matches(key, [*options, *(f"--{known}" for known in KEYS)], n=1, cutoff=0.7)
            if near and near[0] in options:
                return f"unknown option {key}, did you mean {near[0]}?"
    return ""


def _failed(command: str, text: str, words: Sequence[str]) -> int:
    """Report why a command ends early, on standard error and, with ``--json``, as a record.

    Returns:
        2, the exit code.
    """
    with suppress(BrokenPipeError):  # nobody is left to read it
        print(f"{command}: {text}", file=sys.stderr)
    if "--json" in words:
        from fedbcs_monai.cli.console import JsonConsole

        JsonConsole().result("failure", command=command, text=text)
    return 2
