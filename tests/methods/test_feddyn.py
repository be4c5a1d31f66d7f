"""FedDyn: the paper's server worked by hand, and FedAvg without its term."""

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.methods import FedAvg, FedDyn


def test_two_rounds_of_two_sites(one_weight, run):
    sites = [one_weight("Alder", 8.0), one_weight("Birch", -4.0)]
    trained = run(FedDyn(alpha=1), sites, 2)
    # Round 1 from 0, drawn to 0: gradients -8 and 4 lead to 4 and -2, which is also how far they went.
    # The paper: h = -(4 - 2) / 2 = -1, and the server's weight is (4 - 2) / 2 - h = 2. Sent are 4 + 4 and -2 - 2.
    # Round 2 from 2: gradients (2 - 8) + (2 - 2 + 4) = -2 and (2 + 4) + (2 - 2 - 2) = 4 lead to 3 and 0, by 1 and -2.
    # The paper: h = -1 - (1 - 2) / 2 = -0.5, and (3 + 0) / 2 + 0.5 = 2. Sent are 3 + (4 + 1) and 0 + (-2 - 2).
    assert trained.values() == [2, 2]
    assert [update.weights["backbone.w"].item() for update in trained.updates] == [8, -4, 8, -4]
    assert [site.memory["drift/backbone.w"].item() for site in sites] == [5, -4]


@pytest.mark.parametrize("alpha", [0.01, 0.1])
def test_the_server_is_the_one_of_the_paper(hospitals, run, alpha):
    """Algorithm 1 with h at the server, from what the sites trained: what they sent less what they kept."""
    sites = hospitals()
    names = [name for name, _ in sites[0].network.named_parameters() if name.startswith("backbone")]
    at = {name: p.detach().clone() for name, p in sites[0].network.named_parameters() if name in names}
    h = {name: torch.zeros_like(w) for name, w in at.items()}
    state = None
    for number in (1, 2, 3):
        done = run(FedDyn(alpha=alpha, weighting="equal"), sites, number, state)
        state = done.states[-1]
        for name in names:
            trained = torch.stack([u.weights[name] - site.memory[f"drift/{name}"] for u, site in
                                   zip(done.updates, sites, strict=True)])  # fmt: skip
            h[name] = h[name] - alpha * (trained - at[name]).mean(0)
            at[name] = trained.mean(0) - h[name] / alpha
            torch.testing.assert_close(state.weights[name], at[name], atol=1e-5, rtol=1e-4)


def test_sites_that_want_different_things_meet_where_the_mean_loss_is_least(one_weight, run):
    sites = [one_weight("Alder", 8.0, epochs=10), one_weight("Birch", -4.0, epochs=10)]
    assert run(FedDyn(alpha=1), sites, 25).values()[-1] == pytest.approx(2, abs=1e-3)


def test_running_statistics_are_averaged_and_not_moved(hospitals, run):
    sites = hospitals(norm="batch")
    trained = run(FedDyn(alpha=0.1), sites, 2)
    name = "backbone.conv_0.conv_0.adn.N.running_var"
    parts = [update.weights[name] * n / 12 for update, n in zip(trained.updates[3:], (2, 4, 6), strict=True)]
    torch.testing.assert_close(trained.weights[name], sum(parts))
    assert not any("running" in kept for kept in sites[0].memory)


def test_what_a_site_keeps_survives_a_restart(hospitals, run, same):
    straight, before, after = hospitals(), hospitals(), hospitals()
    whole, half = run(FedDyn(), straight, 3), run(FedDyn(), before, 1)
    for old, new in zip(before, after, strict=True):
        new.restore(old.state())
    resumed = run(FedDyn(), after, 3, half.states[-1])
    assert same(whole.weights, resumed.weights)
    assert all(same(a.state(), b.state()) for a, b in zip(straight, after, strict=True))


def test_alpha_0_is_fedavg_bit_for_bit(hospitals, run, same):
    plain, without, drawn = (run(method, hospitals(), 2) for method in (FedAvg(), FedDyn(alpha=0), FedDyn()))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, drawn.weights)


def test_weights_are_all_that_is_sent(hospitals, run):
    assert [update.shared for update in run(FedDyn(), hospitals(), 1).updates] == [{}, {}, {}]


def test_a_negative_alpha_is_refused():
    with pytest.raises(UserError, match="alpha is -1: it must be 0 or more"):
        FedDyn(alpha=-1)
