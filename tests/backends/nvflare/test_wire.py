"""Wire: a message comes out of its file as it went in, whatever it holds."""

import math

import pytest
import torch

from fedbcs_monai.backends.nvflare.wire import decode_broadcast, decode_update, write_message
from fedbcs_monai.federated.messages import Broadcast, ExchangeId, Update

WEIGHTS = {"a.weight": torch.rand(3, 2), "a.count": torch.tensor(7), "b": torch.rand(2, 3, 4, 4)}
SHARED = {"decoder/1": torch.rand(5), "half": torch.rand(2).half()}


def sent(message, folder):
    file = folder / "message.safetensors"
    write_message(file, message)
    return decode_update(file) if isinstance(message, Update) else decode_broadcast(file)


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


def test_a_broadcast_comes_as_it_went(tmp_path):
    found = sent(Broadcast(3, WEIGHTS, SHARED, "gradients", 1, {"Alder": ExchangeId(2, 0)}, selected=2), tmp_path)
    assert (found.round, found.task, found.exchange, found.selected) == (3, "gradients", 1, 2)
    assert found.refused == {"Alder": ExchangeId(2, 0)}
    same(found.weights, WEIGHTS)
    same(found.shared, SHARED)


def test_an_update_comes_as_it_went(tmp_path):
    metrics = {"loss": 0.1 + 0.2, "val_dice": math.nan}
    found = sent(Update("Älder", 12, WEIGHTS, SHARED, metrics), tmp_path)
    assert (found.site, found.cases, found.metrics["loss"]) == ("Älder", 12, 0.1 + 0.2)
    assert math.isnan(found.metrics["val_dice"])
    same(found.weights, WEIGHTS)
    same(found.shared, SHARED)


def test_channels_last_weights_travel(tmp_path):
    weights = {"w": WEIGHTS["b"].contiguous(memory_format=torch.channels_last)}
    same(sent(Update("Alder", 1, weights, {}), tmp_path).weights, weights)


def test_an_empty_message_travels(tmp_path):
    found = sent(Update("Alder", 0, {}, {}, {"dice": 1.0}), tmp_path)
    assert (found.weights, found.shared, found.metrics) == ({}, {}, {"dice": 1.0})


def test_a_file_that_is_there_is_whole(tmp_path):
    sent(Update("Alder", 1, WEIGHTS, {}), tmp_path)
    with pytest.raises(TypeError):
        sent(Update("Birch", 1, {}, {}, {"loss": object()}), tmp_path)
    assert decode_update(tmp_path / "message.safetensors").site == "Alder"
    assert [path.name for path in tmp_path.iterdir()] == ["message.safetensors"]
