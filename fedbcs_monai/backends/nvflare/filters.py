"""Filters: check whether the server can still use a result after the site's NVFlare filters."""

from collections.abc import Iterable, Mapping
from typing import Any

from nvflare.apis.dxo import MetaKey
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from torch import Tensor

FOR_DIFFERENCES = ("PercentilePrivacy", "SVTPrivacy")
"""Filters of NVFlare's that clip and thin out differences of weights. A site sends whole weights, which they ruin."""

REASON = "fedbcs_filtered"
"""In the meta data: what the site says its filters have done."""

LONGEST = 300
"""Characters of a reason that came from elsewhere."""


def filters_of(model: FLModel) -> tuple[str, ...]:
    """The filters that have changed a message, as NVFlare notes them; one that is no `DXOFilter` leaves no trace."""
    history = (model.meta or {}).get(MetaKey.FILTER_HISTORY) or ()
    return tuple(one_line(name) for name in history)


def forms(params: Mapping[str, Any]) -> dict[str, str]:
    """From the names of values to what they are: kind, shape and type of number."""
    return {name: _form(value) for name, value in params.items()}


def objection_to_filters(model: FLModel, sent: Mapping[str, str] | None = None) -> str | None:
    """Why an answer is of no use after the filters of its site; None if nothing speaks against it.

    Noise and clipping of any other filter pass, as long as names, shapes and kinds stay.

    Args:
        model: the answer behind the filters.
        sent: `forms` before them, which only the site knows.
    """
    spoilt = _ruined(model) or (_changed(sent, forms(model.params or {})) if sent is not None else None)
    return f"{_named(filters_of(model))} {spoilt}" if spoilt else None


def reason_in(model: FLModel) -> str | None:
    """What a site reported about its filters, as one printable line; None if nothing."""
    reason = (model.meta or {}).get(REASON)
    return None if reason is None else one_line(reason)


def one_line(text: object) -> str:
    """Text from elsewhere, cut to `LONGEST` printable characters."""
    return "".join(c if c.isprintable() else " " for c in str(text))[:LONGEST]


def _ruined(model: FLModel) -> str | None:
    used = [name for name in filters_of(model) if name in FOR_DIFFERENCES]
    if used:
        return f"changed its answer; {' and '.join(used)} clip differences of weights, and a site sends whole weights"
    if model.params_type == ParamsType.DIFF:
        return "made differences of its weights, and a site sends whole weights"
    return None


def _changed(sent: Mapping[str, str], left: Mapping[str, str]) -> str | None:
    if missing := sent.keys() - left.keys():
        return f"removed {len(missing)} of its {len(sent)} tensors: {_some(missing)}"
    if added := left.keys() - sent.keys():
        return f"added {len(added)} tensors to its answer: {_some(added)}"
    if other := [name for name in sent if sent[name] != left[name]]:
        return f"changed the kind of {len(other)} tensors: {other[0]} was {sent[other[0]]} and is {left[other[0]]}"
    return None


def _form(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{tuple(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    return f"a {type(value).__name__}"


def _named(filters: Iterable[str]) -> str:
    names = ", ".join(dict.fromkeys(filters))
    return f"a filter of the site ({names})" if names else "a filter of the site"


def _some(names: Iterable[str]) -> str:
    return ", ".join(sorted(map(str, names))[:3])
