"""Guards: what the server checks before it believes an update; all of it first, so that a refusal changes nothing."""

from collections.abc import Mapping, Set

import torch
from torch import Tensor

from fedbcs_monai.evaluation.familiarity import QUESTIONS
from fedbcs_monai.messages import Broadcast, Update
from fedbcs_monai.methods.base import Parcel
from fedbcs_monai.tensors import Tensors

NUMBERS = ("evaluate", "test", "describe", *QUESTIONS)
"""Tasks that are answered with numbers and no weights; every other task is the method's."""

TOLD = {"mean": Parcel((-1,)), "covariance": Parcel((-1, -1))}
"""What may come with the numbers that answer `QUESTIONS`."""

MOST = 2**20
"""So many numbers may come besides the weights, or as many as the network has."""


def objection(
    broadcast: Broadcast,
    update: Update,
    private: Set[str] = frozenset(),
    luggage: Mapping[str, Parcel] | None = None,
) -> str | None:
    """Why an update is not to be believed; None if nothing speaks against it.

    Checked are the site's name, the number of cases, the numbers, that the weights are finite tensors of the names,
    shapes and kinds that were sent out, and that what comes besides them is what the method has its sites send.

    Args:
        broadcast: what the site was asked.
        update: what it answered.
        private: weights that sites keep to themselves.
        luggage: of `Method.luggage`.
    """
    return (
        _site(update.site)
        or _numbers(broadcast, update)
        or _names(broadcast, update, private)
        or _weights(broadcast, update)
        or _amount(broadcast, update)
        or _shared(broadcast, update, luggage or {})
    )


def _site(name: object) -> str | None:
    """A name becomes that of a file and of a row: no path, nothing that cannot be printed."""
    if not isinstance(name, str) or not name.isprintable() or not 0 < len(name) <= 100:
        return "its name is not one to be printed"
    return "its name is a path" if name in (".", "..") or {"/", "\\"} & set(name) else None


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


def _weights(broadcast: Broadcast, update: Update) -> str | None:
    for name in update.weights:
        tensor = update.weights[name]
        if reason := _kind(name, tensor, "weight"):
            return reason
        like = broadcast.weights[name]
        if tensor.shape != like.shape or tensor.dtype != like.dtype:
            return f"weight {name} is {_form(tensor)}, not {_form(like)}"
        if reason := _finite(name, tensor, "weight"):
            return reason
    return None


def _amount(broadcast: Broadcast, update: Update) -> str | None:
    """Looked at before any number is, which takes time and memory."""
    for name, tensor in update.shared.items():
        if reason := _kind(name, tensor, "shared tensor"):
            return reason
    most = max(MOST, sum(tensor.numel() for tensor in broadcast.weights.values()))
    found = sum(tensor.numel() for tensor in update.shared.values())
    return f"it shares {found:,} numbers, and {most:,} may come" if found > most else None


def _shared(broadcast: Broadcast, update: Update, luggage: Mapping[str, Parcel]) -> str | None:
    if broadcast.task not in NUMBERS or broadcast.task in QUESTIONS:
        unfit = _luggage(update.shared, TOLD if broadcast.task in QUESTIONS else luggage)
    else:
        unfit = _scores(update.shared) if broadcast.task == "test" else None
    reasons = (_finite(name, tensor, "shared tensor") for name, tensor in update.shared.items())
    return unfit or next(filter(None, reasons), None)


def _scores(shared: Tensors) -> str | None:
    """Scores of test cases are columns of one length."""
    shapes = sorted({tuple(tensor.shape) for tensor in shared.values()})
    return f"its scores have the shapes {shapes}" if len(shapes) > 1 or any(len(s) != 1 for s in shapes) else None


def _luggage(shared: Tensors, luggage: Mapping[str, Parcel]) -> str | None:
    needed = {name for name, parcel in luggage.items() if parcel.needed}
    if differing := (shared.keys() - luggage.keys()) | (needed - shared.keys()):
        return f"{len(differing)} shared tensors are missing or unknown: {', '.join(sorted(differing)[:3])}"
    for name, tensor in shared.items():
        wanted = luggage[name].shape
        if not (_fits(tuple(tensor.shape), wanted) and tensor.is_floating_point()):
            return f"shared tensor {name} is {_form(tensor)}, not {str(wanted).replace('-1', 'n')} of floats"
    return None


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(length == want or (want < 0 < length) for length, want in zip(shape, wanted, strict=True))


def _kind(name: object, tensor: object, what: str) -> str | None:
    known = isinstance(tensor, Tensor) and type(name) is str
    return None if known else f"{what} {name!r} is a {type(tensor).__name__}"


def _finite(name: str, tensor: Tensor, what: str) -> str | None:
    finite = not tensor.is_floating_point() or bool(torch.isfinite(tensor).all())
    return None if finite else f"{what} {name} is not finite"


def _form(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
