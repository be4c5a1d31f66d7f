"""Traffic: bytes and prototypes, counted by hand and heard by whoever listens to the rounds."""

import torch

from fedbcs_monai.federated.messages import Broadcast, State, Update
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.federated.traffic import TRAFFIC, prototypes, size_bytes, traffic
from fedbcs_monai.methods import FedAvg

WEIGHTS = {"w": torch.zeros(10), "steps": torch.zeros((), dtype=torch.int64)}  # 40 + 8 bytes


def test_bytes_are_those_of_the_values():
    assert size_bytes(WEIGHTS) == 48
    assert size_bytes({"half": torch.zeros(3, 5, dtype=torch.float16)}) == 30
    assert size_bytes({}) == 0


def test_prototypes_are_the_vectors_of_a_class():
    shared = {
        "encoder/0": torch.zeros(8),
        "decoder/12": torch.zeros(8),
        "1": torch.zeros(3, 8),
        "Alder/1": torch.ones(2, 4),
    }
    assert prototypes(shared) == 1 + 1 + 3 + 2


def test_other_luggage_holds_no_prototypes():
    assert prototypes({"control/conv.weight": torch.zeros(4, 8), "0/head.weight": torch.zeros(2, 8)}) == 0


def test_an_exchange_is_counted_each_way():
    broadcast = Broadcast(1, WEIGHTS, {"1": torch.zeros(3, 4)})
    counted = traffic(broadcast, Update("Alder", 1, {"w": torch.zeros(10)}, {"1": torch.zeros(4)}))
    assert counted == {
        "sent_weight_bytes": 40,
        "sent_shared_bytes": 16,
        "sent_prototypes": 1,
        "received_weight_bytes": 48,
        "received_shared_bytes": 48,
        "received_prototypes": 3,
    }
    assert tuple(counted) == TRAFFIC


def test_the_rounds_are_heard_with_their_traffic():
    heard = []
    aggregator = Aggregator(FedAvg(), State(0, {"w": torch.zeros(2)}, {}), lambda _, update: heard.append(update))
    (state,) = aggregator.rounds(lambda b: iter([Update("Alder", 1, {"w": torch.ones(2)}, {}, {"loss": 3.0})]), 1)
    assert heard[0].metrics["loss"] == 3.0
    assert heard[0].metrics["sent_weight_bytes"] == heard[0].metrics["received_weight_bytes"] == 8
    assert state.weights["w"].tolist() == [1, 1]
