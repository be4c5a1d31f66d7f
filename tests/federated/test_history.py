"""Update history: what is usual in a federation; a site whose update was refused continues from its state before."""

import pytest
import torch
from torch import nn

from fedbcs_monai.federated.history import History, Magnitude
from fedbcs_monai.federated.messages import ExchangeId, State, Unreadable, Update
from fedbcs_monai.federated.method import TensorSpec
from fedbcs_monai.federated.server import Aggregator, aggregator_of
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.federated.site import Site
from fedbcs_monai.methods import SCAFFOLD, FedAvg, FedProto
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.tensors import detached

PAYLOAD = {"1": TensorSpec((2,))}


def stepping(steps, size=1.0, cases=None):
    """Sites that move by so much; a prototype of each is (size, size), or as long as the site's step."""

    def ask(broadcast):
        for site, step in steps.items():
            weights = {"w": broadcast.weights["w"] + step}
            yield Update(site, (cases or {}).get(site, 1), weights, {"1": torch.full((2,), size)})

    return ask


def server(w=0.0, **options):
    refused = []
    made = Aggregator(
        FedProto(),
        State(0, {"w": torch.tensor([w])}, {}),
        payload=PAYLOAD,
        refused=lambda broadcast, site, reason: refused.append((broadcast.round, site, reason)),
        **options,
    )
    return made, refused


def test_a_step_ten_times_the_median_is_accepted_and_a_longer_one_is_not():
    aggregator, refused = server()
    ((first),) = aggregator.rounds(stepping({"A": 1.0, "B": 2.0, "C": 3.0}), 1)
    assert first.weights["w"].item() == 2
    assert aggregator.history.usual["mean step of weights"] == 2
    (second,) = aggregator.rounds(stepping({"A": 1.0, "B": 3.0, "C": 20.0}), 2)
    assert (second.weights["w"].item(), refused) == (10, [])
    list(aggregator.rounds(stepping({"A": 1.0, "B": 3.0, "C": 1000.0}), 3))
    assert refused == [(3, "C", "its mean step of weights is 1e+03, and 3 is usual")]
    assert aggregator.state.weights["w"].item() == 12


def test_a_first_round_is_asked_for_again_without_the_site_that_is_far_from_the_others():
    again = []
    aggregator, refused = server(repeated=lambda round, sites: again.append((round, sites)))
    (state,) = aggregator.rounds(stepping({"A": 1.0, "B": 2.0, "C": 3e6, "D": 3.0}), 1)
    assert again == [(1, ("C",))]
    assert [site for _, site, _ in refused] == ["C"]
    assert state.weights["w"].item() == 2


def test_the_order_of_the_sites_changes_nothing():
    steps = {"A": 1.0, "B": 2.0, "C": 3e6, "D": 3.0}
    histories = []
    for order in (steps, dict(reversed(steps.items()))):
        aggregator, _ = server()
        list(aggregator.rounds(stepping(order), 3))
        histories.append(aggregator.history.plain())
    assert histories[0] == histories[1]


def test_more_cases_are_more_steps():
    aggregator, refused = server()
    list(aggregator.rounds(stepping({"A": 1.0, "B": 1.0, "C": 100.0}, cases={"A": 5, "B": 5, "C": 50}), 1))
    assert refused == []


@pytest.mark.parametrize("cases", [10**5, 10**7])
def test_a_site_of_more_cases_than_all_hospitals_is_refused(cases):
    aggregator, refused = server()
    (state,) = aggregator.rounds(stepping({"A": 1.0, "B": 1.0, "C": 9.0}, cases={"A": 5, "B": 5, "C": cases}), 1)
    assert ("C", state.weights["w"].item()) == (refused[0][1], 1)


def test_the_number_of_cases_is_that_of_the_registration():
    aggregator, refused = server()
    list(aggregator.rounds(stepping({"A": 1.0, "B": 1.0}), 1))
    list(aggregator.rounds(stepping({"A": 1.0, "B": 9.0}, cases={"B": 100}), 2))
    assert refused == [(2, "B", "it has 100 cases, and registered with 1")]


def test_a_name_that_is_not_of_the_federation_is_refused():
    aggregator, refused = server(sites={"A"})
    list(aggregator.rounds(stepping({"A": 1.0, "B": 1.0}), 1))
    assert refused == [(1, "B", "it is not a site of this federation")]


def test_an_answer_that_could_not_be_read_is_refused_as_any_other():
    aggregator, refused = server()

    def ask(broadcast):
        yield Unreadable("A", "its answer cannot be read (KeyError)")
        yield from stepping({"B": 1.0})(broadcast)

    (state,) = aggregator.rounds(ask, 1)
    assert refused == [(1, "A", "its answer cannot be read (KeyError)")]
    assert (state.weights["w"].item(), aggregator.history.refused) == (1, {"A": ExchangeId(1, 0)})


def test_a_resumed_history_refuses_what_the_first_did():
    aggregator, _ = server()
    list(aggregator.rounds(stepping({"A": 1.0, "B": 1.0}), 1))
    resumed = History()
    resumed.restore(aggregator.history.plain())
    assert resumed.usual == aggregator.history.usual
    far = {"cases": Magnitude(1), "mean step of weights": Magnitude(11.0)}
    assert "11, and 1 is usual" in resumed.rejection_reason(Update("A", 1, {}, {}), far)


@pytest.mark.parametrize("method", [FedAvg(), SCAFFOLD()], ids=["FedAvg", "SCAFFOLD"])
def test_one_infinite_round_does_not_exclude_a_site(method, one_weight_sites, same_states):
    """After it the site answers as one that was never asked in that round, to the bit."""
    ill, well = one_weight_sites(), one_weight_sites()
    whole = ill[1].batches
    refused = []

    def ask(sites, without=None):
        sessions = [ClientSession(method, site) for site in sites]

        def carry(broadcast):
            if sites is ill:
                ill[1].batches = whole if broadcast.round != 2 else spoilt(whole)
            for session in sessions:
                if (session.site.name, broadcast.round) != without:
                    yield session.answer(broadcast)

        return carry

    found = states_of(method, ill, ask(ill), refused)
    wanted = states_of(method, well, ask(well, ("Birch", 2)), [])
    assert [(round, site) for round, site, _ in refused] == [(2, "Birch")]
    assert all(torch.equal(a.weights[n], b.weights[n]) for a, b in zip(found, wanted, strict=True) for n in a.weights)
    assert same_states(ill, well)


def spoilt(batches):
    return lambda seed: ({**batch, "image": batch["image"] * torch.inf} for batch in batches(seed))


def states_of(method, sites, ask, refused):
    start = State(0, detached(sites[0].network.state_dict()), {})
    aggregator = aggregator_of(method, sites[0].network, start)
    aggregator.refused = lambda broadcast, site, reason: refused.append((broadcast.round, site, reason))
    return list(aggregator.rounds(ask, 4))


@pytest.fixture
def one_weight_sites():
    class OneWeight(nn.Module):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(()))
            self.level = nn.Identity()

        def forward(self, image):
            return self.level(torch.cat([image, self.w * image], 1))[:, 1:]

    def a_site(name, target):
        batch = {"image": torch.ones(1, 1, 1), "label": torch.tensor([[[target]]])}
        return Site(
            name=name,
            network=Segmenter(OneWeight(), ["level"], ["level"], in_channels=1, spatial_dims=1),
            batches=lambda seed: [batch],
            cases=1,
            criterion=lambda logits, label: 0.5 * (logits - label).square().mean(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, 0.25, 0.5),
            scores=lambda network: {},
        )

    return lambda: [a_site(name, target) for name, target in (("Alder", 1.0), ("Birch", 2.0), ("Cedar", 3.0))]


@pytest.fixture
def same_states():
    def check(first, second):
        for a, b in zip(first, second, strict=True):
            one, other = a.state(), b.state()
            if one.keys() != other.keys() or not all(torch.equal(one[name], other[name]) for name in one):
                return False
        return True

    return check
