"""FedPLVM: the published code's numbers, worked numbers, what is sent, and what it is without its terms."""

import math

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.traffic import prototypes, size_bytes
from fedbcs_monai.methods import FedAvg, FedPLVM
from fedbcs_monai.prototypes.bank import read_prototypes
from fedbcs_monai.prototypes.pooling import LabelledMap


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("fedplvm")


def terms_of(begun, mirror, batch, shared, **options):
    """Both terms, and the gradient of their sum to the features, (N, D)."""
    method = FedPLVM(average="anchors", anchors_per_class=0, **options)
    client = begun(method, mirror(2, batch["image"].shape[1]), shared)
    batch["image"].requires_grad_()
    method.loss(client, batch).backward()
    return client.terms["contrast"], client.terms["correction"], batch["image"].grad[0, :, 0].T


# The published code's numbers.


@pytest.mark.parametrize(("alpha", "tau"), [(0.25, 0.07), (0.5, 0.07), (1.0, 0.07), (0.25, 0.5)])
def test_losses_and_gradients_are_those_of_the_published_code(begun, mirror, pixels, close, z, alpha, tau):
    shared = {"0": z["in_P0"], "1": z["in_P1"]}
    contrast, correction, gradient = terms_of(begun, mirror, pixels(z["in_f"], z["in_y"]), shared, alpha=alpha, tau=tau)
    close(contrast.double(), z[f"out_a{alpha}_t{tau}_alpha"])
    close(correction.double(), z["out_corr"])
    close(gradient, z[f"out_a{alpha}_t{tau}_galpha"] + z["out_gcorr"])


@pytest.mark.parametrize("tau", [0.07, 0.5])
def test_alpha_1_is_the_plain_contrast(begun, mirror, pixels, close, z, tau):
    shared = {"0": z["in_P0"], "1": z["in_P1"]}
    contrast, _, gradient = terms_of(begun, mirror, pixels(z["in_f"], z["in_y"]), shared, alpha=1.0, tau=tau)
    close(contrast.double(), z[f"out_t{tau}_plain"])
    close(gradient, z[f"out_t{tau}_gplain"] + z["out_gcorr"])


def test_where_the_published_code_gives_nan_the_loss_and_its_gradient_are_finite(begun, mirror, pixels, z):
    assert bool(z["out_f_neg_alpha_is_nan"])
    shared = {"0": z["in_P0"], "1": z["in_P1"]}
    contrast, correction, gradient = terms_of(begun, mirror, pixels(z["in_f_neg"], z["in_y"]), shared)
    assert torch.isfinite(torch.stack([contrast, correction])).all()
    assert torch.isfinite(gradient).all()


def test_means_of_clusters_are_those_of_the_published_code(close, z):
    known = read_prototypes({"0": z["in_P0"], "1": z["in_P1"]})
    for c in (0, 1):
        close(known.means[c], z[f"out_avg{c}"])


@pytest.mark.parametrize("site", range(4))
def test_a_site_clusters_as_the_published_code_does(same_rows, z, site):
    features = torch.cat([z[f"in_feat_{site}_{c}"] for c in (0, 1)])
    label = torch.tensor([0] * 36 + [1] * 36).reshape(1, 1, 1, 72)
    found = FedPLVM().clusters(LabelledMap(features.T[None, :, None], label, 2))
    for c in (0, 1):
        same_rows(found[str(c)], z[f"out_local_{site}_{c}"])


def test_the_server_clusters_as_the_published_code_does(same_rows, close, z):
    updates = [Update(str(m), 1, {}, {str(c): z[f"out_local_{m}_{c}"] for c in (0, 1)}) for m in range(4)]
    shared = FedPLVM().aggregate_payload(State(1, {}, {}), updates)
    for c in (0, 1):
        same_rows(shared[str(c)], z[f"out_global_{c}"])
        close(read_prototypes(shared).means[c], z[f"out_gavg_{c}"])


# Worked by hand: cosines 1 and 0.5 with the prototypes of the own and of the other class.

ROOT_3 = math.sqrt(3)
SHARED = {"0": torch.tensor([[1.0, 0.0]]), "1": torch.tensor([[0.5, ROOT_3 / 2]])}


def test_cosines_are_raised_to_alpha_and_divided_by_tau(begun, mirror, pixels):
    contrast, correction, _ = terms_of(begun, mirror, pixels([[2, 0]], [0]), SHARED, alpha=0.5, tau=0.1)
    assert float(contrast) == pytest.approx(math.log(1 + math.exp((math.sqrt(0.5) - 1) / 0.1)), abs=1e-6)
    assert float(correction) == pytest.approx(0, abs=1e-6)
    _, correction, _ = terms_of(begun, mirror, pixels([[2, 0]], [1]), SHARED)
    assert float(correction) == pytest.approx(2 * 0.5**2)


def test_one_class_alone_is_not_contrasted(begun, mirror, pixels):
    contrast, correction, _ = terms_of(begun, mirror, pixels([[0, 1]], [0]), {"0": SHARED["0"]})
    assert (float(contrast), float(correction)) == (0, 2)


def test_a_class_without_a_prototype_adds_nothing_and_counts(begun, mirror, pixels):
    both, _, _ = terms_of(begun, mirror, pixels([[0, 1], [2, 0]], [0, 2]), SHARED)
    alone, _, _ = terms_of(begun, mirror, pixels([[0, 1]], [0]), SHARED)
    assert float(both) == pytest.approx(float(alone) / 2)


def test_without_prototypes_nothing_is_added(begun, mirror, pixels):
    assert FedPLVM().loss(begun(FedPLVM(), mirror(), round=1), pixels([[1, 0]], [1])).item() == 0


def test_volumes_are_as_pictures(begun, mirror, pixels):
    losses = []
    for dims in (2, 3):
        client = begun(FedPLVM(), mirror(dims=dims), SHARED)
        losses.append(FedPLVM().loss(client, pixels([[2, 0], [0, 1]], [0, 1], dims)).item())
    assert losses[0] == losses[1] > 0


# What a site sends.

TWO_DIRECTIONS = [[1, 0], [1, 0.1], [0, 1], [0.1, 1]]


def test_every_batch_of_the_last_epoch_is_clustered(begun, mirror, pixels):
    batches = [pixels(TWO_DIRECTIONS, [0, 0, 0, 0]), pixels([[3, 0], [5, 0]], [0, 1])]
    for way in ("running", "fresh"):
        method = FedPLVM(prototype_pass=way)
        sent = method.train(begun(method, mirror(), batches=batches, epochs=2, round=1))
        assert sent["0"].tolist() == [[1, pytest.approx(0.05)], [pytest.approx(0.05), 1], [3, 0]]
        assert sent["1"].tolist() == [[5, 0]]


def test_at_most_so_many_pixels_are_clustered(begun, mirror, pixels):
    method = FedPLVM(pixels_per_class=1)
    sent = method.train(begun(method, mirror(), batches=[pixels(TWO_DIRECTIONS, [1, 1, 1, 1])], round=1))
    assert list(sent) == ["1"]
    assert torch.tensor(TWO_DIRECTIONS).eq(sent["1"]).all(1).sum() == 1


# A whole federation.


def test_weight_0_is_fedavg_bit_for_bit_and_sends_nothing(hospitals, run, same):
    plain, without, pulled = (run(method, hospitals(), 2) for method in (FedAvg(), FedPLVM(weight=0), FedPLVM()))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, pulled.weights)
    assert all(message.shared == {} for message in (*without.states, *without.updates))


def test_how_many_vectors_are_sent_depends_on_the_data(hospitals, run):
    done = run(FedPLVM(feature_layer="penultimate", pixels_per_class=100), hospitals(), 2)
    counts = [prototypes(update.shared) for update in done.updates]
    assert len(set(counts)) > 1
    assert min(counts) >= 2 * 2  # two classes, two batches
    for update, count in zip(done.updates, counts, strict=True):
        assert size_bytes(update.shared) == count * 8 * 4
    assert sorted(done.states[-1].shared) == ["0", "1"]


# Its settings.


@pytest.mark.parametrize(
    "wrong",
    [{"alpha": 0}, {"alpha": 1.5}, {"tau": 0}, {"weight": -1}, {"anchors_per_class": -1}, {"pixels_per_class": -1}]
    + [{name: "other"} for name in ("feature_layer", "anchor", "average", "prototype_pass")],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FedPLVM(**wrong)
