"""The trainer: the process at a site that holds the data and the device, and answers one question after the other.

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

from fedbcs_monai.backends.monai import FederatedClient, pack_broadcast, unpack_update
from fedbcs_monai.backends.nvflare.wire import Post, post_update, read_broadcast, read_post, write_post
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.trust import check_job, job_trust
from fedbcs_monai.federated.validation import NUMBERS


def main() -> None:
    """Answer until nobody asks any more."""
    answers = _own_standard_output()
    lines = _lines(sys.stdin)
    settings = json.loads(next(lines))

    def say(**values: Any) -> None:
        answers.write(json.dumps(values) + "\n")
        answers.flush()

    try:
        client = client_of(settings)
    except Exception as error:
        _report(error, say)
        return
    say(ready=True)
    for line in lines:
        question = json.loads(line)
        try:
            write_post(Path(question["answer"]), answer(client, read_post(Path(question["question"]))))
        except Exception as error:
            _report(error, say)
        else:
            say(answered=question["answer"])


def client_of(settings: Mapping[str, Any]) -> FederatedClient:
    """The site, built from a job's configuration and the site's own settings.

    Args:
        settings: ``config`` (a file), ``allow``, ``overrides``, ``site``, ``states`` (a folder) and ``case_scores``.
    """
    config = Path(settings["config"])
    check_job(config)
    client = FederatedClient(
        config.parent,
        [config.name],
        settings["overrides"],
        trust=job_trust(settings["allow"]),
        site=settings["site"],
        states=Path(settings["states"]),
        case_scores=settings["case_scores"],
    )
    client.initialize()
    return client


def answer(client: FederatedClient, question: Post) -> Post:
    """Put a question to the site."""
    exchange = pack_broadcast(read_broadcast(question))
    exchange["selected"] = question.head["selected"]
    if question.head["task"] in NUMBERS:
        return post_update(unpack_update(client.evaluate(exchange)))
    client.train(exchange)
    return post_update(unpack_update(client.get_weights()))


def _report(error: Exception, say: Any) -> None:
    """An error that this site can mend is one line; any other has its traceback in the trainer's log."""
    if isinstance(error, UserError):
        print(f"error: {error}", file=sys.stderr, flush=True)
    else:
        traceback.print_exc()
    say(error=f"{type(error).__name__}: {error}", mendable=isinstance(error, UserError))


def _own_standard_output() -> IO[str]:
    """Standard output for our lines alone: whatever libraries print goes to standard error."""
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
