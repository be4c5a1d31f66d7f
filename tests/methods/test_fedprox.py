"""FedProx: the published code's step, worked numbers, and FedAvg without the proximal term."""

import pytest
import torch
from torch import nn

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import Broadcast
from fedbcs_monai.methods import ClientContext, FedAvg, FedProx


@pytest.mark.parametrize("mu", [0.0, 0.01, 1.0])
def test_a_step_is_that_of_the_published_code(vectors, close, mu):
    given = vectors("fedprox")
    network = nn.Linear(5, 3)
    network.load_state_dict({"weight": given["in_W"], "bias": given["in_b"]})
    lr, momentum, decay = (float(given[f"in_{name}"]) for name in ("lr", "momentum", "wd"))
    client = ClientContext(
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr, momentum, weight_decay=decay),
        criterion=nn.functional.cross_entropy,
        batches=lambda epoch: [],
        epochs=1,
        received=Broadcast(1, {"weight": given["in_Wg"], "bias": given["in_bg"]}, {}),
    )
    method = FedProx(mu=mu)
    method.on_round_start(client)
    method.step(client, {"image": given["in_x"], "label": given["in_y"]})
    close(client.terms["loss"], given[f"out_moon_mu{mu}_loss"])
    close(network.weight.detach(), given[f"out_moon_mu{mu}_W"])
    close(network.bias.detach(), given[f"out_moon_mu{mu}_b"])


@pytest.mark.parametrize(("mu", "weight"), [(0, 6), (0.5, 5), (1, 4)])
def test_the_second_step_is_held_back_by_what_the_first_one_moved(one_weight, run, mu, weight):
    # From 0 halfway to 8, which is 4. There the gradient is 4 - 8 + mu * (4 - 0), and half of it is taken off.
    assert run(FedProx(mu=mu), [one_weight("Alder", 8.0, epochs=2)], 1).values() == [weight]


def test_what_holds_the_weights_are_those_received_this_round(one_weight, run):
    # From 0 to 4 and, held back, 4; then from 4 to 6 and, with gradient 6 - 8 + (6 - 4), 6.
    assert run(FedProx(mu=1), [one_weight("Alder", 8.0, epochs=2)], 2).values() == [4, 6]


def test_the_distance_is_recorded(one_weight, run):
    assert run(FedProx(mu=1), [one_weight("Alder", 8.0, epochs=2)], 1).metric("squared_distance") == [(0 + 4**2) / 2]


def test_mu_0_is_fedavg_bit_for_bit(hospitals, run, same):
    plain, without, held = (run(method, hospitals(), 2) for method in (FedAvg(), FedProx(mu=0), FedProx(mu=1)))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, held.weights)


def test_weights_are_all_that_is_sent(hospitals, run):
    sites = hospitals()
    for update in run(FedProx(), sites, 2).updates:
        assert update.shared == {}
        assert update.weights.keys() == sites[0].network.state_dict().keys()


def test_a_negative_mu_is_refused():
    with pytest.raises(UserError, match="mu is -1: it must be 0 or more"):
        FedProx(mu=-1)
