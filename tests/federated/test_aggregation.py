"""Aggregation: the rule of a method makes one network of the sites', and the mean is that of federated averaging."""

import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregation import RULES
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.methods import FedBCS, Method

START = State(0, {"w": torch.zeros(2)}, {})


def updates():
    """1 of three cases, and 5 of one: 2 by cases, 3 by sites."""
    return [Update("Alder", 3, {"w": torch.ones(2)}, {}, {}), Update("Birch", 1, {"w": torch.full((2,), 5.0)}, {}, {})]


@pytest.mark.parametrize(("weighting", "value"), [("cases", 2.0), ("equal", 3.0)])
def test_the_mean_is_weighted_as_the_method_says(weighting, value):
    assert Method(weighting=weighting).aggregate(START, updates()).weights["w"].tolist() == [value, value]


def test_the_rule_of_a_method_is_looked_up_by_its_name(monkeypatch):
    def last(parts):
        *_, (tensors, _) = parts
        return tensors

    monkeypatch.setitem(RULES, "last", last)
    assert FedBCS(aggregation="last").aggregate(START, updates()).weights["w"].tolist() == [5.0, 5.0]


def test_a_rule_that_there_is_not_is_refused():
    with pytest.raises(UserError, match="aggregation is 'best': choose one of mean"):
        Method(aggregation="best")
