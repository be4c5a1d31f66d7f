"""Shared options: names, types and help of options that several commands take."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import MutuallyExclusive

if TYPE_CHECKING:
    from fedbcs_monai.cli.console import QuietConsole

SEVERAL = Parameter(consume_multiple=1)
"""An option of one or more values, given both ways: ``--unseen A B`` and ``--unseen A --unseen B``."""

OUTPUT = Parameter(alias="-o")
"""Short name of every command's output option."""

Trust = Annotated[
    Sequence[str],
    SEVERAL,
    Parameter(help="let the configuration use these classes, or all of these packages, besides the allow-list"),
]
Size = Annotated[str, Parameter(help="of a task: full, small or demo (default: full)")]
Variant = Annotated[str, Parameter(help="authors, paper, fsr, cdpa or a file, laid over the task (default: none)")]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1 or mps")]
Model = Literal["selected", "last"]

_PRINTED = Group("Output of the command", sort_key=9)
_ONE_OF = (_PRINTED, Group(validator=MutuallyExclusive(), show=False))  # type: ignore[no-untyped-call]


@Parameter(name="*")
@dataclass(frozen=True)
class Verbosity:
    """Verbosity and format of a command's output."""

    quiet: Annotated[bool, Parameter(alias="-q", group=_ONE_OF)] = False
    """print nothing but errors"""

    json: Annotated[bool, Parameter(group=_ONE_OF)] = False
    """print every result as one JSON object per line, with units in the names"""

    verbose: Annotated[int, Parameter(alias="-v", count=True, group=_PRINTED, show_default=False)] = 0
    """log progress to standard error; -vv: in detail"""

    def console(self) -> "QuietConsole":
        """The console for these options; rich is imported only now."""
        from fedbcs_monai.cli.console import open_console

        return open_console(self.quiet, self.json, self.verbose)


NORMAL = Verbosity()


def default_shown(value: object) -> str | None:
    """A default as the help shows it: nothing for a switch or for a list that is empty."""
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or None
    return None if value is None or isinstance(value, bool) else str(value)


def folder_or(output: Path | None, config: str) -> Path:
    """The run folder: as named, or ``runs/CONFIG``."""
    return output or Path("runs") / Path(config).stem
