"""FedBN: what stays at a site, and that the site trains as if it had never been away."""

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.methods import FedAvg, FedBN
from fedbcs_monai.networks.normalization import normalization_tensors


def test_normalization_layers_are_never_sent(hospitals, run):
    sites = hospitals(norm="batch")
    private = normalization_tensors(sites[0].network)
    names = sites[0].network.state_dict().keys()
    trained = run(FedBN(), sites, 2)
    for update in trained.updates:
        assert update.weights.keys() == names - private
        assert update.shared == {}
    assert all(site.private.keys() == private for site in sites)
    assert len({float(site.private["backbone.conv_0.conv_0.adn.N.running_mean"][0]) for site in sites}) == 3


def test_the_global_normalization_stays_that_of_the_start(hospitals, run):
    sites = hospitals(norm="batch")
    state = run(FedBN(), sites, 2).states[-1]
    for name in normalization_tensors(sites[0].network):
        start = 1.0 if name.endswith(("weight", "running_var")) else 0.0
        assert bool((state.weights[name] == start).all()), name


def test_one_site_alone_trains_as_under_fedavg_bit_for_bit(hospitals, run, same):
    plain = run(FedAvg(), hospitals(norm="batch")[:1], 3).weights
    sites = hospitals(norm="batch")[:1]
    apart = run(FedBN(), sites, 3).weights
    assert same(plain, {**apart, **sites[0].private})


def test_what_stays_survives_a_restart(hospitals, run, same):
    straight = hospitals(norm="batch")
    whole = run(FedBN(), straight, 3)
    before = hospitals(norm="batch")
    half = run(FedBN(), before, 1)
    after = hospitals(norm="batch")
    for old, new in zip(before, after, strict=True):
        new.restore(old.state())
    resumed = run(FedBN(), after, 3, half.states[-1])
    assert same(whole.weights, resumed.weights)
    assert all(same(a.state(), b.state()) for a, b in zip(straight, after, strict=True))


def test_group_norm_keeps_its_affine_part(hospitals, run):
    sites = hospitals(norm="group")
    run(FedBN(), sites, 1)
    assert {name.rpartition(".")[2] for name in sites[0].private} == {"weight", "bias"}
    assert not torch.equal(*(site.private["backbone.conv_0.conv_0.adn.N.weight"] for site in sites[:2]))


def test_a_network_of_which_nothing_would_stay_is_refused(hospitals, run):
    with pytest.raises(UserError, match="network_def::norm"):
        run(FedBN(), hospitals(norm="batch_statistics"), 1)
