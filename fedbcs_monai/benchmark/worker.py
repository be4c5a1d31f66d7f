"""Worker: the process of one run, which reports its progress and stops on request."""

import os
import signal
import sys
import traceback
from collections.abc import Mapping
from multiprocessing import parent_process
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import NamedTuple

from fedbcs_monai.backends.local import train
from fedbcs_monai.benchmark.plan import PlannedRun
from fedbcs_monai.benchmark.status import status_of
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.runs.status import RunStatus


class Ended(NamedTuple):
    """A run's last word: None if all went well, else why it did not."""

    reason: str | None


def work(run: PlannedRun, overwrite: bool, log: Path, tell: Connection, stopping: Event) -> None:
    """Carry out a run in this process, which is its own, and tell how it goes and how it ends.

    Args:
        run: which.
        overwrite: start it again.
        log: where everything goes that this process prints.
        tell: called with the fraction of the training that is done, and at the end with `Ended`.
        stopping: set when the run shall end.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _write_output_to(log)
    reason = None
    try:
        carry_out(run, overwrite, _Telling(tell, stopping))
    except KeyboardInterrupt:
        reason = "interrupted"
    except UserError as error:
        reason = str(error)
        print(reason)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        traceback.print_exc()
    tell.send(Ended(reason))


def carry_out(run: PlannedRun, overwrite: bool = False, callbacks: Callbacks | None = None) -> None:
    """Train and test a run in this process, from where it was left.

    Args:
        run: which.
        overwrite: replace whatever is there.
        callbacks: receives the progress.

    Raises:
        UserError: what the user can correct.
    """
    begun = not overwrite and status_of(run) is RunStatus.BEGUN
    left = (run.folder / "rounds.csv").is_file()  # of a run that ended before its first checkpoint
    train(run.settings, resume=begun, overwrite=left and not begun, callbacks=callbacks)


class _Telling(Callbacks):
    """Tells how far the run is, and ends it between two steps when it shall stop."""

    def __init__(self, tell: Connection, stopping: Event) -> None:
        self.tell, self.stopping = tell, stopping
        self.total = 1

    def note(self, text: str) -> None:
        """Into the log."""
        print(text, flush=True)
        self.heed()

    def on_train_begin(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Training begins."""
        self.total = rounds
        self.tell.send(done / rounds)

    def on_step_end(self, site: str, steps: int) -> None:
        """A site has taken a step."""
        self.heed()

    def on_client_end(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """A site has finished its round."""
        self.tell.send((round - 1) / self.total)

    def on_evaluation(self, round: int, scores: Mapping[str, float]) -> None:
        """Into the log."""
        self.note(f"round {round}: " + ", ".join(f"{site} {100 * dice:.1f}" for site, dice in scores.items()))

    def heed(self) -> None:
        """Stop if the parent process asks for it or has ended."""
        parent = parent_process()
        if self.stopping.is_set() or (parent is not None and not parent.is_alive()):
            raise KeyboardInterrupt


def _write_output_to(log: Path) -> None:
    """Whatever this process prints goes into a file from here on."""
    with log.open("a", encoding="utf-8") as file:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
