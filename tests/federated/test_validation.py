"""Validation: an invalid update is named and left out, a valid one is accepted, and the round continues."""

from dataclasses import replace

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import Broadcast, State, Update
from fedbcs_monai.federated.method import TensorSpec
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.federated.validation import MAX_VALUES, examined
from fedbcs_monai.methods import FedAvg

WEIGHTS = {"w": torch.zeros(2), "count": torch.tensor(3)}
ASKED = Broadcast(1, WEIGHTS, {})
PAYLOAD = {
    "decoder/0": TensorSpec((3,)),
    "decoder/1": TensorSpec((3,)),
    "rows": TensorSpec((-1, 3)),
    "c": TensorSpec((2,), needed=True),
}
SHARED = {"decoder/1": torch.ones(3), "c": torch.ones(2)}
GOOD = Update("Alder", 5, {"w": torch.ones(2), "count": torch.tensor(4)}, SHARED, {"loss": 0.5})


def weights(**changes):
    return {**GOOD.weights, **changes}


def shared(name, tensor):
    return {**SHARED, name: tensor}


def objected(asked=ASKED, **change):
    return reason(asked, replace(GOOD, **change), payload=PAYLOAD)


def reason(*args, **options):
    return examined(*args, **options).rejection_reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"site": "../../etc/passwd"}, "its name is not that of a site"),
        ({"site": "Al\nder"}, "its name is not that of a site"),
        ({"site": 7}, "its name is not that of a site"),
        ({"cases": 0}, "number of cases is 0"),
        ({"cases": -5}, "number of cases is -5"),
        ({"cases": float("nan")}, "number of cases is nan"),
        ({"cases": True}, "number of cases is True"),
        ({"metrics": {"loss": "low"}}, "its loss is 'low', not a number"),
        ({"metrics": {"val_dice": 1e9}}, "its val_dice is 1000000000.0, not in"),
        ({"metrics": {"val_dice": float("nan")}}, "its val_dice is nan, not finite"),
        ({"metrics": {"loss": float("inf")}}, "its loss is inf, not finite"),
        ({"metrics": {"train_cases": 2.5}}, "its train_cases is 2.5, not a number of cases"),
        ({"metrics": {"train_cases": float("nan")}}, "its train_cases is nan, not finite"),
        ({"metrics": {"test_cases": float("inf")}}, "its test_cases is inf, not finite"),
        ({"metrics": {"loss\n": 1.0}}, "a number has no name"),
        ({"metrics": ["loss"]}, "its numbers are a list"),
        ({"weights": {}}, "2 weights are missing or unknown: count, w"),
        ({"weights": {"w": torch.ones(2)}}, "1 weights are missing or unknown: count"),
        ({"weights": weights(extra=torch.ones(1))}, "1 weights are missing or unknown: extra"),
        ({"weights": weights(w=torch.ones(1))}, r"weight w is \(1,\) float32, not \(2,\) float32"),
        ({"weights": weights(w=torch.ones(2, dtype=torch.float64))}, "float64, not"),
        ({"weights": weights(w=torch.tensor([0, torch.nan]))}, "weight w is not finite"),
        ({"weights": weights(w=torch.tensor([0, torch.inf]))}, "weight w is not finite"),
        ({"weights": weights(w=[0.0, 1.0])}, "weight 'w' is a list"),
        ({"shared": shared("decoder/1", torch.tensor([0, torch.nan, 0]))}, "shared tensor decoder/1 is not finite"),
        ({"shared": shared("decoder/1", "a prototype")}, "shared tensor 'decoder/1' is a str"),
        ({"shared": shared("decoder/1", torch.ones(4))}, r"decoder/1 is \(4,\) float32, not \(3,\) float32"),
        ({"shared": shared("decoder/1", torch.ones(1, 3))}, r"decoder/1 is \(1, 3\) float32, not \(3,\)"),
        ({"shared": shared("decoder/1", torch.ones(3, dtype=torch.long))}, r"decoder/1 is \(3,\) int64, not"),
        ({"shared": shared("decoder/1", torch.ones(3, dtype=torch.float64))}, "decoder/1 is .* float64, not"),
        ({"shared": shared("decoder/1", torch.ones(3).to(torch.float8_e5m2))}, "decoder/1 is .* float8_e5m2, not"),
        ({"shared": shared("decoder/1", torch.full((3,), 1e13))}, "decoder/1 is as large as 1e\\+13"),
        ({"weights": weights(w=torch.ones(2).to_sparse())}, "'w' is not a plain tensor"),
        ({"weights": weights(w=torch.ones(2, device="meta"))}, "'w' is not a plain tensor"),
        ({"weights": None}, "its tensors are a NoneType"),
        ({"shared": shared("decoder/7", torch.ones(3))}, "1 shared tensors are missing or unknown: decoder/7"),
        ({"shared": {}}, "1 shared tensors are missing or unknown: c"),
        ({"shared": shared("rows", torch.ones(2, 4))}, r"rows is \(2, 4\) float32, not \(n, 3\) float32"),
        ({"shared": shared("rows", torch.ones(0, 3))}, r"rows is \(0, 3\) float32, not \(n, 3\) float32"),
        (
            {"shared": shared("rows", torch.ones(MAX_VALUES, 3))},
            "it shares 3,145,733 numbers, and 1,048,576 may come",
        ),
    ],
)
def test_what_is_wrong_with_an_update_is_said(change, said):
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(objected(**change))


def test_a_prototype_of_a_thousand_million_numbers_is_refused():
    endless = torch.ones(1).expand(10**9)
    assert "may come" in objected(shared=shared("decoder/1", endless))


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"shared": {"c": torch.ones(2)}},
        {"shared": shared("rows", torch.ones(5, 3))},
    ],
    ids=str,
)
def test_a_good_update_is_believed(change):
    assert objected(**change) is None


def test_what_sites_keep_to_themselves_must_not_come():
    kept = replace(GOOD, weights={"count": torch.tensor(4)})
    assert reason(ASKED, kept, {"w"}, PAYLOAD) is None
    assert "unknown: w" in reason(ASKED, GOOD, {"w"}, PAYLOAD)


def test_numbers_come_without_weights_and_other_tasks_may():
    assert objected(replace(ASKED, task="evaluate"), weights={}, shared={}, cases=0) is None
    assert objected(replace(ASKED, task="gradients"), weights={}) is None


def test_scores_are_columns_of_one_length():
    columns = {name: torch.ones(4, dtype=torch.float64) for name in ("dice", "hd95_mm")}
    test = replace(ASKED, task="test")
    assert objected(test, weights={}, shared=columns) is None
    assert "scores have the shapes" in objected(test, weights={}, shared={**columns, "assd_mm": torch.ones(3)})
    assert "scores have the shapes" in objected(test, weights={}, shared={"dice": torch.ones(4, 1)})


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
    with pytest.raises(
        UserError, match=r"round 1, train: 0 updates are accepted, 1 must be; refused: Alder \(.*not finite\)"
    ):
        list(aggregator.rounds(lambda _: [Update("Alder", 1, {"w": torch.tensor([torch.inf])}, {})], 1))
    assert aggregator.state.round == 0


def test_a_round_with_too_few_to_believe_fails():
    aggregator = Aggregator(FedAvg(), State(0, {"w": torch.zeros(1)}, {}), least=3)
    with pytest.raises(
        UserError, match=r"2 updates are accepted, 3 must be; refused: Birch .*, Cedar \(it has answered"
    ):
        list(aggregator.rounds(spoiling, 1))
    assert aggregator.state.round == 0
