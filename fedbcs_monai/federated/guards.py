"""Guards: what the server checks before it believes an update; all of it first, so that a refusal changes nothing."""

from collections.abc import Mapping, Set

import torch
from torch import Tensor

from fedbcs_monai.messages import Broadcast, Update
from fedbcs_monai.tensors import Tensors

NUMBERS = ("evaluate", "test", "describe")
"""Tasks that are answered with numbers and no weights; every other task is the method's."""


def objection(broadcast: Broadcast, update: Update, private: Set[str] = frozenset()) -> str | None:
    """Why an update is not to be believed; None if nothing speaks against it.

    Checked are the number of cases, the numbers, and that the weights are finite tensors of the names, shapes and kinds
    that were sent out. What a method files in ``shared`` has names of its own; it must be finite.

    Args:
        broadcast: what the site was asked.
        update: what it answered.
        private: weights that sites keep to themselves.
    """
    return (
        _numbers(broadcast, update)
        or _names(broadcast, update, private)
        or _tensors(broadcast.weights, update.weights, "weight")
        or _tensors(update.shared, update.shared, "shared tensor")
    )


def _numbers(broadcast: Broadcast, update: Update) -> str | None:
    least = 0 if broadcast.task in NUMBERS else 1
    cases: object = update.cases
    metrics: object = update.metrics
    if isinstance(cases, bool) or not isinstance(cases, int) or cases < least:
        return f"its number of cases is {cases!r}"
    if not isinstance(metrics, Mapping):
        return f"its numbers are a {type(metrics).__name__}"
    for name, value in metrics.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"its {name} is {value!r}, not a number"
        if str(name).endswith("dice") and not (value != value or 0 <= value <= 1):
            return f"its {name} is {value}, not in [0, 1]"
    return None


def _names(broadcast: Broadcast, update: Update, private: Set[str]) -> str | None:
    if not update.weights and broadcast.task != "train":
        return None
    if differing := (broadcast.weights.keys() - private) ^ update.weights.keys():
        return f"{len(differing)} weights are missing or unknown: {', '.join(sorted(map(str, differing))[:3])}"
    return None


def _tensors(wanted: Tensors, found: Tensors, what: str) -> str | None:
    for name in found:
        tensor: object = found[name]
        if not isinstance(tensor, Tensor) or type(name) is not str:
            return f"{what} {name!r} is a {type(tensor).__name__}"
        like = wanted[name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            came, asked = (f"{tuple(t.shape)} {t.dtype}".replace("torch.", "") for t in (tensor, like))
            return f"{what} {name} is {came}, not {asked}"
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return f"{what} {name} is not finite"
    return None
