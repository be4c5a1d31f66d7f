"""SCAFFOLD: worked numbers, the paper's control variates, and what a round carries."""

import pytest
import torch
from torch import nn

from fedbcs_monai.methods import SCAFFOLD, FedAvg
from fedbcs_monai.tensors import under


def test_two_sites_are_led_to_the_middle_from_the_second_round_on(one_weight, run):
    sites = [one_weight("Alder", 8.0), one_weight("Birch", -4.0)]
    trained = run(SCAFFOLD(), sites, 2)
    # Round 1, uncorrected: gradients -8 and 4 take 0 to 4 and to -2, mean 1; c = (-8 + 4) / 2 = -2.
    # Round 2: gradients 1 - 8 = -7 and 1 + 4 = 5, corrected -7 - 2 + 8 = -1 and 5 - 2 - 4 = -1: both go to 1.5.
    assert trained.values() == [1, 1.5]
    assert [update.weights["backbone.w"].item() for update in trained.updates] == [4, -2, 1.5, 1.5]
    assert [update.shared["control/backbone.w"].item() for update in trained.updates] == [-8, 4, -7, 5]
    assert [state.shared["control/backbone.w"].item() for state in trained.states] == [-2, -1]


def test_means_are_weighted_alike(one_weight, run):
    sites = [one_weight("Alder", 8.0, cases=1), one_weight("Birch", -4.0, cases=3)]
    first = run(SCAFFOLD(), sites, 1).states[0]
    assert (first.weights["backbone.w"].item(), first.shared["control/backbone.w"].item()) == (-0.5, (-8 + 3 * 4) / 4)
    sites = [one_weight("Alder", 8.0, cases=1), one_weight("Birch", -4.0, cases=3)]
    assert run(SCAFFOLD(weighting="equal"), sites, 1).values() == [1]


def test_the_mean_gradient_is_the_second_option_of_the_paper_for_plain_sgd(hospitals, run):
    lr, steps = 0.05, 2
    trained = run(SCAFFOLD(), hospitals(lr=lr, momentum=0.0), 3)
    for number in (1, 2):
        x, c = trained.states[number - 1].weights, under("control", trained.states[number - 1].shared)
        for before, after in zip(trained.updates[3 * number - 3 :], trained.updates[3 * number : 3 * number + 3]):  # noqa: B905
            own = under("control", before.shared)
            for name, control in under("control", after.shared).items():
                option = own[name] - c[name] + (x[name] - after.weights[name]) / (steps * lr)
                torch.testing.assert_close(control, option, atol=2e-5, rtol=1e-4)


def test_the_first_round_is_fedavg_and_one_site_alone_always_is_bit_for_bit(hospitals, run, same):
    plain, corrected = (run(method, hospitals(), 2) for method in (FedAvg(), SCAFFOLD()))
    assert same(plain.states[0].weights, corrected.states[0].weights)
    assert not same(plain.states[1].weights, corrected.states[1].weights)
    plain, alone = (run(method, hospitals()[:1], 3) for method in (FedAvg(), SCAFFOLD()))
    assert same(plain.weights, alone.weights)  # c is c_i


def test_as_much_again_as_the_trained_weights_is_sent(hospitals, run):
    sites = hospitals()
    trained = {name: p.shape for name, p in sites[0].network.backbone.named_parameters(prefix="backbone")}
    done = run(SCAFFOLD(), sites, 2)
    for message in (*done.updates, *done.states):
        assert {name: tensor.shape for name, tensor in under("control", message.shared).items()} == trained
        assert message.weights.keys() == sites[0].network.state_dict().keys()
    bytes_sent = {name: sum(update.metrics[name] for update in done.updates[:3]) / 3 for name in
                  ("sent_shared_bytes", "received_shared_bytes")}  # fmt: skip
    assert bytes_sent == {
        "sent_shared_bytes": 4 * sum(shape.numel() for shape in trained.values()),
        "received_shared_bytes": 0,
    }


def test_momentum_does_not_overrate_the_gradient(one_weight, run):
    trained = run(SCAFFOLD(), [one_weight("Alder", 8.0, lr=1e-6, momentum=0.9, epochs=50)], 1)
    assert trained.updates[0].shared["control/backbone.w"].item() == pytest.approx(-8, rel=1e-3)


def test_a_step_that_overflows_counts_as_a_gradient_of_0(begun):
    method, network = SCAFFOLD(), nn.Linear(1, 1, bias=False)
    client = begun(method, network)
    for gradient in (torch.inf, 4.0):
        network.weight.grad = torch.full((1, 1), gradient)
        method.modify_gradients(client)
        client.steps += 1
    assert method.client_payload(client)["control/weight"].item() == 2
