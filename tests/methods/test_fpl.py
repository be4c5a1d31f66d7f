"""FPL: the published code's numbers, worked numbers, what is sent, and what it is without its terms."""

import math

import pytest
import torch
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.traffic import prototypes, size_bytes
from fedbcs_monai.losses.contrastive import class_info_nce, similarities
from fedbcs_monai.methods import FPL, FedAvg
from fedbcs_monai.prototypes.bank import read_prototypes

TEMPERATURES = (0.02, 0.2, 0.5)


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("fpl")


# The published code's numbers.


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_loss_and_gradient_are_those_of_the_published_code(begun, mirror, pixels, close, z, tau):
    method = FPL(tau=tau, average="anchors", anchors_per_class=0)
    batch = pixels(z["in_f"], z["in_y"])
    batch["image"].requires_grad_()
    client = begun(method, mirror(2, 16), {"0": z["in_P0"], "1": z["in_P1"]})
    loss = method.loss(client, batch)
    loss.backward()
    close((loss.detach() + F.cross_entropy(z["in_logits"], z["in_y"])).double(), z[f"out_tau{tau}_total"])
    close(batch["image"].grad[0, :, 0].T, z[f"out_tau{tau}_gf"])


@pytest.mark.parametrize("tau", TEMPERATURES)
def test_the_contrast_of_every_feature_is_that_of_the_published_code(close, z, tau):
    known = read_prototypes({"0": z["in_P0"], "1": z["in_P1"]})
    contrast = class_info_nce(similarities(z["in_f"], known.clusters), z["in_y"], known.owners, tau)
    close(contrast, z[f"out_tau{tau}_infonce"])


def test_prototypes_are_those_of_the_published_code(begun, mirror, pixels, close, z):
    sent = FPL().train(begun(FPL(), mirror(2, 16), batches=[pixels(z["in_f"], z["in_y"])]))
    for c in (0, 1):
        close(sent[str(c)], z[f"out_local{c}"])


def test_the_server_clusters_as_the_published_code_does(same_rows, z):
    updates = [Update(str(m), 1, {}, {str(c): z[f"in_srv_{m}_{c}"] for c in (0, 1)}) for m in range(9)]
    shared = FPL().aggregate_payload(State(1, {}, {}), updates)
    for c in (0, 1):
        same_rows(shared[str(c)], z[f"out_srv_{c}"])


# Worked by hand: a background pixel (1, 0) and a foreground pixel (0.6, 0.8).

FEATURES = [[1, 0], [0.6, 0.8]]
AXES = {"0": torch.tensor([[1.0, 0.0]]), "1": torch.tensor([[0.0, 1.0]])}
BACKGROUND = math.log(1 + math.exp(-1))
FOREGROUND = math.log(1 + math.exp(-0.2)) + (0.6**2 + 0.2**2) / 2


def pull(begun, mirror, batch, shared=AXES, round=2, **options):
    method = FPL(**{"tau": 1, **options})
    return method.loss(begun(method, mirror(), shared, round=round), batch).item()


def test_contrast_and_consistency_are_averaged_over_classes_or_anchors(begun, mirror, pixels):
    batch = pixels([*FEATURES, [1, 0], [1, 0]], [0, 1, 0, 0])
    assert pull(begun, mirror, batch) == pytest.approx((BACKGROUND + FOREGROUND) / 2, abs=1e-6)
    assert pull(begun, mirror, batch, average="anchors") == pytest.approx((3 * BACKGROUND + FOREGROUND) / 4, abs=1e-6)
    assert pull(begun, mirror, batch, weight=0.5) == pytest.approx((BACKGROUND + FOREGROUND) / 4, abs=1e-6)


def test_one_class_alone_is_not_contrasted(begun, mirror, pixels):
    client = begun(FPL(), mirror(), {"1": AXES["1"]})
    loss = FPL().loss(client, pixels(FEATURES, [0, 1]))
    assert loss.item() == pytest.approx((0.6**2 + 0.2**2) / 2 / 2)  # the background adds nothing and counts
    assert client.terms["contrast"] == 0


def test_the_mean_of_the_clusters_counts_each_the_same(begun, mirror, pixels):
    clusters = {"1": torch.tensor([[2.0, 0.0], [0.0, 2.0]])}  # mean (1, 1)
    assert pull(begun, mirror, pixels([[1, 1]], [1]), clusters) == pytest.approx(0, abs=1e-6)


def test_without_prototypes_nothing_is_added(begun, mirror, pixels):
    assert pull(begun, mirror, pixels(FEATURES, [0, 1]), {}, round=1) == 0


def test_a_batch_of_background_alone_is_pulled_to_the_background(begun, mirror, pixels):
    assert pull(begun, mirror, pixels([[1, 0]], [0])) == pytest.approx(BACKGROUND, abs=1e-6)


@pytest.mark.parametrize("tau", [1e-4, 0.01])
def test_a_temperature_at_which_exponentials_overflow_is_no_trouble(begun, mirror, pixels, tau):
    batch = pixels(FEATURES, [0, 1])
    batch["image"].requires_grad_()
    method = FPL(tau=tau)
    loss = method.loss(begun(method, mirror(), AXES), batch)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(batch["image"].grad).all()


def test_volumes_are_as_pictures(begun, mirror, pixels):
    losses = []
    for dims in (2, 3):
        client = begun(FPL(), mirror(dims=dims), AXES)
        losses.append(FPL().loss(client, pixels(FEATURES, [0, 1], dims)).item())
    assert losses[0] == losses[1] > 0


# What a site sends.


def test_a_class_that_a_site_lacks_is_absent_from_its_message(begun, mirror, pixels):
    sent = FPL().train(begun(FPL(), mirror(), batches=[pixels([[8, 0], [4, 0]], [0, 0])]))
    assert {c: mean.tolist() for c, mean in sent.items()} == {"0": [6, 0]}


def test_fresh_prototypes_are_of_the_trained_network(begun, mirror, pixels):
    criterion = lambda logits, label: logits[:, 0].mean()  # noqa: E731
    method, network = FPL(prototype_pass="fresh"), mirror()
    network.last.requires_grad_(False)
    client = begun(method, network, batches=[pixels([[1, 0], [1, 0]], [0, 1])], criterion=criterion, lr=0.25)
    assert {c: mean.tolist() for c, mean in method.train(client).items()} == {"0": [0.75, 0], "1": [0.75, 0]}


# A whole federation.


def test_weight_0_is_fedavg_bit_for_bit_and_sends_nothing(hospitals, run, same):
    plain, without, pulled = (run(method, hospitals(), 2) for method in (FedAvg(), FPL(weight=0), FPL()))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, pulled.weights)
    assert all(message.shared == {} for message in (*without.states, *without.updates))


def test_two_vectors_a_site_and_round(hospitals, run):
    done = run(FPL(), hospitals(), 2)
    for update in done.updates:
        assert (prototypes(update.shared), size_bytes(update.shared)) == (2, 2 * 8 * 4)
    assert {name: clusters.shape for name, clusters in done.states[-1].shared.items()} == {"0": (1, 8), "1": (1, 8)}
    assert len(done.metric("contrast")) == 3  # none in the first round


# Its settings.


@pytest.mark.parametrize(
    "wrong",
    [{"tau": 0}, {"weight": -1}, {"anchors_per_class": -1}]
    + [{name: "other"} for name in ("feature_layer", "anchor", "average", "masks", "prototype_pass")],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FPL(**wrong)
