"""The round loop: so many rounds, every update heard, and none held longer than it must be."""

import weakref

import torch

from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.methods import FedAvg

SITES = ("Alder", "Birch", "Cedar", "Dogwood")


def start(round=0):
    return State(round, {"w": torch.zeros(1)}, {})


def adding(broadcast):
    """Every site adds its own number to the weight it receives."""
    for n, name in enumerate(SITES):
        yield Update(name, 1, {"w": broadcast.weights["w"] + n}, {})


def test_rounds_run_until_so_many_are_done():
    states = list(Aggregator(FedAvg(), start()).rounds(adding, 3))
    assert [(state.round, state.weights["w"].item()) for state in states] == [(1, 1.5), (2, 3), (3, 4.5)]


def test_a_saved_state_goes_on_where_it_was():
    first = Aggregator(FedAvg(), start())
    *_, saved = first.rounds(adding, 2)
    (last,) = Aggregator(FedAvg(), saved).rounds(adding, 3)
    assert (last.round, last.weights["w"].item()) == (3, 4.5)
    assert list(Aggregator(FedAvg(), saved).rounds(adding, 2)) == []


def test_every_update_is_heard_when_it_comes_in():
    events = []

    def ask(broadcast):
        for update in adding(broadcast):
            events.append(f"{update.site} asked")
            yield update

    aggregator = Aggregator(FedAvg(), start(4), lambda broadcast, update: events.append((broadcast.round, update.site)))
    list(aggregator.rounds(ask, 5))
    assert events == [event for name in SITES for event in (f"{name} asked", (5, name))]


def test_no_more_than_two_updates_are_held_at_a_time():
    alive, most = [], []

    def ask(broadcast):
        for name in SITES:
            weight = torch.ones(10)
            alive.append(weakref.ref(weight))
            most.append(sum(ref() is not None for ref in alive))
            yield Update(name, 1, {"w": weight}, {})
            del weight

    list(Aggregator(FedAvg(), State(0, {"w": torch.zeros(10)}, {})).rounds(ask, 1))
    assert max(most) <= 2


def test_evaluation_asks_for_scores_of_the_present_weights():
    asked = []
    aggregator = Aggregator(FedAvg(), State(7, {"w": torch.ones(1)}, {"p": torch.zeros(1)}))
    updates = aggregator.evaluate(lambda broadcast: asked.append(broadcast) or adding(broadcast))
    assert [update.site for update in updates] == list(SITES)
    assert [(b.round, b.task, b.weights, b.shared) for b in asked] == [
        (7, "evaluate", aggregator.state.weights, aggregator.state.shared)
    ]
    assert aggregator.state.round == 7
