"""FedContrast: numbers worked by hand, what is sent and relayed, and what it is without its contrasts."""

import math

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.traffic import prototypes, size_bytes
from fedbcs_monai.methods import FedAvg, FedContrast
from fedbcs_monai.prototypes.anchors import Anchors
from fedbcs_monai.prototypes.bank import read_prototypes


def softplus(x):
    return math.log(1 + math.exp(x))


# Worked by hand: two local prototypes of the background with cosine 0.6, one of the foreground across the first.

THREE = Anchors(torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 2.0]]), torch.tensor([0, 0, 1]))


def test_a_pair_of_one_class_stands_against_all_of_another():
    first, second, alone = FedContrast(tau=1).within(THREE).tolist()
    assert first == pytest.approx(softplus(0 - 0.6))
    assert second == pytest.approx(softplus(0.8 - 0.6))
    assert alone == 0  # it has no partner


def test_other_sites_prototypes_are_partners_and_negatives():
    others = read_prototypes({"0": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "1": torch.tensor([[0.0, 1.0]])})
    first, _, foreground = FedContrast(tau=1).between(THREE, others).tolist()
    assert first == pytest.approx((softplus(0 - 1) + softplus(0 - 0)) / 2)
    assert foreground == pytest.approx(math.log(math.exp(1) + math.exp(0) + math.exp(1)) - 1)


def test_without_another_class_there_is_no_contrast():
    background = Anchors(THREE.vectors[:2], THREE.classes[:2])
    assert FedContrast().within(background).tolist() == [0, 0]
    assert FedContrast().between(background, read_prototypes({"0": torch.ones(1, 2)})).tolist() == [0, 0]


BANK = {"North/East/0": torch.tensor([[1.0, 0.0]]), "North/East/1": torch.tensor([[0.0, 1.0]])}


def test_a_site_leaves_out_its_own(begun, mirror, pixels):
    batch = pixels([[1, 0], [1, 1]], [0, 1])
    method = FedContrast(intra=0)
    own = {"Alder/0": torch.randn(4, 2), "Alder/1": torch.randn(5, 2)}
    at_alder, others = (method.loss(begun(method, mirror(), bank), batch).item() for bank in ({**own, **BANK}, BANK))
    assert at_alder == others > 0
    client = begun(method, mirror(), BANK, site="North/East")  # a name may hold a slash
    assert method.loss(client, batch).item() == 0
    assert "inter" not in client.terms


def test_in_the_first_round_there_is_only_the_contrast_within(begun, mirror, pixels):
    method = FedContrast(window=1)
    client = begun(method, mirror(), round=1)
    loss = method.loss(client, pixels([[1, 0], [1, 0.1], [0, 1]], [0, 0, 1])).item()
    assert loss == pytest.approx(client.terms["intra"].item())
    assert loss > 0
    assert "inter" not in client.terms


def test_a_network_of_one_weight_pays_for_pixels_and_means_of_classes(begun, mirror, pixels):
    """The background along (1, 0) and (0.6, 0.8), its mean along (2, 1); the foreground and its mean along (0, 1)."""
    method = FedContrast(window=1, tau=1)
    near, far = 2 / math.sqrt(5), 1 / math.sqrt(5)  # cosine of that mean with either pixel, and with the foreground

    def pull(partner, *others):
        return math.log(1 + sum(math.exp(other - partner) for other in others))

    background = [
        (pull(0.6, 0, 0) + pull(near, 0, 0)) / 2,
        (pull(0.6, 0.8, 0.8) + pull(near, 0.8, 0.8)) / 2,
        pull(near, far, far),
    ]
    foreground = pull(1, 0, 0.8, far)
    client = begun(method, mirror(), round=1)
    loss = method.loss(client, pixels([[1, 0], [0.6, 0.8], [0, 2]], [0, 0, 1])).item()
    assert loss == pytest.approx((sum(background) / 3 + foreground) / 2, abs=1e-6)


def test_volumes_are_as_pictures(begun, mirror, pixels):
    losses, sent = [], []
    for dims in (2, 3):
        batch = pixels([[1, 0], [1, 0.1], [0, 1]], [0, 0, 1], dims)
        client = begun(FedContrast(window=1), mirror(dims=dims), BANK, [batch])
        losses.append(FedContrast(window=1).loss(client, batch).item())
        sent.append({c: rows.tolist() for c, rows in FedContrast(window=1).train(client).items()})
    assert losses[0] == losses[1] > 0
    assert sent[0] == sent[1]


# What a site sends.


def train(begun, mirror, batch, **options):
    method = FedContrast(window=1, **options)
    return method.train(begun(method, mirror(), batches=[batch], round=1))


def test_nine_vectors_and_the_last_is_the_mean_of_the_foreground(begun, mirror, pixels):
    features = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    classes = torch.tensor([0, 1] * 30)
    sent = train(begun, mirror, pixels(features, classes))
    assert {c: rows.shape for c, rows in sent.items()} == {"0": (4, 2), "1": (5, 2)}
    torch.testing.assert_close(sent["1"][-1], features[classes == 1].mean(0))
    other = train(begun, mirror, pixels(features, classes), background=2, foreground=1)
    assert {c: rows.shape for c, rows in other.items()} == {"0": (2, 2), "1": (1, 2)}


def test_what_is_too_few_to_cluster_is_sent_as_it_is(begun, mirror, pixels):
    sent = train(begun, mirror, pixels([[1, 0], [3, 0], [0, 1]], [0, 0, 1]))
    assert sent["0"].tolist() == [[1, 0], [2, 0], [3, 0]]  # two windows and the mean of the image
    assert sent["1"].tolist() == [[0, 1], [0, 1]]


def test_a_class_that_a_site_lacks_is_absent_from_its_message(begun, mirror, pixels):
    assert list(train(begun, mirror, pixels([[1, 0], [3, 0]], [0, 0]))) == ["0"]


def test_the_server_relays_under_the_sites_names():
    updates = [Update(site, 1, {}, {"0": torch.full((4, 2), n)}) for n, site in enumerate(("Alder", "Birch"))]
    shared = FedContrast().aggregate_payload(State(1, {}, {"Cedar/0": torch.ones(1, 2)}), updates)
    assert {name: rows[0].tolist() for name, rows in shared.items()} == {"Alder/0": [0, 0], "Birch/0": [1, 1]}


# A whole federation.


def test_without_contrasts_it_is_fedavg_bit_for_bit_and_sends_nothing(hospitals, run, same):
    off = FedContrast(intra=0, inter=0)
    plain, without, pulled = (run(method, hospitals(), 2) for method in (FedAvg(), off, FedContrast()))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, pulled.weights)
    assert all(message.shared == {} for message in (*without.states, *without.updates))


def test_nine_vectors_a_site_and_round(hospitals, run):
    done = run(FedContrast(window=1), hospitals(), 2)
    for update in done.updates:
        assert {c: rows.shape for c, rows in update.shared.items()} == {"0": (4, 8), "1": (5, 8)}
        assert (prototypes(update.shared), size_bytes(update.shared)) == (9, 9 * 8 * 4)
    assert sorted(done.states[-1].shared) == ["Alder/0", "Alder/1", "Birch/0", "Birch/1", "Cedar/0", "Cedar/1"]
    assert (len(done.metric("intra")), len(done.metric("inter"))) == (6, 3)  # no others in the first round


def test_one_site_has_nobody_to_compare_with(hospitals, run):
    done = run(FedContrast(), hospitals()[:1], 2)
    assert (len(done.metric("intra")), len(done.metric("inter"))) == (2, 0)


# Its settings.

WRONG = {
    "intra": -1,
    "inter": -1,
    "tau": 0,
    "window": 0,
    "windows_per_class": -1,
    "background": 0,
    "foreground": 0,
    "feature_layer": "other",
    "average": "other",
}


@pytest.mark.parametrize(("name", "value"), [*WRONG.items(), ("fraction", 0.5), ("fraction", 1.1)])
def test_settings_that_cannot_be_are_refused(name, value):
    with pytest.raises(UserError, match=name):
        FedContrast(**{name: value})
