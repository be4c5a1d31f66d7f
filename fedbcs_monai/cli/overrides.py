"""Overrides: keys of the configuration as options, such as ``--rounds 5 --method::tau 0.1``, and their help."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from fedbcs_monai.errors import UserError

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

    from fedbcs_monai.settings import Key, Settings


def settings_from(
    config: str, words: Sequence[str], trust: Sequence[str], size: str, variant: str, output: Path | None
) -> "Settings":
    """The settings of a run that a command line describes; its folder is named after its method by default.

    Args:
        config: as in `load_config`, as are ``trust``, ``size`` and ``variant``.
        words: keys and their values.
        trust: names of components.
        size: of a task.
        variant: laid over it.
        output: the run folder.
    """
    from msgspec.structs import replace

    from fedbcs_monai.config import load_config, run_name

    given = overrides_of(words) | ({"output": str(output)} if output else {})
    settings = load_config(config, given, trust, size=size, variant=variant)
    named = Path("runs") / run_name(config, size, variant, settings)
    return settings if settings.output else replace(settings, output=str(named))


def overrides_of(words: Sequence[str]) -> dict[str, Any]:
    """``--key value`` and ``--key=value`` pairs.

    >>> overrides_of(["--rounds", "5", "--method::tau=1e-1", "--leave_out", "001"])
    {'rounds': 5, 'method::tau': 0.1, 'leave_out': '001'}

    Raises:
        UserError: a word that is not a key, a key without a value, or one that is given twice.
    """
    from fedbcs_monai.config import value_of

    overrides: dict[str, Any] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise UserError(f"unexpected {word!r}: an override is --key value")
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not rest:
                raise UserError(f"--{key} has no value: an override is --key value")
            value = rest.pop(0)
        if key in overrides:
            raise UserError(f"--{key} is given more than once; give it once")
        overrides[key] = value_of(value, key)
    return overrides


def _about(key: "Key") -> str:
    """Type and default of a key: "a whole number, 1 or more; default: 400"."""
    default = "" if key.default in ("", [], {}) or isinstance(key.default, dict) else json.dumps(key.default)
    return key.kind + (f"; default: {default}" if default else "")


def _print_keys(console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
    """A panel of all keys in place of one line about words of any kind."""
    from cyclopts.help import HelpEntry
    from cyclopts.help.formatters import DefaultFormatter

    from fedbcs_monai.settings import KEYS

    entries = [
        HelpEntry(positive_names=(f"--{key}",), description=f"{about.help} [{_about(about)}]")
        for key, about in KEYS.items()
        if key != "output"
    ]
    DefaultFormatter()(console, options, panel.copy(entries=entries, format="parameter"))


Overrides = Annotated[
    str,
    Parameter(
        name="KEYS",
        allow_leading_hyphen=True,
        group=Group(
            "Keys of the configuration",
            help="Every key is an option, and so is what lies inside, with :: between: --method::tau 0.1",
            help_formatter=_print_keys,
            sort_key=10,
        ),
    ),
]
"""Of ``*overrides``: every word that is not an option of the command."""
