"""FedProto: the published code's numbers, worked numbers, what is sent, and what it is without its pull."""

import pytest
import torch
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.traffic import prototypes, size_bytes
from fedbcs_monai.methods import FedAvg, FedProto


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("fedproto")


def pull(begun, network, method, batch, shared, round=2):
    return method.loss(begun(method, network, shared, round=round), batch)


# The published code's numbers.


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_loss_and_gradient_are_those_of_the_published_code(begun, mirror, pixels, close, z, weight):
    method = FedProto(weight=weight, average="anchors", anchors_per_class=0)
    batch = pixels(z["in_f"], z["in_y"])
    batch["image"].requires_grad_()
    shared = {"0": z["in_g0"][None], "1": z["in_g1"][None]}
    loss = pull(begun, mirror(3, 12), method, batch, shared)
    loss.backward()
    close(loss.detach() + F.nll_loss(z["in_logp"], z["in_y"]), z[f"out_ld{weight}_total"])
    close(batch["image"].grad[0, :, 0].T, z[f"out_ld{weight}_gf"])


def test_prototypes_are_those_of_the_published_code(begun, mirror, pixels, close, z):
    client = begun(FedProto(), mirror(3, 12), batches=[pixels(z["in_f"], z["in_y"])])
    sent = FedProto().train(client)
    for c in (0, 1, 2):
        close(sent[str(c)], z[f"out_local{c}"])


def test_the_server_averages_as_the_published_code_does(close, z):
    sent = [{str(c): z[f"in_srv_{m}_{c}"] for c in range(3) if f"in_srv_{m}_{c}" in z} for m in range(3)]
    updates = [Update(str(m), m + 1, {}, prototypes) for m, prototypes in enumerate(sent)]
    shared = FedProto().aggregate_payload(State(1, {}, {}), updates)
    for c in (0, 1, 2):
        close(shared[str(c)][0], z[f"out_srv_{c}"])


# Worked by hand.

AT_ORIGIN = {"0": torch.zeros(1, 2), "1": torch.zeros(1, 2)}


def test_classes_weigh_the_same_or_anchors_do(begun, mirror, pixels):
    # Squared distances to the origin, mean of two dimensions: 2, 2, 2 for the background, 8 for the foreground.
    batch = pixels([[2, 0], [0, 2], [2, 0], [4, 0]], [0, 0, 0, 1])
    by_class = pull(begun, mirror(), FedProto(), batch, AT_ORIGIN)
    by_anchor = pull(begun, mirror(), FedProto(average="anchors"), batch, AT_ORIGIN)
    assert (by_class.item(), by_anchor.item()) == (5, 3.5)


def test_a_class_without_a_prototype_adds_nothing_and_counts(begun, mirror, pixels):
    batch = pixels([[2, 0], [4, 0]], [0, 1])
    assert pull(begun, mirror(), FedProto(), batch, {"1": torch.zeros(1, 2)}).item() == 4


def test_without_prototypes_the_loss_is_that_of_the_segmentation(begun, mirror, pixels):
    batch = pixels([[2, 0], [4, 0]], [0, 1])
    criterion = lambda logits, label: logits.sum()  # noqa: E731
    client = begun(FedProto(), mirror(), {}, round=1, criterion=criterion)
    assert FedProto().loss(client, batch).item() == 6
    assert "consistency" not in client.terms


def test_class_means_of_images_can_be_pulled(begun, mirror, pixels):
    batch = pixels([[2, 0], [0, 2], [4, 0]], [0, 0, 1])  # means (1, 1) and (4, 0): squares 1 and 8
    assert pull(begun, mirror(), FedProto(anchor="image_class"), batch, AT_ORIGIN).item() == 4.5


def test_volumes_are_as_pictures(begun, mirror, pixels):
    losses, sent = [], []
    for dims in (2, 3):
        batch = pixels([[2, 0], [0, 2], [4, 0]], [0, 0, 1], dims)
        client = begun(FedProto(), mirror(dims=dims), AT_ORIGIN, [batch])
        losses.append(FedProto().loss(client, batch).item())
        sent.append({c: mean.tolist() for c, mean in FedProto().train(client).items()})
    assert losses == [5, 5]
    assert sent[0] == sent[1] == {"0": [1, 1], "1": [4, 0]}


# What a site sends.


def test_prototypes_are_means_over_all_pixels_of_the_last_epoch(begun, mirror, pixels):
    batches = [pixels([[8, 0]], [1]), pixels([[4, 0], [4, 0], [4, 0]], [1, 1, 1])]
    client = begun(FedProto(), mirror(), batches=batches, epochs=2)
    assert {c: mean.tolist() for c, mean in FedProto().train(client).items()} == {"1": [5, 0]}


def test_running_prototypes_are_of_the_training_passes_and_fresh_ones_of_the_trained_network(begun, mirror, pixels):
    scales = {}
    for way in ("running", "fresh"):
        # The loss is the weight itself: every step takes 0.25 off it, 1 to 0.75 to 0.5.
        criterion = lambda logits, label: logits[:, 0].mean()  # noqa: E731
        method, batch = FedProto(prototype_pass=way), pixels([[1, 0], [1, 0]], [0, 1])
        network = mirror()
        network.last.requires_grad_(False)
        client = begun(method, network, batches=[batch], epochs=2, criterion=criterion, lr=0.25)
        scales[way] = float(method.train(client)["1"][0])
        assert network.training
    assert scales == {"running": 0.75, "fresh": 0.5}


def test_by_area_a_small_object_is_not_lost(begun, mirror):
    # One labelled pixel of sixteen, and a map of two by two: the pixel is a quarter of one of its pixels.
    class Half(mirror):
        def features(self, image):
            level = F.avg_pool2d(self.scale * image, 2)
            return super().features(image)._replace(bottleneck=level)

    label = torch.zeros(1, 1, 4, 4, dtype=torch.long)
    label[0, 0, 1, 1] = 1
    image = torch.arange(16.0).reshape(1, 1, 4, 4)
    sent = {}
    for masks in ("area", "nearest"):
        method = FedProto(masks=masks)
        sent[masks] = method.train(begun(method, Half(2, 1), batches=[{"image": image, "label": label}]))
    assert sent["area"]["1"].tolist() == [2.5]  # the mean of 0, 1, 4, 5
    assert "1" not in sent["nearest"]


# A whole federation.


def test_weight_0_is_fedavg_bit_for_bit_and_sends_nothing(hospitals, run, same):
    plain, without, pulled = (run(method, hospitals(), 2) for method in (FedAvg(), FedProto(weight=0), FedProto()))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, pulled.weights)
    assert all(message.shared == {} for message in (*without.states, *without.updates))


def test_two_vectors_a_site_and_round(hospitals, run):
    updates = run(FedProto(), hospitals(), 2).updates
    assert len(updates) == 6
    for update in updates:
        assert {name: vector.shape for name, vector in update.shared.items()} == {"0": (8,), "1": (8,)}
        assert (prototypes(update.shared), size_bytes(update.shared)) == (2, 2 * 8 * 4)


def test_one_site_is_pulled_to_its_own_prototypes(hospitals, run):
    done = run(FedProto(), hospitals()[:1], 2)
    assert all(torch.equal(done.states[0].shared[c][0], sent) for c, sent in done.updates[0].shared.items())
    (distance,) = done.metric("consistency")  # none in the first round
    assert distance > 0


# Its settings.


@pytest.mark.parametrize(
    "wrong",
    [{"weight": -1}, {"anchors_per_class": -1}]
    + [{name: "other"} for name in ("feature_layer", "anchor", "average", "masks", "prototype_pass")],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FedProto(**wrong)
