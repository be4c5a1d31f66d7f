"""Console: prints results and progress as text or as JSON records, and routes log records."""

import json
import logging
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from fedbcs_monai.cli.system_errors import OUTPUT
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.files import naming
from fedbcs_monai.progress import VERBATIM, RichProgress

Entry = str | int | float | None
"""Of a table: a number is one in JSON too, None is a value that is not defined."""


class QuietConsole(Callbacks):
    """Prints nothing but failures."""

    def result(self, event: str, text: str = "", /, **values: Any) -> None:
        """The result of a command: a text for people, which the values make if there is none, and typed values."""

    def event(self, event: str, text: str, /, **values: Any) -> None:
        """What happens on the way: a text for people, and typed values."""

    def table(self, event: str, title: str, columns: Mapping[str, str], rows: Sequence[Sequence[Entry]]) -> None:
        """A table of results; columns are keys with their units, such as ``hd95_mm``, and headings."""

    def warning(self, text: str, **values: Any) -> None:
        """What the user should look at."""

    def failure(self, command: str, text: str, **values: Any) -> None:
        """What went wrong: one line on standard error, however quiet."""
        print(f"fedbcs {command}: {text}", file=sys.stderr)

    def interrupted(self, folder: str | Path, again: str) -> None:
        """Where the work was left, and how to resume it."""
        self.result("interrupted", f"{folder}; resume with {again}", folder=folder, resume=again)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[float, float], None]]:
        """A function to call with the work done and the total work."""
        yield lambda done, total: None


class JsonConsole(QuietConsole):
    """One JSON object per line on standard output: ``event``, and values as numbers, text, lists and nulls."""

    def result(self, event: str, text: str = "", /, **values: Any) -> None:
        """A record of the values; a number that is not finite is null."""
        with naming(Path(OUTPUT)):
            print(json.dumps(_finite({"event": event, **values}), default=str, allow_nan=False), flush=True)

    def event(self, event: str, text: str, /, **values: Any) -> None:
        """A record of the values."""
        self.result(event, **values)

    def table(self, event: str, title: str, columns: Mapping[str, str], rows: Sequence[Sequence[Entry]]) -> None:
        """One record per row."""
        for row in rows:
            self.result(event, **dict(zip(columns, row, strict=True)))

    def note(self, text: str) -> None:
        """A record."""
        self.result("note", text=text)

    def warning(self, text: str, **values: Any) -> None:
        """A record."""
        self.result("warning", text=text, **values)

    def failure(self, command: str, text: str, **values: Any) -> None:
        """A record, and a line on standard error."""
        super().failure(command, text)
        self.result("failure", command=command, text=text, **values)

    def on_train_begin(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Training begins."""
        self.result("begun", folder=folder, rounds=rounds, done=done, steps=dict(steps))

    def on_client_end(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """A site has finished its round."""
        self.result("trained", round=round, site=site, **metrics)

    def on_evaluation(self, round: int, scores: Mapping[str, float]) -> None:
        """Validation Dice of every site."""
        self.result("evaluated", round=round, val_dice_percent={site: 100 * dice for site, dice in scores.items()})


class _Console(Console):
    """A console that does not end the process when nobody reads it: the command line reports it."""

    def on_broken_pipe(self) -> None:
        """Pass on what rich has caught."""
        raise


class RichConsole(RichProgress, QuietConsole):
    """Results on standard output; progress and notes on standard error."""

    def __init__(self) -> None:
        super().__init__()
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
        self.out = _Console(soft_wrap=True, **VERBATIM)

    def result(self, event: str, text: str = "", /, **values: Any) -> None:
        """``event: text`` on standard output."""
        shown = text or ", ".join(str(value) for value in values.values())
        with naming(Path(OUTPUT)):
            self.out.print(f"{event.replace('_', ' ')}: {shown}")

    def event(self, event: str, text: str, /, **values: Any) -> None:
        """A dim line."""
        self.note(text)

    def table(self, event: str, title: str, columns: Mapping[str, str], rows: Sequence[Sequence[Entry]]) -> None:
        """A table on standard output."""
        table = Table(title=title, title_justify="left")
        for n, heading in enumerate(columns.values()):
            words = any(isinstance(row[n], str) for row in rows)
            table.add_column(heading, justify="left" if words or not n else "right", overflow="fold")
        for row in rows:
            table.add_row(*map(_printed, row))
        with naming(Path(OUTPUT)):
            self.out.print(table)

    def warning(self, text: str, **values: Any) -> None:
        """A yellow line."""
        self.console.print(f"warning: {text}", style="yellow", soft_wrap=True)


def open_console(quiet: bool = False, json: bool = False, verbose: int = 0) -> QuietConsole:
    """The console that the options ask for; warnings and log records of the package go through it from here on.

    Args:
        quiet: print nothing but failures.
        json: print records.
        verbose: 1 logs what happens (INFO), 2 every step of it (DEBUG).
    """
    console = QuietConsole() if quiet else JsonConsole() if json else RichConsole()
    logger = logging.getLogger("fedbcs_monai")
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
    logger.handlers = [_Records(console)]
    for library in ("monai", "tifffile"):
        logging.getLogger(library).setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # libraries speak of themselves to users who cannot change them
    warnings.filterwarnings("default", module="fedbcs_monai")
    warnings.showwarning = lambda message, *_, **__: console.warning(str(message))
    return console


class _Records(logging.Handler):
    """Log records: a warning through the console, everything else as a line on standard error."""

    def __init__(self, console: QuietConsole) -> None:
        super().__init__()
        self.console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print it."""
        if record.levelno >= logging.WARNING:
            self.console.warning(record.getMessage())
        else:
            print(f"{record.levelname.lower()} {record.name}: {record.getMessage()}", file=sys.stderr)


def _finite(value: Any) -> Any:
    """A value for JSON, which has no NaN and no infinity."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _printed(entry: Entry) -> str:
    if entry is None:
        return "-"
    return f"{entry:.1f}" if isinstance(entry, float) else f"{entry:,}" if isinstance(entry, int) else entry
