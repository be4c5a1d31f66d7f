"""FedUV: the published code's numbers, worked numbers, and FedAvg without its terms."""

import math

import pytest
import torch
from torch import nn

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import Broadcast
from fedbcs_monai.methods import ClientContext, FedAvg, FedUV
from fedbcs_monai.networks import Features


class Given(nn.Module):
    """Logits and features that are given, of images of one pixel."""

    def __init__(self, logits, feature):
        super().__init__()
        self.logits = nn.Parameter(logits[..., None])
        self.feature = nn.Parameter(feature[..., None])

    def features(self, image):
        return Features(self.logits, (), (), self.feature)


def regularized(method, network, label=None):
    """The loss without its segmentation part, its terms, and the gradients of logits and features."""
    label = torch.zeros(len(network.logits), 1, 1, dtype=torch.long) if label is None else label
    nothing = lambda logits, label: logits.sum() * 0  # noqa: E731
    client = ClientContext(
        network, torch.optim.SGD(network.parameters(), 1), nothing, lambda epoch: [], 1, Broadcast(1, {}, {})
    )
    loss = method.loss(client, {"image": label, "label": label})
    loss.backward()
    terms = {name: float(term) for name, term in client.terms.items()}
    return float(loss.detach()), terms, network.logits.grad, network.feature.grad


@pytest.mark.parametrize("classes", [2, 4, 10])
def test_the_terms_are_those_of_the_published_code(vectors, close, classes):
    given = vectors("feduv")
    network = Given(given[f"in_X{classes}"], given[f"in_h{classes}"])
    loss, terms, logits, feature = regularized(FedUV(gamma="identity"), network)
    assert loss == pytest.approx(float(given[f"out_total{classes}"]), rel=1e-4)
    assert terms["variance"] == pytest.approx(float(given[f"out_std{classes}"]), abs=1e-5)
    assert terms["uniformity"] == pytest.approx(float(given[f"out_unif{classes}"]), rel=1e-4)
    close(logits[..., 0], given[f"out_gX{classes}"])
    close(feature[..., 0], given[f"out_gh{classes}"])


def test_a_rare_class_is_pushed_by_the_published_code(vectors, close):
    given = vectors("feduv")
    network = Given(given["in_Ximb"], given["in_himb"])
    _, terms, logits, _ = regularized(FedUV(gamma="identity"), network)
    assert terms["variance"] == pytest.approx(float(given["out_stdimb"]), abs=1e-5)
    close(logits[..., 0], given["out_gXimb"])


RARE = torch.tensor([1] + 9 * [0])[:, None, None]
CERTAIN = torch.where(nn.functional.one_hot(RARE[:, 0, 0], 2) == 1, 30.0, -30.0)


def test_predictions_without_error_lack_no_variance_however_rare_a_class():
    labels = regularized(FedUV(uniformity=0), Given(CERTAIN, torch.rand(10, 3)), RARE)
    identity = regularized(FedUV(uniformity=0, gamma="identity"), Given(CERTAIN, torch.rand(10, 3)), RARE)
    assert labels[0] == pytest.approx(0, abs=1e-6)
    # One pixel in ten: the unbiased variance is 10 / 9 * 0.1 * 0.9 = 0.1, whatever the class. Asked for is 1 / 2.
    assert identity[0] == pytest.approx(2.5 * (math.sqrt(0.5) - math.sqrt(0.1)), abs=1e-5)


def test_predictions_that_are_all_alike_lack_all_of_it_and_have_a_finite_gradient():
    network = Given(torch.zeros(10, 2), torch.zeros(10, 3))
    loss, terms, logits, feature = regularized(FedUV(), network, RARE)
    assert terms["variance"] == pytest.approx(math.sqrt(0.1), abs=2e-4)  # less 1e-4, the least deviation
    assert terms["uniformity"] == 1
    assert math.isfinite(loss)
    assert bool(logits.isfinite().all() and feature.isfinite().all())


def test_one_image_alone_has_no_uniformity():
    network = Given(torch.zeros(1, 2), torch.rand(1, 3))
    network.logits = nn.Parameter(torch.rand(1, 2, 4))
    _, terms, _, _ = regularized(FedUV(), network, torch.tensor([[[0, 1, 1, 0]]]))
    assert terms["uniformity"] == 0
    assert math.isfinite(terms["variance"])


def test_pixels_are_drawn_from_all_images_of_a_batch():
    feature = torch.arange(600.0).reshape(2, 1, 300)
    network = Given(torch.zeros(2, 2), torch.zeros(2, 1))
    network.feature = nn.Parameter(feature)
    method = FedUV(points="pixels")
    torch.manual_seed(0)
    drawn = method.vectors(network.features(None)).flatten()
    assert len(drawn.unique()) == 256
    assert drawn.min() < 300 <= drawn.max()
    network.feature = nn.Parameter(torch.tensor([[[0.0, 1.0, 3.0]]]))
    # Squared distances 1, 4 and 9, whose median is 4.
    expected = (math.exp(-1 / 4) + math.exp(-1) + math.exp(-9 / 4)) / 3
    assert regularized(method, network, RARE[:2])[1]["uniformity"] == pytest.approx(expected)


def test_both_weights_0_are_fedavg_bit_for_bit(hospitals, run, same):
    without = FedUV(variance=0, uniformity=0)
    plain, none, both = (
        run(method, hospitals(), 2)
        for method in (FedAvg(), without, FedUV(feature_layer="penultimate", points="pixels"))
    )
    assert same(plain.weights, none.weights)
    assert not same(plain.weights, both.weights)


def test_weights_are_all_that_is_sent(hospitals, run):
    assert [update.shared for update in run(FedUV(), hospitals(), 1).updates] == [{}, {}, {}]


@pytest.mark.parametrize(
    "wrong",
    [{"variance": -1}, {"uniformity": -1}, {"gamma": "x"}, {"feature_layer": "logits"}, {"points": "x"}],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        FedUV(**wrong)
