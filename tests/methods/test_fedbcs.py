"""FedBCS: the published code's numbers, worked numbers, and what it is without its parts."""

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from msgspec import structs
from torch import Tensor, nn

from fedbcs_monai.backends.local import ask_in_process, sessions_of
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import Broadcast, State, Update
from fedbcs_monai.federated.server import aggregator_of
from fedbcs_monai.methods import ClientContext, FedBCS
from fedbcs_monai.networks import Features
from fedbcs_monai.networks.fusion import Fusions
from fedbcs_monai.runs.setup import set_up

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "fedbcs_client.npz")
WIDTHS = (32, 64, 128, 256)
BATCHES = ((0, 1), (2, 3), (4,))


def vector(name: str) -> Tensor:
    return torch.from_numpy(VECTORS[name])


def close(mine: Tensor, name: str) -> None:
    """The tolerance of the reference numbers: 1e-4 of the largest."""
    theirs = vector(name)
    assert mine.shape == theirs.shape
    assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max() + 1e-9


def reordered(prototype: Tensor) -> Tensor:
    """The published decoder embedding begins with the deepest level, ours with the shallowest."""
    return torch.cat(prototype.split(256, dim=-1)[::-1], dim=-1)


class Published(nn.Module):
    """The features and convolutions of the reference numbers; an image is the number of its features."""

    def __init__(self, levels=()):
        super().__init__()
        self.fusion = Fusions(WIDTHS, WIDTHS, levels=levels)
        self.encoder = nn.ParameterList(vector(f"in_enc{k}") for k in range(4))
        self.decoder = nn.ParameterList(vector(f"in_dec{k}") for k in (3, 2, 1, 0))
        with torch.no_grad():
            for k, (encoder, decoder) in enumerate(
                zip(self.fusion.encoder.convs, self.fusion.decoder.convs, strict=True)
            ):
                for conv, number in ((encoder, 2 * k), (decoder, 10 - 2 * k)):
                    conv.weight.copy_(vector(f"in_fusion{number}")[:, :, 0, 0])
                    conv.bias.copy_(vector(f"in_fusion{number + 1}"))

    def features(self, image):
        at = image.tolist()
        return Features(
            vector("in_logits")[at],
            tuple(level[at] for level in self.encoder),
            tuple(d[at] for d in self.decoder),
            self.encoder[-1][at],
        )


class OneLevel(nn.Module):
    """One weight; the image, times it, is the only level of both streams and the logits (of at least two classes)."""

    def __init__(self, channels=2):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.fusion = Fusions((channels,), (channels,))

    def features(self, image):
        level = self.scale * image
        return Features(level if level.shape[1] > 1 else torch.cat([level, image], 1), (level,), (level,), level)


def cross_entropy(logits, label):
    return nn.functional.cross_entropy(logits, label[:, 0])


def dice_ce():
    return DiceCELoss(
        softmax=True, to_onehot_y=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5, lambda_dice=0.5, lambda_ce=0.5
    )


def published(**fields):
    """FedBCS with the weight and the anchors of its authors' code."""
    return FedBCS(**{"weight": 1, "anchors": "foreground", "anchors_per_class": 0, **fields})


def begun(method, network, shared=None, round=2, batches=(), epochs=1, criterion=cross_entropy, lr=0.0):
    """A round at a site, after `on_round_start`."""
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    client = ClientContext(
        network, optimizer, criterion, lambda epoch: batches, epochs, Broadcast(round, {}, shared or {})
    )
    method.on_round_start(client)
    return client


def published_losses(method, network, shared):
    client = begun(method, network, shared, criterion=dice_ce())
    batches = [{"image": torch.tensor(at), "label": vector("in_labels")[list(at)]} for at in BATCHES]
    return client, torch.stack([method.loss(client, batch) for batch in batches])


def published_prototypes():
    shared = {f"encoder/{c}": vector(f"in_glob_0_{c}") for c in (0, 1)}
    return shared | {f"decoder/{c}": reordered(vector(f"in_glob_1_{c}")) for c in (0, 1)}


def pixels(*features, classes):
    """A batch of one row of pixels with the given feature vectors."""
    image = torch.tensor(features, dtype=torch.float32).T[None, :, None]
    return {"image": image, "label": torch.tensor(classes)[None, None, None]}


def prototypes(**classes):
    """The same clusters in both streams: ``prototypes(c0=[[1, 0]])``."""
    return {f"{s}/{c[1:]}": torch.tensor(v).float() for c, v in classes.items() for s in ("encoder", "decoder")}


def pull(method, batch, shared, round=2):
    """The loss of a batch without its segmentation part."""
    network = OneLevel(batch["image"].shape[1])
    client = begun(method, network, shared, round)
    return float(method.loss(client, batch).detach() - cross_entropy(batch["image"], batch["label"]))


# The published code's numbers.


@pytest.mark.parametrize("tau", [0.005, 0.4])
def test_losses_and_gradients_are_those_of_the_published_code(tau):
    network = Published()
    _, losses = published_losses(published(tau=tau, clamp=True), network, published_prototypes())
    close(losses.detach().double(), f"out_loss_t{tau}")
    losses.sum().backward()
    for k in range(4):
        close(network.encoder[k].grad, f"out_genc{k}_t{tau}")
        close(network.decoder[3 - k].grad, f"out_gdec{k}_t{tau}")
    close(network.fusion.encoder.convs[0].weight.grad[:8], f"out_gfusion0_t{tau}")
    close(network.fusion.decoder.convs[2].weight.grad[:8], f"out_gfusion6_t{tau}")


@pytest.mark.filterwarnings("ignore:tau 0.005")
def test_the_exact_contrast_agrees_where_the_published_one_does_not_saturate():
    _, losses = published_losses(published(tau=0.4), Published(), published_prototypes())
    close(losses.detach().double(), "out_loss_t0.4")
    _, losses = published_losses(published(tau=0.005), Published(), published_prototypes())
    np.testing.assert_allclose(losses.detach(), [2.7796, 0.8667, 0.8882], atol=1e-4)


def test_prototypes_are_those_of_the_published_code():
    method = FedBCS(prototype_mean="batches")
    client, losses = published_losses(method, Published(), {})
    close(losses.detach().double(), "out_loss_round0")
    sent = method.client_payload(client)
    for c in (0, 1):
        close(sent[f"encoder/{c}"], f"out_proto_0_{c}")
        close(reordered(sent[f"decoder/{c}"]), f"out_proto_1_{c}")


def test_prototypes_of_the_deepest_level_alone_are_those_of_the_published_code():
    method = FedBCS(prototype_mean="batches")
    sent = method.client_payload(published_losses(method, Published(levels=(4,)), {})[0])
    for c in (0, 1):
        close(sent[f"encoder/{c}"], f"out_layer3_proto_0_{c}")
        close(sent[f"decoder/{c}"], f"out_layer3_proto_1_{c}")


# Worked by hand: a background pixel (1, 0), a foreground pixel (0.6, 0.8).

WORKED = pixels((1, 0), (0.6, 0.8), classes=[0, 1])
AXES = prototypes(c0=[[1, 0]], c1=[[0, 1]])
FOREGROUND = math.log(1 + math.exp(-0.2)) + (0.6**2 + 0.2**2) / 2
BACKGROUND = math.log(1 + math.exp(-1))


def test_foreground_pixels_are_pulled_to_their_class_and_pushed_from_the_other():
    assert pull(published(tau=1), WORKED, AXES) == pytest.approx(FOREGROUND, abs=1e-6)


def test_all_anchors_are_averaged_over_classes():
    assert pull(published(tau=1, anchors="all"), WORKED, AXES) == pytest.approx((FOREGROUND + BACKGROUND) / 2, abs=1e-6)
    twice = pixels((1, 0), (1, 0), (1, 0), (0.6, 0.8), classes=[0, 0, 0, 1])
    assert pull(published(tau=1, anchors="all"), twice, AXES) == pytest.approx((FOREGROUND + BACKGROUND) / 2, abs=1e-6)


def test_several_clusters_are_positives_together_and_their_mean_is_the_target():
    shared = prototypes(c0=[[-1, 0]], c1=[[1, 0], [0, 1]])
    contrast = math.log(math.exp(0.6) + math.exp(0.8) + math.exp(-0.6)) - math.log(math.exp(0.6) + math.exp(0.8))
    assert pull(published(tau=1), WORKED, shared) == pytest.approx(contrast + (0.1**2 + 0.3**2) / 2, abs=1e-6)


def test_sums_are_means_times_streams_and_dimensions():
    only = prototypes(c1=[[0, 1]])  # without a negative there is consistency alone
    mean = pull(published(), WORKED, only)
    assert pull(published(streams="sum"), WORKED, only) == pytest.approx(2 * mean, abs=1e-6)
    assert pull(published(consistency="sum"), WORKED, only) == pytest.approx(2 * mean, abs=1e-6)  # two dimensions
    wide = pixels((1, 0, 0), (0, 1, 0), classes=[0, 1])
    three = prototypes(c1=[[0, 0, 1]])
    assert pull(published(consistency="sum"), wide, three) == pytest.approx(
        3 * pull(published(), wide, three), abs=1e-6
    )


def test_weight_multiplies_the_prototype_loss():
    assert pull(published(tau=1, weight=0.5), WORKED, AXES) == pytest.approx(FOREGROUND / 2, abs=1e-6)


@pytest.mark.parametrize("anchors", ["foreground", "all"])
def test_a_class_alone_has_consistency_and_no_contrast(anchors):
    method = FedBCS(anchors=anchors)
    client = begun(method, OneLevel(), prototypes(c1=[[0, 1]]))
    method.loss(client, WORKED)
    assert "contrast" not in client.terms
    assert float(client.terms["consistency"]) == pytest.approx(0.2)  # the mean of both streams


@pytest.mark.parametrize("anchors_per_class", [0, 3])
def test_prototypes_of_background_alone_pull_no_foreground(anchors_per_class):
    method = FedBCS(anchors_per_class=anchors_per_class)
    assert pull(method, WORKED, prototypes(c0=[[1, 0]])) == 0


def test_a_batch_without_foreground_is_not_pulled():
    assert pull(published(), pixels((1, 0), (0.6, 0.8), classes=[0, 0]), AXES) == 0


def test_without_prototypes_the_loss_is_that_of_the_segmentation():
    assert pull(published(), WORKED, {}, round=1) == 0


def test_nothing_is_pulled_before_the_warmup_ends():
    assert pull(published(warmup=2), WORKED, AXES, round=2) == 0
    assert pull(published(warmup=2, tau=1), WORKED, AXES, round=3) == pytest.approx(FOREGROUND, abs=1e-6)


# What a site sends.


def trained(method, batches, network=None, **options):
    return method.train(begun(method, network or OneLevel(1), batches=batches, round=1, **options))


ONE_PIXEL, THREE_PIXELS = pixels((8,), (0,), classes=[0, 1]), pixels((4,), (4,), (4,), classes=[1, 1, 1])


def test_prototypes_are_means_over_pixels_or_over_batches():
    by_pixel = trained(FedBCS(), [ONE_PIXEL, THREE_PIXELS])
    by_batch = trained(FedBCS(prototype_mean="batches"), [ONE_PIXEL, THREE_PIXELS])
    assert float(by_pixel["encoder/1"]) == 3
    assert float(by_batch["encoder/1"]) == 2
    assert float(by_pixel["decoder/0"]) == float(by_batch["decoder/0"]) == 8


def test_a_class_that_a_site_lacks_is_absent_from_its_message():
    sent = trained(FedBCS(), [pixels((8,), (4,), classes=[0, 0])])
    assert sorted(sent) == ["decoder/0", "encoder/0"]


def test_running_prototypes_are_of_the_last_epoch_and_fresh_ones_of_the_trained_network():
    batch = pixels((1,), (1,), classes=[0, 1])
    scales = {}
    for way in ("running", "fresh"):
        network = OneLevel(1)
        # The loss is the weight itself: every step takes 0.25 off it, 1 to 0.75 to 0.5.
        criterion = lambda logits, label: logits[:, 0].mean()  # noqa: E731
        sent = trained(FedBCS(prototype_pass=way), [batch], network, epochs=2, criterion=criterion, lr=0.25)
        scales[way] = float(sent["encoder/1"])
        assert network.scale.item() == 0.5
    assert scales == {"running": 0.75, "fresh": 0.5}


# At the server.


def test_the_server_clusters_what_the_sites_that_have_a_class_sent():
    both = {"encoder/0": torch.tensor([1.0, 0.0]), "encoder/1": torch.tensor([0.0, 1.0])}
    one = {"encoder/0": torch.tensor([3.0, 2.0])}
    updates = [Update(site, 1, {"w": torch.zeros(1)}, sent) for site, sent in (("A", both), ("B", one))]
    state = FedBCS().aggregate(State(1, {}, {"encoder/7": torch.ones(1, 2)}), updates)
    assert {name: clusters.tolist() for name, clusters in state.shared.items()} == {
        "encoder/0": [[2, 1]],
        "encoder/1": [[0, 1]],
    }


# A whole federation.


def state_after(config, rounds, sites=None, method=None):
    federation = set_up(config)
    federation = replace(federation, sites=federation.sites[:sites], method=method or federation.method)
    updates = []
    aggregator = aggregator_of(federation.method, federation.network, federation.start)
    aggregator.on_update = lambda broadcast, update: updates.append(update)
    *_, state = aggregator.rounds(ask_in_process(sessions_of(federation)), rounds)
    return state, updates


def test_weight_0_is_fedavg_bit_for_bit_and_sends_nothing(tiny):
    plain, _ = state_after(structs.replace(tiny("FedBCS"), method={"_target_": "fedbcs_monai.methods.FedAvg"}), 2)
    without, updates = state_after(tiny("FedBCS", **{"method::weight": 0}), 2)
    aligned, _ = state_after(tiny("FedBCS"), 2)
    assert plain.weights.keys() == without.weights.keys()
    assert all(torch.equal(plain.weights[name], without.weights[name]) for name in plain.weights)
    assert not all(torch.equal(plain.weights[name], aligned.weights[name]) for name in plain.weights)
    assert all(message.shared == {} for message in (without, *updates))


def test_one_site_is_pulled_to_its_own_prototypes(tiny):
    state, updates = state_after(tiny("FedBCS"), 2, sites=1)
    assert sorted(state.shared) == ["decoder/0", "decoder/1", "encoder/0", "encoder/1"]
    assert {clusters.shape for clusters in state.shared.values()} == {(1, 12)}  # three levels of four channels
    assert all(torch.equal(state.shared[name][0], sent) for name, sent in updates[1].shared.items())
    assert "contrast" not in updates[0].metrics
    assert updates[1].metrics["contrast"] > 0


def test_what_a_site_sends_besides_weights_is_one_vector_a_stream_and_class(tiny):
    _, updates = state_after(tiny("FedBCS"), 1)
    for update in updates:
        assert {name: vector.shape for name, vector in update.shared.items()} == {
            f"{stream}/{c}": (12,) for stream in ("encoder", "decoder") for c in (0, 1)
        }


def test_a_network_without_context_fusion_is_refused(tiny):
    with pytest.raises(UserError, match="network_def::context"):
        state_after(tiny(method={"_target_": "fedbcs_monai.methods.FedBCS"}, **{"network_def::context": None}), 1)


# Its settings.


@pytest.mark.parametrize(
    "wrong",
    [{"tau": 0}, {"tau": -1}, {"tau": math.nan}, {"weight": -1}, {"warmup": -1}, {"anchors_per_class": -1}]
    + [{name: "other"} for name in ("anchors", "consistency", "streams", "prototype_mean", "prototype_pass")],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FedBCS(**wrong)


def test_a_small_temperature_warns_unless_it_does_nothing():
    with pytest.warns(UserWarning, match=r"about 200 times"):
        FedBCS(tau=0.005)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FedBCS(tau=0.05), FedBCS(tau=0.005, clamp=True), FedBCS(tau=0.005, weight=0)
