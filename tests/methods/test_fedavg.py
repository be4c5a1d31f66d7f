"""FedAvg on a network of one weight, with numbers worked by hand."""

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.methods import FedAvg


def test_two_rounds_of_two_sites(one_weight, run):
    # Alder goes from 0 to 4, Birch from 0 to -2: (1 * 4 - 3 * 2) / 4. Then from -0.5 to 3.75 and to -2.25.
    sites = [one_weight("Alder", 8.0, cases=1), one_weight("Birch", -4.0, cases=3)]
    assert run(FedAvg(), sites, 2).values() == [-0.5, -0.75]


def test_equal_weights_on_request(one_weight, run):
    sites = [one_weight("Alder", 8.0, cases=1), one_weight("Birch", -4.0, cases=3)]
    assert run(FedAvg(weighting="equal"), sites, 1).values() == [1]


def test_two_epochs_are_two_steps(one_weight, run):
    assert run(FedAvg(), [one_weight("Alder", 8.0, epochs=2)], 1).values() == [6]


def test_one_site_is_plain_training(one_weight, run):
    assert run(FedAvg(), [one_weight("Alder", 8.0, cases=5)], 3).values() == [4, 6, 7]


def test_weights_that_no_site_sends_stay_with_the_server():
    state = State(0, {"w": torch.tensor(0.0), "kept": torch.tensor(5.0)}, {})
    update = Update("Alder", 1, {"w": torch.tensor(4.0)}, {})
    assert FedAvg().aggregate(state, [update]).weights == {"w": torch.tensor(4.0), "kept": torch.tensor(5.0)}


def test_an_unknown_weighting_is_refused():
    with pytest.raises(UserError, match="weighting is 'size': choose one of cases, equal"):
        FedAvg(weighting="size")
