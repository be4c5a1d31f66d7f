"""Wire format: a message as a header and flat tensors, and as one safetensors file."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open

from fedbcs_monai.federated.messages import Broadcast, ExchangeId, Update
from fedbcs_monai.files import whole
from fedbcs_monai.tensors import Tensors, prefixed, save, under

HEADER = "head"
"""In the metadata of a file: the head, as JSON."""


def head_of(message: Broadcast | Update) -> dict[str, Any]:
    """The plain numbers and words of a message."""
    if isinstance(message, Update):
        return {"site": message.site, "cases": message.cases, "metrics": dict(message.metrics)}
    refused = {site: list(exchange_id) for site, exchange_id in message.refused.items()}
    header = {"round": message.round, "task": message.task, "exchange": message.exchange}
    return {**header, "refused": refused, "selected": message.selected}


def tensors_of(message: Broadcast | Update) -> dict[str, Any]:
    """The tensors of a message: the network filed under ``weights/``, the method's payload under ``shared/``."""
    filed = {**prefixed("weights", message.weights), **prefixed("shared", message.shared)}
    return {name: tensor.contiguous() for name, tensor in filed.items()}


def broadcast_of(header: Mapping[str, Any], tensors: Tensors) -> Broadcast:
    """The broadcast of which these are head and tensors."""
    weights, shared = under("weights", tensors), under("shared", tensors)
    refused = {site: ExchangeId(*exchange_id) for site, exchange_id in header["refused"].items()}
    return Broadcast(header["round"], weights, shared, header["task"], header["exchange"], refused, header["selected"])


def update_of(header: Mapping[str, Any], tensors: Tensors) -> Update:
    """The update of which these are head and tensors."""
    return Update(
        header["site"], header["cases"], under("weights", tensors), under("shared", tensors), header["metrics"]
    )


def write_message(path: Path, message: Broadcast | Update) -> None:
    """Write a message; the file is whole as soon as it is there, though it may not outlive a crash of the machine."""
    with whole(path, sync=False) as part:
        save(part, tensors_of(message), {HEADER: json.dumps(head_of(message))})


def decode_broadcast(path: Path) -> Broadcast:
    """Read a broadcast that `write_message` wrote."""
    return broadcast_of(*_read(path))


def decode_update(path: Path) -> Update:
    """Read an update that `write_message` wrote."""
    return update_of(*_read(path))


def _read(path: Path) -> tuple[Mapping[str, Any], Tensors]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()[HEADER]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
