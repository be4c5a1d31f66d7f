"""FedAvg on a network of one weight, with numbers worked by hand."""

import pytest
import torch
from torch import nn

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregator import Aggregator
from fedbcs_monai.federated.site import Site
from fedbcs_monai.messages import Broadcast, State
from fedbcs_monai.methods import FedAvg


class OneWeight(nn.Module):
    """Answers w x."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.zeros(()))

    def forward(self, image):
        return self.w * image


def site(name, cases, target, epochs=1):
    """Half the squared distance to a target: a step of rate 0.5 goes half the way."""
    batch = {"image": torch.ones(1), "label": torch.tensor([target])}
    return Site(
        name=name,
        network=OneWeight(),
        batches=lambda seed: [batch],
        cases=cases,
        criterion=lambda logits, label: 0.5 * (logits - label).square().mean(),
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.5),
        scores=lambda network: {},
        epochs=epochs,
    )


def weights_of_rounds(method, sites, rounds):
    aggregator = Aggregator(method, State(0, {"w": torch.tensor(0.0)}, {}))
    ask = lambda broadcast: (site.answer(method, broadcast) for site in sites)  # noqa: E731
    return [state.weights["w"].item() for state in aggregator.rounds(ask, rounds)]


def test_two_rounds_of_two_sites():
    # Alder goes from 0 to 4, Birch from 0 to -2: (1 * 4 - 3 * 2) / 4. Then from -0.5 to 3.75 and to -2.25.
    assert weights_of_rounds(FedAvg(), [site("Alder", 1, 8.0), site("Birch", 3, -4.0)], 2) == [-0.5, -0.75]


def test_equal_weights_on_request():
    assert weights_of_rounds(FedAvg(weighting="equal"), [site("Alder", 1, 8.0), site("Birch", 3, -4.0)], 1) == [1]


def test_two_epochs_are_two_steps():
    assert weights_of_rounds(FedAvg(), [site("Alder", 1, 8.0, epochs=2)], 1) == [6]


def test_one_site_is_plain_training():
    assert weights_of_rounds(FedAvg(), [site("Alder", 5, 8.0)], 3) == [4, 6, 7]


def test_weights_that_no_site_sends_stay_with_the_server():
    method, alder = FedAvg(), site("Alder", 1, 8.0)
    update = alder.answer(method, Broadcast(1, {"w": torch.tensor(0.0)}, {}))
    state = State(0, {"w": torch.tensor(0.0), "kept": torch.tensor(5.0)}, {})
    assert method.aggregate(state, [update]).weights == {"w": torch.tensor(4.0), "kept": torch.tensor(5.0)}


def test_an_unknown_weighting_is_refused():
    with pytest.raises(UserError, match="weighting is 'size': choose one of cases, equal"):
        FedAvg(weighting="size")
