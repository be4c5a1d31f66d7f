"""A site: its answer depends on what it is asked and on nothing else, and keeps its own things to itself."""

import gc
import weakref
from dataclasses import dataclass, fields

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.federated.site import Site, seed_of
from fedbcs_monai.methods import FedAvg, Method


class OneWeight(nn.Module):
    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.w * image


def weight(logits, label):
    """A loss whose gradient is 1."""
    return logits.mean()


def noisy(logits, label):
    """A loss that draws from torch's own generator, as dropout does."""
    return (logits - label.float() - torch.rand(())).square().mean()


def random_batches(seed):
    generator = torch.Generator().manual_seed(seed)
    return [{"image": torch.rand(2, generator=generator), "label": torch.zeros(2)} for _ in range(2)]


def one_batch(seed):
    return [{"image": torch.ones(1), "label": torch.zeros(1)}]


def a_site(name="Alder", optimizer=None, criterion=weight, batches=one_batch, **options):
    return Site(
        name=name,
        network=OneWeight(),
        batches=batches,
        cases=3,
        criterion=criterion,
        optimizer=optimizer or (lambda parameters: torch.optim.SGD(parameters, lr=0.5, momentum=0.5)),
        scores=lambda network: {"w": float(network.w.detach()), "training": float(network.training)},
        **options,
    )


def asked(round=1, w=0.0, task="train"):
    return Broadcast(round, {"w": torch.tensor(w)}, {}, task)


def trained(site, broadcast=None, method=None):
    return site.answer(method or FedAvg(), broadcast or asked()).weights["w"].item()


# What an answer depends on.


def random_site(**options):
    return a_site(criterion=noisy, batches=random_batches, **options)


def test_the_same_question_has_the_same_answer_bit_for_bit():
    first = trained(random_site())
    torch.rand(5)  # drawn elsewhere in the meantime
    assert trained(random_site()) == first


def test_round_name_and_seed_each_change_what_is_drawn():
    answers = [
        trained(random_site()),
        trained(random_site(), asked(round=2)),
        trained(random_site(name="Birch")),
        trained(random_site(seed=1)),
    ]
    assert len(set(answers)) == 4


def test_every_epoch_has_a_seed_of_its_own():
    seeds = []
    a_site(batches=lambda seed: seeds.append(seed) or one_batch(seed), epochs=3).answer(FedAvg(), asked())
    assert seeds == [seed_of(0, 1, "Alder", epoch) for epoch in range(3)]
    assert len(set(seeds)) == 3


def test_sites_that_share_a_network_answer_as_if_each_had_its_own():
    shared = OneWeight()
    sites = [random_site(name=name) for name in ("Alder", "Birch")]
    apart = [trained(site, asked(round)) for round in (1, 2) for site in sites]
    sites = [random_site(name=name) for name in ("Alder", "Birch")]
    for site in sites:
        site.network = shared
    assert [trained(site, asked(round)) for round in (1, 2) for site in sites] == apart


# The optimizer.


def test_momentum_is_kept_from_round_to_round():
    site = a_site()
    assert [trained(site, asked(round)) for round in (1, 2, 3)] == [-0.5, -0.75, -0.875]


def test_momentum_is_forgotten_on_request():
    site = a_site(reset_optimizer=True)
    assert [trained(site, asked(round)) for round in (1, 2, 3)] == [-0.5] * 3
    assert site.moments == {}


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop, torch.optim.Adagrad])
def test_a_restored_site_goes_on_bit_for_bit(kind):
    straight, before, after = (random_site(optimizer=lambda p: kind(p, lr=0.1)) for _ in range(3))
    wanted = [trained(straight, asked(round)) for round in (1, 2, 3)]
    assert [trained(before, asked(round)) for round in (1, 2)] == wanted[:2]
    after.restore(before.state())
    assert trained(after, asked(3)) == wanted[2]


def test_what_was_taken_from_a_site_does_not_change_while_it_goes_on():
    site = a_site()
    site.answer(FedAvg(), asked(1))
    kept = site.state()
    site.answer(FedAvg(), asked(2))
    assert kept["moments/0/momentum_buffer"].item() == 1
    assert site.moments["0/momentum_buffer"].item() == 1.5


# What leaves.


@dataclass(frozen=True)
class Keeping(Method):
    """Remembers how often it trained, sends what it is told to, and keeps the weight to itself."""

    tasks = ("train", "greet")

    def client_payload(self, client):
        client.memory["times"] = client.memory.get("times", torch.tensor(0)) + 1
        return {"sent": client.network.w}

    def private(self, network):
        return {"w"}

    def greet(self, client):
        return {"hello": torch.ones(1)}


def test_a_server_cannot_ask_for_anything_else():
    with pytest.raises(ValueError, match="asked for 'aggregate': Keeping knows train, greet"):
        a_site().answer(Keeping(), asked(task="aggregate"))


def test_only_an_update_leaves():
    update = a_site().answer(FedAvg(), asked())
    assert {field.name for field in fields(Update)} == {"site", "cases", "weights", "shared", "metrics"}
    assert (update.site, update.cases, set(update.weights), update.shared) == ("Alder", 3, {"w"}, {})
    assert set(update.metrics) == {"segmentation", "loss", "seconds"}
    assert all(isinstance(value, float) for value in update.metrics.values())


def test_memory_and_private_tensors_stay():
    site = a_site()
    update = site.answer(Keeping(), asked())
    assert update.weights == {}
    assert set(update.shared) == {"sent"}
    site.answer(Keeping(), asked(2))
    assert site.memory["times"].item() == 2
    assert set(site.state()) == {"memory/times", "private/w", "moments/0/momentum_buffer"}


def test_private_tensors_replace_those_received():
    site = a_site()
    assert site.answer(Keeping(), asked()).shared["sent"].item() == -0.5
    assert site.evaluate({"w": torch.tensor(9.0)})["w"] == -0.5
    assert site.answer(Keeping(), asked(2, w=9.0)).shared["sent"].item() == -1.25


def test_what_was_sent_does_not_change_with_the_network():
    site = a_site()
    update = site.answer(Keeping(), asked())
    with torch.no_grad():
        site.network.w.fill_(7)
    assert update.shared["sent"].item() == -0.5
    assert not update.shared["sent"].requires_grad


def test_a_method_can_ask_for_a_function_of_its_own():
    update = a_site().answer(Keeping(), asked(task="greet"))
    assert update.shared["hello"].item() == 1


def test_evaluation_sends_scores_alone_and_changes_nothing():
    site = a_site()
    site.answer(FedAvg(), asked())
    before = site.state()
    update = site.answer(FedAvg(), asked(task="evaluate", w=2.5))
    assert (update.weights, update.shared, update.metrics) == ({}, {}, {"w": 2.5, "training": 0})
    assert site.state() == before


def test_metrics_are_means_over_steps():
    update = a_site(epochs=2).answer(FedAvg(), asked(w=1.0))  # the weight at both steps: 1 and 0.5
    assert update.metrics["loss"] == update.metrics["segmentation"] == 0.75


def test_progress_counts_the_steps_of_the_round():
    on_step = []
    a_site(batches=random_batches, epochs=2, on_step=on_step.append).answer(FedAvg(), asked())
    assert on_step == [1, 2, 3, 4]


def test_what_was_received_is_let_go_with_the_answer():
    site, received = a_site(), asked()
    known = weakref.ref(received.weights["w"])
    gc.disable()
    try:
        site.answer(FedAvg(), received)
        del received
        assert known() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("task", ["styles", "train"])
def test_only_plain_tensors_leave_however_images_were_read(task):
    """MONAI's tensors carry names of files, and a server takes plain ones alone."""
    site = a_site(styles=lambda network: MetaTensor(torch.rand(4, 2), meta={"filename_or_obj": "somebody.nii.gz"}))
    update = site.answer(FedAvg(), asked(task=task))
    sent = {**update.weights, **update.shared}
    assert sent and {type(tensor) for tensor in sent.values()} == {torch.Tensor}
