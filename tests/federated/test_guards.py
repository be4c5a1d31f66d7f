"""Guards: a bad update is named and left out, a good one is never refused, and the round goes on with the rest."""

from dataclasses import replace

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregator import Aggregator
from fedbcs_monai.federated.guards import objection
from fedbcs_monai.messages import Broadcast, State, Update
from fedbcs_monai.methods import FedAvg

WEIGHTS = {"w": torch.zeros(2), "count": torch.tensor(3)}
ASKED = Broadcast(1, WEIGHTS, {})
GOOD = Update("Alder", 5, {"w": torch.ones(2), "count": torch.tensor(4)}, {"decoder/1": torch.ones(3)}, {"loss": 0.5})


def weights(**changes):
    return {**GOOD.weights, **changes}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cases": 0}, "number of cases is 0"),
        ({"cases": -5}, "number of cases is -5"),
        ({"cases": float("nan")}, "number of cases is nan"),
        ({"cases": True}, "number of cases is True"),
        ({"metrics": {"loss": "low"}}, "its loss is 'low', not a number"),
        ({"metrics": {"val_dice": 1e9}}, "its val_dice is 1000000000.0, not in"),
        ({"metrics": ["loss"]}, "its numbers are a list"),
        ({"weights": {}}, "2 weights are missing or unknown: count, w"),
        ({"weights": {"w": torch.ones(2)}}, "1 weights are missing or unknown: count"),
        ({"weights": weights(extra=torch.ones(1))}, "1 weights are missing or unknown: extra"),
        ({"weights": weights(w=torch.ones(1))}, r"weight w is \(1,\) float32, not \(2,\) float32"),
        ({"weights": weights(w=torch.ones(2, dtype=torch.float64))}, "float64, not"),
        ({"weights": weights(w=torch.tensor([0, torch.nan]))}, "weight w is not finite"),
        ({"weights": weights(w=torch.tensor([0, torch.inf]))}, "weight w is not finite"),
        ({"weights": weights(w=[0.0, 1.0])}, "weight 'w' is a list"),
        ({"shared": {"decoder/1": torch.tensor([torch.nan])}}, "shared tensor decoder/1 is not finite"),
        ({"shared": {"decoder/1": "a prototype"}}, "shared tensor 'decoder/1' is a str"),
    ],
)
def test_what_is_wrong_with_an_update_is_said(change, said):
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(objection(ASKED, replace(GOOD, **change)))


@pytest.mark.parametrize(
    "change",
    [{}, {"metrics": {"val_dice": float("nan")}}, {"metrics": {"loss": float("inf")}}, {"shared": {}}],
    ids=str,
)
def test_a_good_update_is_believed(change):
    assert objection(ASKED, replace(GOOD, **change)) is None


def test_what_sites_keep_to_themselves_must_not_come():
    assert objection(ASKED, replace(GOOD, weights={"count": torch.tensor(4)}), private={"w"}) is None
    assert "unknown: w" in objection(ASKED, GOOD, private={"w"})


def test_numbers_come_without_weights_and_other_tasks_may():
    scores = replace(GOOD, weights={}, shared={}, cases=0)
    assert objection(replace(ASKED, task="evaluate"), scores) is None
    assert objection(replace(ASKED, task="gradients"), replace(GOOD, weights={})) is None


def spoiling(broadcast):
    """Birch has gone wild, and Cedar answers twice."""
    for site, value in (("Alder", 1.0), ("Birch", torch.nan), ("Cedar", 3.0), ("Cedar", 1e12)):
        yield Update(site, 1, {"w": torch.tensor([value])}, {})


def test_the_round_goes_on_with_the_rest():
    refused = []
    aggregator = Aggregator(
        FedAvg(),
        State(0, {"w": torch.zeros(1)}, {}),
        refused=lambda broadcast, site, reason: refused.append((broadcast.round, site, reason)),
    )
    (state,) = aggregator.rounds(spoiling, 1)
    assert state.weights["w"].item() == 2
    assert refused == [(1, "Birch", "weight w is not finite"), (1, "Cedar", "it has answered already")]


def test_a_round_without_anybody_to_believe_fails_and_names_everyone():
    aggregator = Aggregator(FedAvg(), State(0, {"w": torch.zeros(1)}, {}))
    with pytest.raises(UserError, match=r"round 1, train: every update was refused: Alder \(.*not finite\)"):
        list(aggregator.rounds(lambda _: [Update("Alder", 1, {"w": torch.tensor([torch.inf])}, {})], 1))
    assert aggregator.state.round == 0
