"""TrainerProcess: starts the trainer in a process of its own, sends it tasks, and restarts it after a crash."""

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

MODULE = "fedbcs_monai.backends.nvflare.trainer"
PATIENCE_S = 5.0


class Failed(RuntimeError):
    """The trainer has said that it cannot answer.

    Args:
        text: what it has said.
        correctable: whether whoever runs the site can correct it.
    """

    def __init__(self, text: str, correctable: bool = False) -> None:
        super().__init__(text)
        self.correctable = correctable


class Stopped(RuntimeError):
    """Nobody wants the answer any more."""


class TrainerProcess:
    """The trainer in a process of its own, which may be killed at any time.

    A question that was under way is then asked again: what the site keeps from round to round is on its disk, so the
    answer is the same as if nothing had happened.

    Args:
        python: the interpreter.
        settings: see `trainer.session_of`.
        log: file that the trainer's output is appended to.
        restarts: so often a question is asked again before it counts as failed.
        note: called when the process dies.
    """

    def __init__(
        self,
        python: str,
        settings: Mapping[str, Any],
        log: Path,
        restarts: int = 3,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.command = [python, "-u", "-m", MODULE]
        self.settings = dict(settings)
        self.log = log
        self.restarts = restarts
        self.note = note
        self._process: subprocess.Popen[str] | None = None
        self._said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._ready = False

    def start(self) -> None:
        """Start the process; it reads its data in the meantime."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a") as log:
            process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        said: queue.SimpleQueue[str | None] = queue.SimpleQueue()

        def listen() -> None:
            if process.stdout:
                with process.stdout:
                    for line in process.stdout:
                        said.put(line)
            said.put(None)

        threading.Thread(target=listen, daemon=True).start()
        self._process, self._said, self._ready = process, said, False
        self._tell(self.settings)

    def ask(self, question: Path, answer: Path, stop: Callable[[], bool] = lambda: False) -> None:
        """Have the question in a file answered in another.

        Args:
            question: a broadcast, written by `write_message`.
            answer: to be read with `decode_update`.
            stop: says whether the answer is still wanted.

        Raises:
            Failed: the trainer cannot answer, or has died too often.
            Stopped: the answer is not wanted any more; the trainer is ended.
        """
        for _ in range(self.restarts + 1):
            if self._process is None:
                self.start()
            if self._asked_once({"question": str(question), "answer": str(answer)}, stop):
                return
            self.note(f"the trainer has died (its log is {self.log}); it is started again")
            self.stop()
        raise Failed(f"the trainer has died {self.restarts + 1} times over one question; its log is {self.log}")

    def stop(self) -> None:
        """End the process, gently if it lets us."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin:
            with suppress(OSError):
                process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE_S)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # workers that read data are in its group
        process.wait()

    def _asked_once(self, question: Mapping[str, str], stop: Callable[[], bool]) -> bool:
        """Whether the question was answered; False if the trainer died over it."""
        if not self._ready:
            ready = self._heard(stop)
            if ready is None:
                return False
            self._ready = True
        self._tell(question)
        return self._heard(stop) is not None

    def _heard(self, stop: Callable[[], bool]) -> Mapping[str, Any] | None:
        """The next line of the trainer; None if it has died."""
        while True:
            if stop():
                self.stop()
                raise Stopped("the answer is not wanted any more")
            with suppress(queue.Empty):
                line = self._said.get(timeout=0.1)
                if line is None:
                    return None
                said: Mapping[str, Any] = json.loads(line)
                if "error" in said:
                    if not self._ready:
                        self.stop()
                    raise Failed(said["error"], said.get("correctable", False))
                return said

    def _tell(self, message: Mapping[str, Any]) -> None:
        process = self._process
        with suppress(OSError):  # it has died; whoever listens will know
            if process is not None and process.stdin:
                process.stdin.write(json.dumps(message) + "\n")
                process.stdin.flush()
