"""Post: a broadcast or an update as tensors and a head, and as one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open

from fedbcs_monai.federated.messages import Broadcast, Moment, Update
from fedbcs_monai.files import whole
from fedbcs_monai.tensors import Tensors, prefixed, save, under


class Post(NamedTuple):
    """A message under way.

    Args:
        head: plain numbers and words.
        tensors: the network filed under ``weights/``, the method's luggage under ``shared/``.
    """

    head: Mapping[str, Any]
    tensors: Tensors


def post_broadcast(broadcast: Broadcast, selected: int = 0) -> Post:
    """A broadcast on its way.

    Args:
        broadcast: what the sites shall do.
        selected: the round whose model is the best so far; 0: none is.
    """
    head: dict[str, Any] = {"round": broadcast.round, "task": broadcast.task, "exchange": broadcast.exchange}
    head |= {"refused": {site: list(moment) for site, moment in broadcast.refused.items()}, "selected": selected}
    return Post(head, _filed(broadcast.weights, broadcast.shared))


def read_broadcast(post: Post) -> Broadcast:
    """The broadcast that came."""
    weights, shared = under("weights", post.tensors), under("shared", post.tensors)
    head = post.head
    refused = {site: Moment(*moment) for site, moment in head["refused"].items()}
    return Broadcast(head["round"], weights, shared, head["task"], head["exchange"], refused)


def post_update(update: Update) -> Post:
    """An update on its way."""
    head = {"site": update.site, "cases": update.cases, "metrics": dict(update.metrics)}
    return Post(head, _filed(update.weights, update.shared))


def read_update(post: Post) -> Update:
    """The update that came."""
    weights, shared = under("weights", post.tensors), under("shared", post.tensors)
    return Update(post.head["site"], post.head["cases"], weights, shared, post.head["metrics"])


def write_post(path: Path, post: Post) -> None:
    """Write a message; the file is whole as soon as it is there, though it may not outlive a crash of the machine."""
    with whole(path, sync=False) as part:
        save(part, post.tensors, {"head": json.dumps(post.head)})


def read_post(path: Path) -> Post:
    """Read a message."""
    with safe_open(path, framework="pt") as file:
        return Post(json.loads(file.metadata()["head"]), {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118


def _filed(weights: Tensors, shared: Tensors) -> dict[str, Any]:
    filed = {**prefixed("weights", weights), **prefixed("shared", shared)}
    return {name: tensor.contiguous() for name, tensor in filed.items()}
