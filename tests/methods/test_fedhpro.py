"""FedHPro: the published code's numbers, gradients by definition, the binary trap, and what is kept and sent."""

import math
import warnings

import pytest
import torch
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.federated.traffic import prototypes, size_bytes
from fedbcs_monai.methods import FedAvg, FedHPro
from fedbcs_monai.networks import build_segmenter
from fedbcs_monai.prototypes.anchors import Anchors
from fedbcs_monai.prototypes.bank import read_prototypes
from fedbcs_monai.prototypes.matching import Layer, first_points, point_gradient


@pytest.fixture(scope="module")
def z(vectors):
    return vectors("fedhpro")


@pytest.fixture(scope="module")
def sent(begun, mirror, pixels, z):
    """What the two clients of the reference numbers send."""
    network = mirror(2, 16)
    with torch.no_grad():
        network.last.weight.copy_(z["in_W"][:, :, None, None])
        network.last.bias.copy_(z["in_b"])
    method = FedHPro()
    rounds = [begun(method, network, batches=[pixels(z[name], z["in_y"])]) for name in ("in_f", "in_f2")]
    return [method.client_payload(client) for client in rounds]


# The published code's numbers.


@pytest.mark.parametrize("c", [0, 1])
def test_gradients_of_the_last_layer_are_those_of_the_published_code(sent, close, z, c):
    close(sent[0][f"{c}/last.weight"].flatten(1), z[f"out_meta{c}_dW"])
    close(sent[0][f"{c}/last.bias"], z[f"out_meta{c}_db"])


@pytest.mark.parametrize("c", [0, 1])
def test_they_hold_the_gradient_with_respect_to_the_feature(sent, close, z, c):
    once_too_often = (z["in_y"] == c).sum()  # the published code divides by the number of features twice
    for client, name in zip(sent, (f"out_grad{c}", f"out_grad2_{c}"), strict=True):
        close(client[f"{c}/last.bias"] @ z["in_W"] / once_too_often, z[name])


def test_points_learnt_by_the_layers_gradient_are_those_of_the_published_code(sent, close, z):
    weights = {"last.weight": z["in_W"][:, :, None, None], "last.bias": z["in_b"]}
    start = {"0": z["in_meta0"][:10], "1": z["in_meta0"][10:]}
    updates = [Update(str(m), 1, {}, gradients) for m, gradients in enumerate(sent)]
    shared = FedHPro(points=10, steps=100).aggregate_payload(State(1, weights, start), updates)
    close(torch.cat([shared["0"], shared["1"]]), z["out_meta_hp"])


def hyper(z):
    return read_prototypes({str(c): z["in_hp3"][c] for c in range(3)})


@pytest.mark.parametrize("tau", [0.05, 0.5])
def test_separation_and_its_gradient_are_those_of_the_published_code(close, z, tau):
    features, n = z["in_f3"].requires_grad_(), len(z["in_y3"])
    losses = FedHPro(tau=tau).separation(Anchors(features, z["in_y3"]), hyper(z), margin=0)
    close(losses.detach(), z[f"out_nce_t{tau}_m0.0_per"])
    close(losses.detach().mean().double() / n, z[f"out_nce_t{tau}_m0.0_batch"])
    close(torch.autograd.grad(losses.mean() / n, features)[0], z[f"out_nce_t{tau}_m0.0_g"])


def test_the_published_loss_is_ours_with_a_second_division(close, z):
    features, labels = z["in_f3"].requires_grad_(), z["in_y3"]
    anchors, method = Anchors(features, labels), FedHPro()
    loss = F.cross_entropy(F.linear(features, z["in_W3"], z["in_b3"]), labels)
    loss = loss + method.separation(anchors, hyper(z), margin=0).mean() / len(labels)
    loss = loss + method.uniformity(anchors, hyper(z)).mean()
    close(loss.detach().double(), z["out_local_total"])
    close(torch.autograd.grad(loss, features)[0], z["out_local_gtable"])


# At a site.


def test_gradients_are_taken_at_the_received_network_which_stays_as_it_is(begun, pixels):
    torch.manual_seed(0)
    network = build_segmenter(in_channels=1, features=(8, 8, 8, 8, 8), norm="batch")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    batch = {"image": torch.randn(2, 1, 32, 32), "label": torch.randint(2, (2, 1, 32, 32))}
    client = begun(FedHPro(), network, batches=[batch])
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    network.eval()
    loss = F.cross_entropy(network(batch["image"]), batch["label"][:, 0], reduction="none")
    for c in (0, 1):
        wanted = torch.autograd.grad(
            loss[batch["label"][:, 0] == c].mean(), network.backbone.final_conv.bias, retain_graph=True
        )
        torch.testing.assert_close(client.scratch["gradients"][f"{c}/backbone.final_conv.bias"], *wanted)


# Two classes.


def informative(classes, dimensions=16):
    """Features around one direction a class, a layer, and the classes' mean gradients."""
    generator = torch.Generator().manual_seed(7)
    directions = torch.randn(classes, dimensions, generator=generator)
    head = Layer(
        torch.randn(classes, dimensions, generator=generator).double(), torch.zeros(classes, dtype=torch.float64)
    )
    features = directions[:, None] + 0.3 * torch.randn(classes, 50, dimensions, generator=generator)
    real = [point_gradient(features[c].double(), c, head) for c in range(classes)]
    return directions, head, real


def movement(method, classes):
    _, head, real = informative(classes)
    start = [first_points(c, 5, 16) for c in range(classes)]
    return max((method.learn(s, c, head, real[c]) - s).abs().max().item() for c, s in enumerate(start))


def test_with_two_classes_the_gradient_of_a_feature_teaches_nothing_and_warns():
    with pytest.warns(UserWarning, match="two classes.*set match to layer"):
        assert movement(FedHPro(match="feature"), 2) < 1e-6
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert movement(FedHPro(match="feature"), 3) > 1e-2
        assert movement(FedHPro(), 2) > 1e-2


def test_the_gradient_of_the_layer_turns_hyper_prototypes_to_their_class():
    directions, head, real = informative(2)
    for c in (0, 1):
        start = first_points(c, 5, 16)
        learnt = FedHPro(steps=100).learn(start, c, head, real[c])
        before, after = (F.cosine_similarity(points.mean(0), directions[c], dim=0) for points in (start, learnt))
        assert after > before + 0.3


# The loss, worked by hand: cosines 1 and 0.6 with the hyper-prototypes of class 0, whose mean is (1, 0.5).

SHARED = {"0": torch.tensor([[1.0, 0.0], [0.6, 0.8]]), "1": torch.tensor([[0.0, 1.0], [0.0, 2.0]])}


def test_other_classes_come_a_margin_closer():
    anchors, known = Anchors(torch.tensor([[2.0, 0.0]]), torch.tensor([0])), read_prototypes(SHARED)
    for margin in (0.0, 0.5):
        (loss,) = FedHPro(tau=0.5).separation(anchors, known, margin).tolist()
        assert loss == pytest.approx(math.log(1 + math.exp((0 + margin - 0.8) / 0.5)))


def test_the_margin_is_the_sum_of_distances_between_directions():
    two = {"0": torch.tensor([2.0, 0.0]), "1": torch.tensor([0.0, 3.0])}
    assert FedHPro().margin_of(two, 2) == pytest.approx(math.sqrt(2))
    three = {**two, "2": torch.tensor([-1.0, 0.0])}
    assert FedHPro().margin_of(three, 3) == pytest.approx((2 * math.sqrt(2) + 2) / 4)
    assert FedHPro().margin_of({"0": two["0"]}, 2) == 0
    assert FedHPro(margin="none").margin_of(two, 2) == 0


def test_uniformity_is_of_directions_or_of_features():
    anchors, known = Anchors(torch.tensor([[0.0, 4.0]]), torch.tensor([1])), read_prototypes(SHARED)
    assert FedHPro().uniformity(anchors, known).tolist() == [0]
    assert FedHPro(huber="features").uniformity(anchors, known).tolist() == [(2.5 - 0.5) / 2]  # beyond 1 it is linear


def test_a_class_without_hyper_prototypes_adds_nothing():
    known = read_prototypes({"1": SHARED["1"]})
    anchors = Anchors(torch.tensor([[2.0, 0.0], [2.0, 0.0]]), torch.tensor([0, 1]))
    assert FedHPro().separation(anchors, known, 1.0).tolist() == [0, 0]  # one class alone
    assert FedHPro().uniformity(anchors, known).tolist() == [0, 0.5]


def test_without_hyper_prototypes_nothing_is_added(begun, mirror, pixels):
    batch = pixels([[2, 0], [0, 2]], [0, 1])
    assert FedHPro().loss(begun(FedHPro(), mirror(), batches=[batch], round=1), batch).item() == 0


def test_a_network_of_one_weight_pays_for_both_and_sends_its_gradients(begun, mirror, pixels):
    client = begun(FedHPro(tau=1), mirror(), SHARED, [batch := pixels([[2, 0], [0, 2]], [0, 1])])
    margin = math.sqrt(2)  # the class means point along the axes
    separation = [math.log(1 + math.exp(other + margin - own)) for own, other in ((0.8, 0), (1, 0.4))]
    uniformity = ((1 - 2 / math.sqrt(5)) ** 2 + 1 / 5) / 4  # (1, 0) from (2, 1) / sqrt(5); the other is 0
    loss = FedHPro(tau=1).loss(client, batch).item()
    assert loss == pytest.approx(sum(separation) / 2 + uniformity / 2, abs=1e-6)
    wrong = 1 / (1 + math.exp(2))  # probability of the class that a pixel is not
    sent = FedHPro().client_payload(client)
    torch.testing.assert_close(sent["0/last.weight"].flatten(1), torch.tensor([[-2 * wrong, 0], [2 * wrong, 0]]))
    torch.testing.assert_close(sent["1/last.weight"].flatten(1), torch.tensor([[0, 2 * wrong], [0, -2 * wrong]]))
    torch.testing.assert_close(sent["0/last.bias"], torch.tensor([-wrong, wrong]))


def test_volumes_are_as_pictures(begun, mirror, pixels):
    losses, sent = [], []
    for dims in (2, 3):
        batch = pixels([[2, 0], [1, 2]], [0, 1], dims)
        client = begun(FedHPro(), mirror(dims=dims), SHARED, [batch])
        losses.append(FedHPro().loss(client, batch).item())
        sent.append({name: gradient.tolist() for name, gradient in FedHPro().client_payload(client).items()})
    assert losses[0] == losses[1] > 0
    assert sent[0] == sent[1]


# At the server.


def a_state(shared=None):
    head = {"last.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]])[:, :, None, None], "last.bias": torch.zeros(2)}
    return State(1, head, shared or {})


def an_update(site, **classes):
    return Update(
        site,
        1,
        {},
        {f"{c[1:]}/last.weight": torch.tensor(w) for c, w in classes.items()}
        | {f"{c[1:]}/last.bias": torch.tensor([-0.5, 0.5]) for c in classes},
    )


def test_sites_that_have_a_class_are_averaged_and_other_classes_stay():
    a, b = [[-1.0, 0.5], [1.0, -0.5]], [[-0.5, 1.0], [0.5, -1.0]]
    middle = [[-0.75, 0.75], [0.75, -0.75]]
    kept = torch.ones(5, 2)
    both = FedHPro().aggregate_payload(
        a_state({"1": kept}), [an_update("A", c0=a), an_update("B", c0=b), an_update("C")]
    )
    one = FedHPro().aggregate_payload(a_state(), [an_update("A", c0=middle)])
    assert torch.equal(both["0"], one["0"])
    assert torch.equal(both["1"], kept)


def test_they_go_on_from_where_they_were():
    update = an_update("A", c0=[[-1.0, 0.5], [1.0, -0.5]])
    once = FedHPro(steps=20).aggregate_payload(a_state(), [update])
    twice = FedHPro(steps=10).aggregate_payload(
        a_state(FedHPro(steps=10).aggregate_payload(a_state(), [update])), [update]
    )
    torch.testing.assert_close(once, twice)
    assert not torch.equal(once["0"], first_points(0, 5, 2))


def test_a_network_without_a_pixelwise_last_layer_is_refused(begun):
    network = build_segmenter("UNet", in_channels=1, features=(8, 8, 8, 8))
    batch = {"image": torch.zeros(1, 1, 32, 32), "label": torch.zeros(1, 1, 32, 32)}
    with pytest.raises(UserError, match="ends in a 1x1 convolution"):
        begun(FedHPro(), network, batches=[batch])


# A whole federation.


def test_weight_0_is_fedavg_bit_for_bit_and_sends_nothing(hospitals, run, same):
    plain, without, pulled = (run(method, hospitals(), 2) for method in (FedAvg(), FedHPro(weight=0), FedHPro()))
    assert same(plain.weights, without.weights)
    assert not same(plain.weights, pulled.weights)
    assert all(message.shared == {} for message in (*without.states, *without.updates))


def test_a_site_sends_gradients_of_the_last_layer_and_the_server_hyper_prototypes(hospitals, run):
    done = run(FedHPro(), hospitals(), 2)
    for update in done.updates:
        assert {name: gradient.shape for name, gradient in update.shared.items()} == {
            f"{c}/backbone.final_conv.{name}": shape
            for c in (0, 1)
            for name, shape in (("weight", (2, 8)), ("bias", (2,)))
        }
        assert (prototypes(update.shared), size_bytes(update.shared)) == (0, 2 * (2 * 8 + 2) * 4)
    assert {c: points.shape for c, points in done.states[-1].shared.items()} == {"0": (5, 8), "1": (5, 8)}
    assert len(done.metric("separation")) == len(done.metric("uniformity")) == 3  # none in the first round


# Its settings.


@pytest.mark.parametrize(
    "wrong",
    [{"weight": -1}, {"steps": -1}, {"anchors_per_class": -1}, {"tau": 0}, {"points": 0}, {"rate": 0}]
    + [{name: "other"} for name in ("margin", "huber", "match", "metric", "anchor", "average")]
    + [{"metric": "signs", "match": "layer"}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FedHPro(**wrong)
