"""Callbacks: progress events of a training run."""

from collections.abc import Mapping
from pathlib import Path


class Callbacks:
    """Called while a run trains. Every method does nothing by default; override those you need."""

    def note(self, text: str) -> None:
        """A message for the user, one line."""

    def on_train_begin(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Training begins.

        Args:
            folder: the run folder.
            rounds: rounds in all.
            done: rounds done before, in a run that resumes.
            steps: from the name of a site to its optimizer steps per round.
        """

    def on_step_end(self, site: str, steps: int) -> None:
        """A site has taken `steps` optimizer steps of its round so far."""

    def on_client_end(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """A site has finished its round."""

    def on_evaluation(self, round: int, scores: Mapping[str, float]) -> None:
        """The validation Dice of every site after a round, in [0, 1]."""

    def on_train_end(self) -> None:
        """Training has ended."""
