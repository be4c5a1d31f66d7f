"""MONAI's interface: the bits of training in one process, whatever happens to a client between two questions."""

import json
from functools import cache

import numpy as np
import pytest
import torch
from monai.fl.client import ClientAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, ModelType, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from fedbcs_monai import methods
from fedbcs_monai.backends.local import train
from fedbcs_monai.backends.monai import (
    FederatedClient,
    FederatedServer,
    pack_broadcast,
    pack_update,
    unpack_broadcast,
    unpack_update,
)
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.federated.messages import Broadcast, ExchangeId, Update
from fedbcs_monai.federated.site import Aborted
from fedbcs_monai.runs.checkpoint import read_checkpoint
from fedbcs_monai.runs.setup import require_all
from fedbcs_monai.settings import plain

SITES = ("Alder", "Birch", "Cedar")
METHODS = [name for name in methods.__all__ if name not in ("ClientContext", "Method")]


def bundle_of(config, folder):
    """A configuration as a folder with one file, as a platform would hand it on."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(plain(config)))
    return folder, ["config.json"]


def a_client(config, folder, name="Alder", **options):
    client = FederatedClient(*bundle_of(config, folder), **options)
    client.initialize({ExtraItems.CLIENT_NAME: name})
    return client


def asking(clients):
    """A platform: carries exchange objects, and nothing else, between a server and its clients."""

    def ask(exchange):
        for client in clients:
            client.train(exchange)
            yield client.get_weights()

    return ask


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert torch.equal(found[name], wanted[name]), name


@pytest.fixture(scope="module")
def straight(tiny):
    """From a method to its tiny configuration and what the server has after two rounds in one process."""

    @cache
    def trained(method):
        config = tiny(method, examples=0)
        return config, read_checkpoint(train(config) / "checkpoints").state

    return trained


@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_the_bits_of_training_in_one_process(method, straight, tmp_path):
    config, state = straight(method)
    clients = [a_client(config, tmp_path, site) for site in SITES]
    server = FederatedServer(*bundle_of(config, tmp_path))
    for _ in range(config.rounds):
        model = server.round(asking(clients))
    same(model.weights, state.weights)
    same(model["shared"], state.shared)


@pytest.mark.parametrize("rule", [{"trimmed_mean": 0.3}, "centered_clipping"])
def test_a_robust_rule_gives_the_bits_of_training_in_one_process(rule, tiny, tmp_path):
    config = tiny("FedAvgM", examples=0, **{"method::aggregation": rule})
    state = read_checkpoint(train(config) / "checkpoints").state
    clients = [a_client(config, tmp_path, site) for site in reversed(SITES)]
    server = FederatedServer(*bundle_of(config, tmp_path))
    for _ in range(config.rounds):
        model = server.round(asking(clients))
    same(model.weights, state.weights)


@pytest.mark.parametrize("method", ["SCAFFOLD", "FedBN"])
def test_a_client_that_is_killed_goes_on_from_its_disk(method, straight, tmp_path):
    config, state = straight(method)
    server = FederatedServer(*bundle_of(config, tmp_path))

    def new_clients():
        return [a_client(config, tmp_path, site, states=tmp_path / site) for site in SITES]

    for _ in range(config.rounds):
        model = server.round(asking(new_clients()))
    same(model.weights, state.weights)
    same(model["shared"], state.shared)


def asked(server, round=1, **more):
    state = server.aggregator.state
    exchange = pack_broadcast(Broadcast(round, state.weights, state.shared))
    exchange |= more
    return exchange


def test_a_question_that_comes_again_has_the_same_answer(tiny, tmp_path):
    config = tiny("SCAFFOLD")
    server = FederatedServer(*bundle_of(config, tmp_path))
    client = a_client(config, tmp_path, states=tmp_path / "states")
    answers = []
    for round in (1, 2, 2):
        client.train(asked(server, round))
        answers.append(client.get_weights())
    assert not torch.equal(*(next(iter(answer.weights.values())) for answer in answers[:2]))
    same(answers[2].weights, answers[1].weights)
    same(answers[2]["shared"], answers[1]["shared"])


class Aborting(Callbacks):
    """Somebody calls the training off in its second step."""

    def on_step_end(self, site, steps):
        if steps == 2 and not self.done:
            self.done = True
            self.client.abort()

    done = False


def test_an_aborted_training_leaves_nothing_behind(tiny, tmp_path):
    config = tiny("SCAFFOLD")
    server = FederatedServer(*bundle_of(config, tmp_path))
    wanted = a_client(config, tmp_path)
    callbacks = Aborting()
    callbacks.client = client = a_client(config, tmp_path, callbacks=callbacks)
    with pytest.raises(Aborted, match="at Alder was aborted after 2 steps"):
        client.train(asked(server))
    assert client.site.state() == {}
    with pytest.raises(RuntimeError, match="no weights before the first training"):
        client.get_weights()
    for one in (client, wanted):
        one.train(asked(server))
    same(client.get_weights().weights, wanted.get_weights().weights)


def test_numbers_alone_are_asked_of_evaluate(tiny, tmp_path):
    config = tiny()
    with pytest.raises(UserError, match=r"task is 'train': train does that; evaluate answers evaluate, test, describe"):
        a_client(config, tmp_path).evaluate(asked(FederatedServer(*bundle_of(config, tmp_path))))


def test_a_platform_that_knows_weights_alone_counts_the_rounds_itself(tiny, tmp_path):
    config = tiny()
    server = FederatedServer(*bundle_of(config, tmp_path))
    told, untold = (a_client(config, tmp_path) for _ in range(2))
    for round in (1, 2):
        told.train(asked(server, round))
        untold.train(ExchangeObject(weights=server.aggregator.state.weights))
    same(untold.get_weights().weights, told.get_weights().weights)


def test_messages_come_back_as_they_went():
    broadcast = Broadcast(
        3, {"w": torch.ones(2)}, {"decoder/1": torch.zeros(1)}, "gradients", 1, {"A": ExchangeId(2, 0)}, 2
    )
    update = Update("Alder", 7, {"w": torch.ones(2)}, {"decoder/1": torch.zeros(1)}, {"loss": 0.5})
    assert unpack_broadcast(pack_broadcast(broadcast)) == broadcast
    assert unpack_update(pack_update(update)) == update
    assert pack_update(update).is_valid_weights()


def test_a_client_scores_validation_and_test_cases_and_describes_itself(tiny, tmp_path):
    config = tiny(examples=0, rounds=1)
    folder = train(config)
    weights = read_checkpoint(folder / "checkpoints").state.weights
    client = a_client(config, tmp_path)
    scores = {task: client.evaluate(asked_for(task, weights)) for task in ("evaluate", "test", "describe")}
    rounds = (folder / "rounds.csv").read_text()
    assert f"1,Alder,val_dice,{scores['evaluate'].metrics['val_dice']!r}" in rounds
    dices = [line.split(",")[4] for line in (folder / "scores.csv").read_text().splitlines() if "last,Alder" in line]
    assert scores["test"].metrics["dice"] == pytest.approx(sum(map(float, dices)) / len(dices), abs=1e-15)
    assert "hd95_mm" not in scores["test"].metrics  # pictures have no spacing
    assert scores["describe"].metrics == {"train_cases": 3, "val_cases": 1, "test_cases": 2}
    assert [scores[task]["shared"] for task in scores] == [{}, {}, {}]


def asked_for(task, weights):
    return pack_broadcast(Broadcast(1, weights, {}, task))


def test_scores_of_single_cases_leave_only_where_the_site_says_so(tiny, tmp_path):
    config = tiny()
    weights = FederatedServer(*bundle_of(config, tmp_path)).aggregator.state.weights
    answer = a_client(config, tmp_path, case_scores=True).evaluate(asked_for("test", weights))
    assert answer["shared"]["dice"].shape == (2,)
    assert answer["shared"]["dice"].mean().item() == answer.metrics["dice"]


def test_statistics_are_counts_under_the_names_of_monai(tiny, tmp_path):
    statistics = a_client(tiny(), tmp_path).get_data_stats().statistics
    assert statistics["train"][FlStatistics.DATA_COUNT] == 3
    assert statistics[FlStatistics.TOTAL_DATA][FlStatistics.DATA_COUNT] == 6


def test_from_the_shipped_bundle(tiny, nuclei_sites):
    tiny_keys = {
        key: value for key, value in plain(tiny()).items() if key in ("preprocessing", "augmentation", "network_def")
    }
    overrides = {**load_keys(tiny()), **tiny_keys, "sites": str(nuclei_sites), "method": "FedAvg", "device": "cpu"}
    client = FederatedClient("bundle", overrides=overrides)
    assert isinstance(client, ClientAlgo)
    client.initialize({ExtraItems.CLIENT_NAME: "Alder"})
    client.train(asked(FederatedServer("bundle", overrides=overrides)))
    assert client.get_weights().is_valid_weights()
    client.finalize()


def load_keys(config):
    """What nuclei change in the bundle."""
    keys = ("task", "reads", "slice_plane", "reading", "slicing", "inferer", "optimizer", "batch_size")
    return {key: getattr(config, key) for key in keys}


def test_a_site_that_is_not_in_the_list_is_named(tiny, tmp_path):
    with pytest.raises(UserError, match="there is no site 'Elsewhere'; there are: Alder, Birch, Cedar, Elm"):
        a_client(tiny(), tmp_path, "Elsewhere")


def test_a_server_refuses_and_says_whom(tiny, tmp_path):
    config = tiny()
    refused = []
    server = FederatedServer(*bundle_of(config, tmp_path), refused=lambda site, reason: refused.append((site, reason)))
    good = a_client(config, tmp_path)

    def ask(exchange):
        good.train(exchange)
        yield good.get_weights()
        yield pack_update(Update("Birch", 0, {}, {}))

    same(server.round(ask).weights, good.get_weights().weights)
    assert refused == [("Birch", "its number of cases is 0")]


def test_arrays_are_taken_for_tensors(tiny, tmp_path):
    """MONAI's own clients and NVFlare's numpy exchange send arrays."""
    config = tiny()
    server = FederatedServer(*bundle_of(config, tmp_path))
    tensors, arrays = (a_client(config, tmp_path) for _ in range(2))
    tensors.train(asked(server, 1))
    question = asked(server, 1)
    question.weights = {name: tensor.numpy() for name, tensor in question.weights.items()}
    arrays.train(question)
    same(arrays.get_weights().weights, tensors.get_weights().weights)


def test_arrays_are_taken_for_tensors_beside_the_weights_too():
    arrays, tensor = {"p": np.array([0.5, 2.0], dtype=np.float32)}, torch.tensor([0.5, 2.0])
    question = pack_broadcast(Broadcast(1, {}, {}))
    answer = pack_update(Update("Alder", 1, {}, {}))
    question["shared"] = answer["shared"] = arrays
    for shared in (unpack_broadcast(question).shared, unpack_update(answer).shared):
        assert torch.equal(shared["p"], tensor)
        assert shared["p"].dtype == torch.float32


@pytest.mark.parametrize(
    ("method", "extra", "said"),
    [
        ("get_weights", {ExtraItems.MODEL_TYPE: ModelType.BEST_MODEL}, "fl_best_model: a site keeps no such model"),
        ("get_weights", {ExtraItems.MODEL_TYPE: ModelType.FINAL_MODEL}, "fl_final_model: a site keeps no such model"),
        ("get_data_stats", {FlStatistics.HIST_BINS: 9, FlStatistics.HIST_RANGE: [0, 1]}, "hist_bins and hist_range: "),
    ],
)
def test_what_a_platform_asks_besides_is_refused_where_a_site_does_not_give_it(method, extra, said, tmp_path):
    with pytest.raises(UserError, match=said):
        getattr(FederatedClient(tmp_path), method)(extra)


def answered(client, change):
    """Have a client train, and change its answer."""

    def ask(exchange):
        client.train(exchange)
        answer = client.get_weights()
        change(answer, exchange)
        yield answer

    return ask


def test_a_server_adds_a_difference_to_what_it_sent_out(tiny, tmp_path):
    config = tiny()
    whole, from_arrays, from_difference = (FederatedServer(*bundle_of(config, tmp_path)) for _ in range(3))

    def as_arrays(answer, exchange):
        answer.weights = {name: tensor.numpy() for name, tensor in answer.weights.items()}

    def as_difference(answer, exchange):
        answer.weights = {name: tensor - exchange.weights[name] for name, tensor in answer.weights.items()}
        answer.weight_type = WeightType.WEIGHT_DIFF

    wanted = whole.round(answered(a_client(config, tmp_path), lambda answer, exchange: None)).weights
    same(from_arrays.round(answered(a_client(config, tmp_path), as_arrays)).weights, wanted)
    added = from_difference.round(answered(a_client(config, tmp_path), as_difference)).weights
    for name, tensor in wanted.items():
        torch.testing.assert_close(added[name], tensor)


def test_a_client_refuses_weights_that_are_not_whole(tiny, tmp_path):
    config = tiny()
    question = asked(FederatedServer(*bundle_of(config, tmp_path)), 1)
    question.weight_type = WeightType.WEIGHT_DIFF
    with pytest.raises(UserError, match="have it send whole weights"):
        a_client(config, tmp_path).train(question)


def test_a_bundle_alone_describes_a_run():
    require_all(load_config("bundle/configs/train.json"))


@pytest.mark.parametrize("states", [None, "states"], ids=["in memory", "on disk"])
def test_a_client_whose_answer_was_refused_goes_on_from_before_it(states, tiny, tmp_path):
    """However often it is told; and one that is told of an older answer keeps the newer."""
    config = tiny("SCAFFOLD")
    server = FederatedServer(*bundle_of(config, tmp_path))
    told, away = (
        a_client(config, tmp_path, states=tmp_path / states / name if states else None) for name in ("told", "away")
    )
    for client in (told, away):
        client.train(asked(server, 1))
    told.train(asked(server, 2))
    refused = {"Alder": ExchangeId(2, 0)}
    told.evaluate(asked(server, 2, task="evaluate", refused=refused))
    told.train(asked(server, 3, refused=refused))
    away.train(asked(server, 3))
    same(told.get_weights().weights, away.get_weights().weights)
    for client in (told, away):
        client.train(asked(server, 4, refused={"Alder": ExchangeId(2, 0)}))
    same(told.site.state(), away.site.state())
    same(told.get_weights().weights, away.get_weights().weights)


def test_an_answer_that_cannot_be_read_is_refused_and_the_rest_goes_on(tiny, tmp_path):
    config = tiny()
    refused = []
    server = FederatedServer(*bundle_of(config, tmp_path), refused=lambda *what: refused.append(what))
    good = a_client(config, tmp_path)

    def ask(exchange):
        good.train(exchange)
        yield good.get_weights()
        yield ExchangeObject(weights={})
        yield None

    same(server.round(ask).weights, good.get_weights().weights)
    assert [reason for _, reason in refused] == [
        "its answer cannot be read (KeyError)",
        "its answer cannot be read (TypeError)",
    ]
