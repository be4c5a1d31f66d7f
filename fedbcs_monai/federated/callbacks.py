"""Watch: what a run tells whoever looks on."""

from collections.abc import Mapping
from pathlib import Path


class Callbacks:
    """Hears what a run does; the default says nothing. The command line overrides it."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def on_train_begin(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Training begins: so many rounds of which some are done, so many steps a round at each site."""

    def on_step_end(self, site: str, steps: int) -> None:
        """A site has taken so many steps of its round."""

    def on_client_end(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """A site has finished its round."""

    def on_evaluation(self, round: int, scores: Mapping[str, float]) -> None:
        """Scores of every site after a round, a Dice in [0, 1]."""

    def on_train_end(self) -> None:
        """Training has ended."""
