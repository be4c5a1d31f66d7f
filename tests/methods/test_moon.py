"""MOON: worked numbers, what a site keeps, and FedAvg without the contrast."""

import math

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import Broadcast
from fedbcs_monai.methods import MOON, FedAvg


def answer(site, method, round, w=0.0):
    return site.answer(method, Broadcast(round, {"backbone.w": torch.tensor(w)}, {}))


def test_the_contrast_is_with_the_network_received_and_the_one_before(one_weight):
    site, method = one_weight("Alder", 8.0), MOON(tau=0.5)
    first, second = (answer(site, method, round) for round in (1, 2))
    # Trained from 0 to 4, the site comes back to 0: features (1, 0) now and received, (1, 4) before.
    expected = math.log(1 + math.exp((1 / math.sqrt(17) - 1) / 0.5))
    assert "contrast" not in first.metrics
    assert second.metrics["contrast"] == pytest.approx(expected, rel=1e-6)
    assert second.metrics["loss"] == pytest.approx(32 + expected, rel=1e-6)


def test_the_gradient_leads_away_from_the_network_before(one_weight):
    site = one_weight("Alder", 8.0)
    answer(site, MOON(), 1)
    pulled, plain = answer(site, MOON(mu=1), 2), answer(one_weight("Alder", 8.0), FedAvg(), 2)
    assert pulled.weights["backbone.w"] < plain.weights["backbone.w"] == 4


def test_the_network_before_is_kept_through_a_restart_and_not_sent(one_weight, same):
    site, method = one_weight("Alder", 8.0), MOON()
    sent = answer(site, method, 1)
    assert sent.shared == {}
    assert site.memory == {"previous/backbone.w": torch.tensor(4.0)}
    restarted = one_weight("Alder", 8.0)
    restarted.restore(site.state())
    assert same(answer(site, method, 2, 1.0).weights, answer(restarted, method, 2, 1.0).weights)
    assert site.memory == restarted.memory
    assert site.memory["previous/backbone.w"] != 4


def test_frozen_passes_leave_mode_and_running_statistics_alone(hospitals, run):
    sites = hospitals(norm="batch")
    weights = run(MOON(), sites, 2).weights
    counts = {int(count) for name, count in weights.items() if name.endswith("num_batches_tracked")}
    assert counts == {4}  # two batches a round, and none of the frozen passes
    assert sites[0].network.training


@pytest.mark.parametrize("feature_layer", ["bottleneck", "penultimate"])
def test_both_taps_train(hospitals, run, feature_layer):
    terms = run(MOON(feature_layer=feature_layer), hospitals(), 2).metric("contrast")
    assert len(terms) == 3
    assert all(0 < term < math.log(1 + math.exp(4)) for term in terms)


def test_mu_0_is_fedavg_bit_for_bit(hospitals, run, same):
    plain, without, drawn = (run(method, hospitals(), 2) for method in (FedAvg(), MOON(mu=0), MOON(mu=5)))
    assert same(plain.weights, without.weights)
    assert same(plain.states[0].weights, drawn.states[0].weights)  # the first round has no network before
    assert not same(plain.weights, drawn.weights)


@pytest.mark.parametrize("wrong", [{"mu": -1}, {"tau": 0}, {"feature_layer": "logits"}], ids=str)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        MOON(**wrong)
