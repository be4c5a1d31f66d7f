"""A site over the questions of a server: refused, failed and repeated questions leave it where it was."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

from fedbcs_monai.federated.client_store import ClientStore
from fedbcs_monai.federated.messages import Broadcast, ExchangeId
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.federated.site import Aborted, Site
from fedbcs_monai.methods import FedAvg
from fedbcs_monai.metrics.cases import CaseScore


class OneWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.w * image


def a_site(**options):
    """Of a site whose momentum says how often it has trained: -0.5, then -0.75, then -0.875."""
    return Site(
        name="Alder",
        network=OneWeight(),
        batches=lambda seed: [{"image": torch.ones(1), "label": torch.zeros(1)}],
        cases=3,
        criterion=lambda logits, label: logits.mean(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5, momentum=0.5),
        scores=lambda network: {"w": float(network.w.detach())},
        **options,
    )


def asked(round=1, task="train", refused=None, w=0.0):
    return Broadcast(round, {"w": torch.tensor(w)}, {}, task, refused=refused or {})


def trained(session, *question, **more):
    return session.answer(asked(*question, **more)).weights["w"].item()


@pytest.fixture(params=["in memory", "on disk"])
def session(request, tmp_path):
    store = ClientStore(tmp_path / "states", 1) if request.param == "on disk" else None
    return ClientSession(FedAvg(), a_site(), store=store)


def test_every_answer_begins_where_the_last_one_ended(session):
    assert [trained(session, round) for round in (1, 2, 3)] == [-0.5, -0.75, -0.875]


def test_a_refused_answer_is_as_if_it_had_not_been(session):
    assert [trained(session, round) for round in (1, 2)] == [-0.5, -0.75]
    assert trained(session, 3, refused={"Alder": ExchangeId(2, 0)}) == -0.75
    assert (
        trained(session, 4, refused={"Alder": ExchangeId(2, 0)}) == -0.875
    )  # heard before: the newer answer was accepted


def test_the_refusal_of_another_site_changes_nothing(session):
    assert [trained(session, 1), trained(session, 2, refused={"Birch": ExchangeId(1, 0)})] == [-0.5, -0.75]


def test_numbers_are_asked_of_the_state_after_their_round(session):
    trained(session, 1)
    before = session.state()
    update = session.answer(asked(1, "evaluate", w=2.0))
    assert (update.weights, update.metrics) == ({}, {"w": 2.0})
    assert session.state().keys() == before.keys()
    assert trained(session, 2) == -0.75


@dataclass(frozen=True)
class Failing(FedAvg):
    def client_payload(self, client):
        client.memory["left"] = torch.ones(1)
        raise ZeroDivisionError


def test_a_training_that_fails_leaves_nothing_behind(session):
    trained(session, 1)
    session.method = Failing()
    with pytest.raises(ZeroDivisionError):
        trained(session, 2)
    session.method = FedAvg()
    assert trained(session, 2) == -0.75
    assert set(session.state()) == {"moments/0/momentum_buffer"}


def test_an_aborted_training_leaves_nothing_behind_and_the_next_runs(session):
    session.site.on_step = lambda steps: session.site.abort()
    with pytest.raises(Aborted, match="training at Alder was aborted after 1 steps"):
        trained(session, 1)
    assert session.state() == {}
    session.site.on_step = lambda steps: None
    assert trained(session, 1) == -0.5


def test_with_a_store_a_question_that_comes_again_has_the_same_answer(tmp_path):
    def new():
        return ClientSession(FedAvg(), a_site(), store=ClientStore(tmp_path, 1))

    session = new()
    assert [trained(session, round) for round in (1, 2, 2)] == [-0.5, -0.75, -0.75]
    assert [trained(new(), 2), trained(new(), 3)] == [-0.75, -0.875]


def test_the_selected_round_stays_in_the_store(tmp_path):
    session = ClientSession(FedAvg(), a_site(), store=ClientStore(tmp_path, 1))
    for round in range(1, 6):
        session.answer(Broadcast(round, {"w": torch.tensor(0.0)}, {}, selected=2 if round > 2 else 0))
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["0002_0", "0004_0", "0005_0"]


@pytest.mark.parametrize(("case_scores", "sent"), [(False, {}), (True, {"dice": [0.5, 1.0]})])
def test_test_scores_leave_as_means_and_one_by_one_only_where_the_site_says_so(case_scores, sent):
    nothing = [float("nan")] * (len(CaseScore._fields) - 2)
    tests = [CaseScore("a", 0.5, *nothing), CaseScore("b", 1.0, *nothing)]
    cases = {"train": 3, "val": 1, "test": 2}
    session = ClientSession(FedAvg(), a_site(), cases, lambda network: tests, case_scores=case_scores)
    counts = {"train_cases": 3.0, "val_cases": 1.0, "test_cases": 2.0}
    assert session.answer(asked(0, "describe")).metrics == counts
    update = session.answer(asked(1, "test"))
    assert update.metrics == {**counts, "dice": 0.75}
    assert {name: column.tolist() for name, column in update.shared.items()} == sent
