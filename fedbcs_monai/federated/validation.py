"""Validation: all checks of an update before the server accepts it."""

import math
import re
from collections.abc import Mapping, Set
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fedbcs_monai.federated.history import COUNTS, Magnitude, Magnitudes
from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.federated.method import TensorSpec
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.names import is_site_name
from fedbcs_monai.ood.distance import QUESTIONS
from fedbcs_monai.tensors import Stored, Tensors

NUMBERS = ("evaluate", "test", "describe", *QUESTIONS)
"""Tasks that are answered with numbers and no weights; every other task is the method's."""

TOLD = {"mean": TensorSpec((-1,)), "covariance": TensorSpec((-1, -1))}
"""What may come with the numbers that answer `QUESTIONS`."""

MAX_VALUES = 2**20
"""So many numbers may come besides the weights, or as many as the network has."""

LIMIT = 1e12
"""No weight, feature or gradient is larger; the square of this is still far from the largest number there is."""

MOST_CASES = 10**7
MOST_METRICS = 1000


class Finding(NamedTuple):
    """What an examination finds.

    Fields:
        rejection_reason: why the update is not accepted; None if nothing speaks against it.
        magnitudes: how large it is, to be compared with those of other updates (`History`).
    """

    rejection_reason: str | None
    magnitudes: Mapping[str, Magnitude]


class _Rejected(Exception):
    """What speaks against an update."""


def examined(
    broadcast: Broadcast,
    update: Update,
    private: Set[str] = frozenset(),
    payload: Mapping[str, TensorSpec] | None = None,
    buffers: Set[str] = frozenset(),
) -> Finding:
    """Check an update by itself, and measure it.

    Checked are the site's name, the number of cases, the numbers, that the weights are finite tensors of the names,
    shapes and types that were sent out, and that what comes besides them is what the method has its sites send. An
    exception on the way, whatever it is, rejects the update.

    Args:
        broadcast: what the site was asked.
        update: what it answered.
        private: weights that sites keep to themselves.
        payload: of `Method.payload`.
        buffers: weights that are not trained, such as running statistics.
    """
    magnitudes = Magnitudes()
    try:
        _check_site(update.site)
        _check_numbers(broadcast, update)
        _check_names(broadcast, update, private)
        _check_amount(broadcast, update)
        _check_weights(broadcast, update, buffers, magnitudes)
        _check_shared(broadcast, update, payload or {}, magnitudes)
    except _Rejected as reason:
        return Finding(str(reason), {})
    except Exception as error:
        return Finding(f"its answer cannot be read ({type(error).__name__})", {})
    asked_to_train = broadcast.task not in NUMBERS
    return Finding(None, {"cases": Magnitude(float(update.cases)), **magnitudes.found()} if asked_to_train else {})


def _check(holds: bool, reason: str) -> None:
    if not holds:
        raise _Rejected(reason)


def _check_site(name: object) -> None:
    _check(is_site_name(name), "its name is not that of a site")


def _check_numbers(broadcast: Broadcast, update: Update) -> None:
    least = 0 if broadcast.task in NUMBERS else 1
    cases: object = update.cases
    _check(type(cases) is int and least <= cases <= MOST_CASES, f"its number of cases is {_said(cases)}")
    metrics: object = update.metrics
    if not isinstance(metrics, dict):
        raise _Rejected(f"its numbers are a {type(metrics).__name__}")
    _check(len(metrics) <= MOST_METRICS, f"it sends {len(metrics):,} numbers, and {MOST_METRICS:,} may come")
    for name, value in metrics.items():
        _check(type(name) is str and bool(re.fullmatch(r"[\w ./-]{1,100}", name)), "a number has no name to be printed")
        _check(type(value) in (int, float), f"its {name} is {_said(value)}, not a number")
        _check(math.isfinite(value), f"its {name} is {value}, not finite")
        _check_range(name, value)


def _check_range(name: str, value: float) -> None:
    if name.endswith("dice"):
        _check(0 <= value <= 1, f"its {name} is {value}, not in [0, 1]")
    elif name in COUNTS or name == "cases":
        whole = 0 <= value <= MOST_CASES and float(value).is_integer()
        _check(whole, f"its {name} is {value}, not a number of cases")
    elif name.endswith(("_mm", "variance", "seconds", "usual")):
        _check(value >= 0, f"its {name} is {value}, below 0")


def _check_names(broadcast: Broadcast, update: Update, private: Set[str]) -> None:
    for tensors in (update.weights, update.shared):
        _check(isinstance(tensors, (dict, Stored)), f"its tensors are a {type(tensors).__name__}")
        _check(all(type(name) is str for name in tensors), "a tensor has no name")
    if not update.weights and broadcast.task != "train":
        return
    differing = (broadcast.weights.keys() - private) ^ update.weights.keys()
    _check(not differing, f"{len(differing)} weights are missing or unknown: {_some(differing)}")


def _check_weights(broadcast: Broadcast, update: Update, buffers: Set[str], magnitudes: Magnitudes) -> None:
    for name in update.weights:
        tensor, like = update.weights[name], broadcast.weights[name]
        _check_kind(name, tensor, "weight")
        _check(
            tensor.shape == like.shape and tensor.dtype == like.dtype,
            f"weight {name} is {_form(tensor)}, not {_form(like)}",
        )
        _check_values(name, tensor, "weight")
        if tensor.is_floating_point():
            _check(
                not (name.endswith("running_var") and bool((tensor < 0).any())), f"weight {name} is a variance below 0"
            )
            magnitudes.add_step("buffers" if name in buffers else "weights", tensor, like)
        else:
            magnitudes.add_counter(name, tensor, like)


def _check_amount(broadcast: Broadcast, update: Update) -> None:
    """Looked at before any number is, which takes time and memory."""
    for name, tensor in update.shared.items():
        _check_kind(name, tensor, "shared tensor")
    most = max(MAX_VALUES, sum(tensor.numel() for tensor in broadcast.weights.values()))
    found = sum(tensor.numel() for tensor in update.shared.values())
    _check(found <= most, f"it shares {found:,} numbers, and {most:,} may come")


def _check_shared(
    broadcast: Broadcast, update: Update, payload: Mapping[str, TensorSpec], magnitudes: Magnitudes
) -> None:
    if broadcast.task == "test":
        return _check_scores(update)
    if broadcast.task in QUESTIONS:
        return _check_reported(update)
    if broadcast.task in NUMBERS:
        return _check(not update.shared, f"it shares {len(update.shared)} tensors that nobody asked for")
    _check_payload(update.shared, payload)
    for name, tensor in update.shared.items():
        _check_values(name, tensor, "shared tensor")
        magnitudes.add_shared(group_of(name), tensor)
    return None


def _check_scores(update: Update) -> None:
    """Scores of test cases are columns of one length."""
    names = CaseScore._fields[1:]
    shapes = sorted({tuple(tensor.shape) for tensor in update.shared.values()})
    _check(
        len(shapes) <= 1 and all(len(shape) == 1 for shape in shapes), f"its scores have the shapes {str(shapes)[:200]}"
    )
    for name, column in update.shared.items():
        _check(name in names, "a column of its scores is unknown")
        _check(column.dtype == torch.float64, f"its scores {name} are {_form(column)}, not float64")
        _check_values(name, column, "column")
        most = math.inf if name.endswith("_mm") else 1
        _check(bool(((column >= 0) & (column <= most)).all()), f"its scores {name} are not in [0, {most}]")
        count = update.metrics.get("test_cases", len(column))
        _check(len(column) == count, f"it has scores of {len(column)} test cases, and reports {count}")


def _check_reported(update: Update) -> None:
    """A covariance is as large as its mean is long, symmetric, and of no direction negative."""
    _check_payload(update.shared, TOLD)
    for name, tensor in update.shared.items():
        _check_values(name, tensor, "shared tensor")
    if not update.shared:
        return
    mean, covariance = update.shared.get("mean"), update.shared.get("covariance")
    if mean is None or covariance is None:
        raise _Rejected("of mean and covariance one is missing")
    _check(covariance.shape == 2 * mean.shape, f"its covariance is {_form(covariance)}, its mean {_form(mean)}")
    full = covariance.double()
    largest = float(full.abs().max())
    _check(bool((full - full.T).abs().max() <= 1e-4 * largest), "its covariance is not symmetric")
    least = float(torch.linalg.eigvalsh(full).min())
    _check(least >= -1e-4 * largest, "its covariance is negative in some direction")


def _check_payload(shared: Tensors, payload: Mapping[str, TensorSpec]) -> None:
    needed = {name for name, spec in payload.items() if spec.needed}
    differing = (shared.keys() - payload.keys()) | (needed - shared.keys())
    _check(not differing, f"{len(differing)} shared tensors are missing or unknown: {_some(differing)}")
    for name, tensor in shared.items():
        shape, dtype = payload[name].shape, payload[name].dtype
        wanted = f"{str(shape).replace('-1', 'n')} {str(dtype).removeprefix('torch.')}"
        fits = _fits(tuple(tensor.shape), shape) and tensor.dtype == dtype
        _check(fits, f"shared tensor {name} is {_form(tensor)}, not {wanted}")


def group_of(name: str) -> str:
    """With which other shared tensors one is compared: by the first part of its path that is not a number of a class.

    >>> [group_of(name) for name in ("encoder/1", "control/w.bias", "1", "1/head.bias")]
    ['encoder', 'control', '', '']
    """
    first, _, rest = name.partition("/")
    return first if rest and not first.isdigit() else ""


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    if len(shape) != len(wanted):
        return False
    return all(length == want or (want < 0 < length) for length, want in zip(shape, wanted, strict=True))


def _check_kind(name: str, tensor: object, what: str) -> None:
    """A plain tensor in memory: nothing sparse, quantised, elsewhere or still to be differentiated."""
    if not isinstance(tensor, Tensor) or type(tensor) not in (Tensor, nn.Parameter):
        raise _Rejected(f"{what} {_said(name)} is a {type(tensor).__name__}")
    plain = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    _check(plain and not tensor.requires_grad, f"{what} {_said(name)} is not a plain tensor in memory")


def _check_values(name: str, tensor: Tensor, what: str) -> None:
    if tensor.is_floating_point() and tensor.numel():
        least, most = (float(end) for end in torch.aminmax(tensor.detach()))
        _check(math.isfinite(least) and math.isfinite(most), f"{what} {name} is not finite")
        _check(max(-least, most) <= LIMIT, f"{what} {name} is as large as {max(-least, most):.3g}")


def _form(tensor: Tensor) -> str:
    return f"{str(tuple(tensor.shape))[:100]} {str(tensor.dtype).removeprefix('torch.')}"


def _some(names: Set[str]) -> str:
    return ", ".join(_said(name).strip("'\"") for name in sorted(names)[:3])


def _said(value: object) -> str:
    """A value that came, in a few printable characters."""
    text = repr(value) if isinstance(value, (str, int, float, bool)) else f"a {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:80]}..."
