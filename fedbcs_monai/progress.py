"""Progress: training progress as bars on terminals and in notebooks, and as plain lines elsewhere."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
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

from fedbcs_monai.federated.callbacks import Callbacks

VERBATIM: Mapping[str, Any] = {"markup": False, "emoji": False, "highlight": False}
"""Consoles print names and paths as they are, though rich would read ``[old]`` as a style and ``:smile:`` as a face."""


def _named_bar() -> tuple[TextColumn, BarColumn]:
    """The columns of a bar with its name before it, as it is."""
    return TextColumn("{task.description}", markup=False), BarColumn()


class RichProgress(Callbacks):
    """Bars with the time remaining on a terminal or in a notebook, plain lines elsewhere; all on standard error."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, **VERBATIM)
        notebook = self.console.is_jupyter and find_spec("ipywidgets") is not None
        self.moving = self.console.is_terminal or notebook
        self.bars = Progress(
            *_named_bar(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.moving,
        )
        self.losses: dict[str, float] = {}
        self.steps: Mapping[str, int] = {}

    @contextmanager
    def progress(self, what: str) -> Iterator[Callable[[float, float], None]]:
        """A function to call with the work done and the total work."""
        columns = (*_named_bar(), TaskProgressColumn(), TimeRemainingColumn())  # rich's own
        with Progress(*columns, console=self.console, transient=True, disable=not self.moving) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    def note(self, text: str) -> None:
        """A dim line."""
        self.console.print(text, style="dim", soft_wrap=True)

    def on_train_begin(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Open the bars."""
        self.note(
            f"{len(steps)} sites, {sum(steps.values())} steps per round, rounds {done + 1} to {rounds}, in {folder}"
        )
        self.steps = steps
        self.rounds = self.bars.add_task("rounds", total=rounds, completed=done)
        self.site = self.bars.add_task("", total=None)
        self.bars.start()

    def on_step_end(self, site: str, steps: int) -> None:
        """Move the site's bar."""
        self.bars.update(self.site, description=site, total=self.steps[site], completed=steps)

    def on_client_end(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """Move the rounds' bar with the last site; print the losses."""
        self.losses[site] = metrics.get("loss", float("nan"))
        if len(self.losses) < len(self.steps):
            return
        loss = sum(self.losses.values()) / len(self.losses)
        terms = ", ".join(f"{name} {metrics[name]:.3f}" for name in ("contrast", "consistency") if name in metrics)
        self.bars.update(self.rounds, completed=round, description=f"round {round}, loss {loss:.3f}")
        if not self.moving:
            self.console.print(f"round {round}: loss {loss:.3f}{', ' + terms if terms else ''}")
        self.losses = {}

    def on_evaluation(self, round: int, scores: Mapping[str, float]) -> None:
        """A line with the validation Dice of every site."""
        sites = "  ".join(f"{site} {100 * dice:.1f}" for site, dice in scores.items())
        known = [dice for dice in scores.values() if dice == dice]
        mean = f"  mean {100 * sum(known) / len(known):.1f}" if known else ""
        self.console.print(f"round {round:3d}  validation Dice %  {sites}{mean}", soft_wrap=True)

    def on_train_end(self) -> None:
        """Close the bars."""
        self.bars.stop()
