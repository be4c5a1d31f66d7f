"""FedAvgM: worked numbers, the paper's server, and FedAvg without momentum."""

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.methods import FedAvg, FedAvgM


def test_three_rounds_of_one_site(one_weight, run):
    # A round goes half the way to 8. v = 4, then 4 / 2 + 2 = 4, then 4 / 2 + 0 = 2.
    assert run(FedAvgM(beta=0.5), [one_weight("Alder", 8.0)], 3).values() == [4, 8, 10]


def test_two_sites_move_by_the_mean(one_weight, run):
    # Towards 8 and -4: means of 4 and -2 are 1; then of 4.5 and -1.5, 1.5, with half of 1 on top.
    sites = [one_weight("Alder", 8.0), one_weight("Birch", -4.0)]
    assert run(FedAvgM(beta=0.5), sites, 2).values() == [1, 2]


def test_the_server_is_the_one_of_the_paper(hospitals, run):
    """The velocity kept at the server, from what FedAvg makes of each round's weights."""
    sites, plain = hospitals(), hospitals()
    at = {name: p.detach().clone() for name, p in sites[0].network.named_parameters()}
    velocity = {name: torch.zeros_like(w) for name, w in at.items()}
    state = averaged = None
    for number in (1, 2, 3):
        state = run(FedAvgM(beta=0.6), sites, number, state).states[-1]
        averaged = run(FedAvg(), plain, number, averaged).states[-1]
        for name in at:
            velocity[name] = 0.6 * velocity[name] + averaged.weights[name] - at[name]
            at[name] = at[name] + velocity[name]
            torch.testing.assert_close(state.weights[name], at[name], atol=1e-6, rtol=1e-5)
        averaged = state


def test_running_statistics_are_averaged_and_not_pushed(hospitals, run):
    trained = run(FedAvgM(), hospitals(norm="batch"), 2)
    name = "backbone.conv_0.conv_0.adn.N.running_var"
    parts = [update.weights[name] * n / 12 for update, n in zip(trained.updates[3:], (2, 4, 6), strict=True)]
    torch.testing.assert_close(trained.weights[name], sum(parts))
    assert min(update.weights[name].min() for update in trained.updates) > 0


def test_beta_0_is_fedavg_bit_for_bit(hospitals, run, same):
    plain, without, pushed = (run(method, hospitals(), 2) for method in (FedAvg(), FedAvgM(beta=0), FedAvgM()))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, pushed.weights)


def test_weights_are_all_that_is_sent(hospitals, run):
    assert [update.shared for update in run(FedAvgM(), hospitals(), 1).updates] == [{}, {}, {}]


@pytest.mark.parametrize("beta", [-0.1, 1])
def test_a_share_that_never_fades_is_refused(beta):
    with pytest.raises(UserError, match=f"beta is {beta}: it must be 0 or more and below 1"):
        FedAvgM(beta=beta)
