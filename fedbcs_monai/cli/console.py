"""Voice: progress and results as lines and bars, as JSON, or not at all."""

import json
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from fedbcs_monai.cli.refused import OUTPUT
from fedbcs_monai.federated.callbacks import Watch
from fedbcs_monai.files import naming

Entry = str | int | float | None
"""Of a table: a number is one in JSON too, None is a value that is not defined."""


class Quiet(Watch):
    """Says nothing."""

    def result(self, what: str, **values: Any) -> None:
        """The result of a command."""

    def table(self, title: str, columns: list[str], rows: Sequence[Sequence[Entry]]) -> None:
        """A table of results."""

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[float, float], None]]:
        """A function that hears how much is done, and of how much."""
        yield lambda done, total: None


class Lines(Quiet):
    """One JSON object a line on standard output."""

    def result(self, what: str, **values: Any) -> None:
        """A line with ``event`` and the values; a number that is not finite is null."""
        with naming(Path(OUTPUT)):
            print(json.dumps(_finite({"event": what, **values}), default=str, allow_nan=False), flush=True)

    def table(self, title: str, columns: list[str], rows: Sequence[Sequence[Entry]]) -> None:
        """One line a row."""
        for row in rows:
            self.result(title, **dict(zip(columns, row, strict=True)))

    def note(self, text: str) -> None:
        """A note."""
        self.result("note", text=text)

    def begun(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Training begins."""
        self.result("begun", folder=folder, rounds=rounds, done=done, steps=dict(steps))

    def trained(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """A site has finished its round."""
        self.result("trained", round=round, site=site, **metrics)

    def evaluated(self, round: int, scores: Mapping[str, float]) -> None:
        """Validation Dice of every site."""
        self.result("evaluated", round=round, val_dice=dict(scores))


_VERBATIM: Mapping[str, Any] = {"markup": False, "emoji": False, "highlight": False}
"""Consoles print names and paths as they are, though rich would read ``[old]`` as a style and ``:smile:`` as a face."""


def _named_bar() -> tuple[TextColumn, BarColumn]:
    """The columns of a bar with its name before it, as it is."""
    return TextColumn("{task.description}", markup=False), BarColumn()


class _Console(Console):
    """A console that does not end the process when nobody reads it: the command line says so."""

    def on_broken_pipe(self) -> None:
        """Pass on what rich has caught."""
        raise


class Bars(Quiet):
    """Bars with time remaining on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, **_VERBATIM)
        self.out = _Console(soft_wrap=True, **_VERBATIM)
        self.bars = Progress(
            *_named_bar(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.losses: dict[str, float] = {}
        self.steps: Mapping[str, int] = {}

    def result(self, what: str, **values: Any) -> None:
        """``what: value`` on standard output."""
        with naming(Path(OUTPUT)):
            self.out.print(f"{what}: {', '.join(str(value) for value in values.values())}")

    def table(self, title: str, columns: list[str], rows: Sequence[Sequence[Entry]]) -> None:
        """A table on standard output."""
        table = Table(title=title, title_justify="left")
        for n, column in enumerate(columns):
            table.add_column(column, justify="right" if n else "left", overflow="fold")
        for row in rows:
            table.add_row(*map(_printed, row))
        with naming(Path(OUTPUT)):
            self.out.print(table)

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[float, float], None]]:
        """A bar on a terminal."""
        columns = (*_named_bar(), TaskProgressColumn(), TimeRemainingColumn())  # rich's own
        with Progress(*columns, console=self.console, transient=True, disable=not self.console.is_terminal) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def note(self, text: str) -> None:
        """A dim line."""
        self.console.print(text, style="dim", soft_wrap=True)

    def begun(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Open the bars."""
        self.note(
            f"{len(steps)} sites, {sum(steps.values())} steps a round, rounds {done + 1} to {rounds}, in {folder}"
        )
        self.steps = steps
        self.rounds = self.bars.add_task("rounds", total=rounds, completed=done)
        self.site = self.bars.add_task("", total=None)
        self.bars.start()

    def stepped(self, site: str, steps: int) -> None:
        """Move the site's bar."""
        self.bars.update(self.site, description=site, total=self.steps[site], completed=steps)

    def trained(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """Move the rounds' bar with the last site; say the losses."""
        self.losses[site] = metrics.get("loss", float("nan"))
        if len(self.losses) < len(self.steps):
            return
        loss = sum(self.losses.values()) / len(self.losses)
        terms = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("contrast", "consistency") if name in metrics)
        self.bars.update(self.rounds, completed=round, description=f"round {round}, loss {loss:.3f}")
        if not self.console.is_terminal:
            self.console.print(f"round {round}: loss {loss:.3f}{', ' + terms if terms else ''}")
        self.losses = {}

    def evaluated(self, round: int, scores: Mapping[str, float]) -> None:
        """A line with the validation Dice of every site."""
        sites = "  ".join(f"{site} {100 * dice:.1f}" for site, dice in scores.items())
        known = [dice for dice in scores.values() if dice == dice]
        mean = f"  mean {100 * sum(known) / len(known):.1f}" if known else ""
        self.console.print(f"round {round:3d}  validation Dice %  {sites}{mean}", soft_wrap=True)

    def finished(self) -> None:
        """Close the bars."""
        self.bars.stop()


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


def voice(options: Namespace) -> Quiet:
    """The voice that the options ask for."""
    if options.quiet:
        return Quiet()
    if options.json:
        return Lines()
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    return Bars()
