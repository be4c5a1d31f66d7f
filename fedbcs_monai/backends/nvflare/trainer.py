"""Trainer: the process at a site that owns the data and the device, and answers one task after the other.

It is started by `TrainerProcess` and speaks with it in lines of JSON. The first line on standard input has the
settings; every other names the file of a question. Each is answered on standard output with a line: what was written,
or an error. When standard input closes, because whoever asked has gone, the trainer goes too.
"""

import json
import os
import queue
import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fedbcs_monai.backends.nvflare.wire import decode_broadcast, write_message
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.federated.trust import load_job
from fedbcs_monai.runs.process import prepare_training
from fedbcs_monai.runs.setup import set_up_site


def main() -> None:
    """Answer until nobody asks any more."""
    answers = _own_standard_output()
    lines = _lines(sys.stdin)
    settings = json.loads(next(lines))

    def say(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        session = session_of(settings)
    except Exception as error:
        _report(error, say)
        return
    say(ready=True)
    for line in lines:
        question = json.loads(line)
        try:
            write_message(Path(question["answer"]), session.answer(decode_broadcast(Path(question["question"]))))
        except Exception as error:
            _report(error, say)
        else:
            say(answered=question["answer"])


def session_of(settings: Mapping[str, Any]) -> ClientSession:
    """The site, built from a job's configuration and the site's own settings.

    Args:
        settings: ``config`` (a file), ``allow``, ``overrides``, ``site``, ``states`` (a folder) and ``case_scores``.
    """
    run = load_job(Path(settings["config"]), settings["overrides"], settings["allow"])
    prepare_training(run)
    return set_up_site(run, settings["site"], states=Path(settings["states"]), case_scores=settings["case_scores"])


def _report(error: Exception, say: Any) -> None:
    """An error that this site can correct is one line; any other has its traceback in the trainer's log."""
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exc()
    say(error=f"{type(error).__name__}: {error}", correctable=isinstance(error, UserError))


def _own_standard_output() -> IO[str]:
    """Reserve standard output for our lines; output of libraries goes to standard error."""
    own = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return own


def _lines(stream: IO[str]) -> Iterator[str]:
    """Lines as they come. At the end of the stream the process ends, in the middle of a training if need be."""
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()

    def listen() -> None:
        for line in stream:
            waiting.put(line)
        os._exit(0)

    threading.Thread(target=listen, daemon=True).start()
    while True:
        yield waiting.get()


if __name__ == "__main__":
    main()
