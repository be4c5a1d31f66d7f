"""Update history: refuses an update whose magnitude exceeds by far what the federation has seen.

An update is compared with the median over sites. Of every magnitude the largest median of a round so far is kept, one
number, whatever the number of sites and rounds; it does not depend on the order of the sites.
"""

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median_low
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedbcs_monai.data.sites import PARTS
from fedbcs_monai.federated.messages import Broadcast, ExchangeId, Update

COUNTS = tuple(f"{part}_cases" for part in PARTS)
"""Metrics that say how many cases a site has; they and the number of samples do not change during a run."""

MULTIPLE = 10
"""Largest accepted step, prototype or control variate, as a multiple of the usual one."""

HARMLESS = {"mean": 10, "largest": 100}
"""A step may be as large in any case, as a multiple of the root mean square of the weights that were sent out: a site
whose loss begins to pull, as a contrast does in the second round, may move hundreds of times as far as before."""

MULTIPLE_CASES = 1000
"""Largest accepted number of cases of a site, as a multiple of the usual number; at least `FEW_CASES`."""

FEW_CASES = 10

COUNTER = "step of counter "


class Magnitude(NamedTuple):
    """How large a part of an update is.

    Fields:
        value: the root mean square of its numbers, the largest of them, or how many there are.
        harmless: always accepted up to here.
    """

    value: float
    harmless: float = 0.0


class Magnitudes:
    """The magnitudes of the parts of an update, taken in one tensor at a time."""

    def __init__(self) -> None:
        self._squares: dict[str, float] = defaultdict(float)
        self._counts: dict[str, int] = defaultdict(int)
        self._peaks: dict[str, float] = {}
        self._before: dict[str, float] = defaultdict(float)

    def add_step(self, group: str, tensor: Tensor, before: Tensor) -> None:
        """Add how far weights have moved."""
        exact = torch.promote_types(tensor.dtype, torch.float32)
        self._add(f"step of {group}", tensor.to(exact) - before.to(exact))
        self._before[f"step of {group}"] += _square(before.to(exact))

    def add_counter(self, name: str, tensor: Tensor, before: Tensor) -> None:
        """Add how far a tensor of whole numbers has moved."""
        self._add(f"{COUNTER}{name}", tensor.double() - before.double())

    def add_shared(self, group: str, tensor: Tensor) -> None:
        """Add a shared tensor."""
        self._add(f"size of {group or 'what is shared'}", tensor)

    def found(self) -> dict[str, Magnitude]:
        """From the name of a magnitude to its value; of what is shared also how many numbers it has."""
        found = {}
        for name, count in self._counts.items():
            before = math.sqrt(self._before[name] / count)
            found[f"mean {name}"] = Magnitude(math.sqrt(self._squares[name] / count), HARMLESS["mean"] * before)
            found[f"largest {name}"] = Magnitude(self._peaks[name], HARMLESS["largest"] * before)
            if name.startswith("size"):
                found[f"number of {name}"] = Magnitude(float(count))
        return found

    def _add(self, name: str, values: Tensor) -> None:
        if values.numel():
            self._squares[name] += _square(values)
            self._counts[name] += values.numel()
            self._peaks[name] = max(self._peaks.get(name, 0.0), float(values.abs().max()))


def _square(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


@dataclass
class History:
    """What a server remembers of the updates that it has accepted, and of those that it has not.

    Args:
        usual: of every magnitude the largest median of a round.
        counts: from a site to its numbers of cases, as it reported them first.
        refused: from a site to the exchange of its last answer to the method, if that was refused.
    """

    usual: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, float]] = field(default_factory=dict)
    refused: dict[str, ExchangeId] = field(default_factory=dict)

    def rejection_reason(self, update: Update, magnitudes: Mapping[str, Magnitude]) -> str | None:
        """Why an update that is sound by itself is not of this federation; None if nothing speaks against it."""
        known = self.counts.get(update.site, {})
        for name, count in _counts(update).items():
            if known.get(name, count) != count:
                return f"it has {count:g} {name.replace('_', ' ')}, and registered with {known[name]:g}"
        reported, has = update.metrics.get("cases", 0), [known.get(name, math.inf) for name in COUNTS[:2]]
        if reported > sum(has):
            return f"it reports {reported:g} cases, and registered with {sum(has):g}"
        for name, (value, _) in magnitudes.items():
            if value > self._most(name, magnitudes):
                return f"its {name} is {value:.3g}, and {self.usual[name]:.3g} is usual"
        return None

    def accept(self, broadcast: Broadcast, update: Update, trained: bool) -> None:
        """Note an update that was accepted."""
        self.counts[update.site] = {**_counts(update), **self.counts.get(update.site, {})}
        if trained:
            self.refused.pop(update.site, None)

    def learn(self, accepted: Mapping[str, Mapping[str, Magnitude]]) -> list[str]:
        """Take in the magnitudes of all updates that were accepted in an exchange, by site.

        Returns:
            The sites that are far from what has only now become known to be usual, which is in the first round.
        """
        new = {name for magnitudes in accepted.values() for name in magnitudes} - self.usual.keys()
        for name in sorted({name for magnitudes in accepted.values() for name in magnitudes}):
            median = median_low(magnitudes[name].value for magnitudes in accepted.values() if name in magnitudes)
            self.usual[name] = max(self.usual.get(name, 0.0), median)
        return sorted(
            site
            for site, magnitudes in accepted.items()
            if any(size.value > self._most(name, magnitudes) for name, size in magnitudes.items() if name in new)
        )

    def plain(self) -> dict[str, Any]:
        """The state of a resumed run, for JSON; sites report their numbers of cases again."""
        return {
            "usual": dict(self.usual),
            "refused": {site: list(exchange_id) for site, exchange_id in self.refused.items()},
        }

    def restore(self, plain: Mapping[str, Any]) -> None:
        """Take up where `plain` was taken."""
        self.usual = dict(plain.get("usual", {}))
        self.refused = {site: ExchangeId(*exchange_id) for site, exchange_id in plain.get("refused", {}).items()}

    def _most(self, name: str, magnitudes: Mapping[str, Magnitude]) -> float:
        """How large a magnitude may be. More cases are more steps, and a longer way; 0 says that nothing is usual."""
        if name not in self.usual:
            return math.inf
        usual, harmless = self.usual[name], magnitudes[name].harmless
        if name == "cases":
            return MULTIPLE_CASES * max(usual, FEW_CASES)
        if not (usual or harmless or COUNTER in name):
            return math.inf
        steps = max(1.0, magnitudes["cases"].value / self.usual["cases"])
        return max(MULTIPLE * usual * steps, harmless)


def _counts(update: Update) -> dict[str, float]:
    reported = {name: float(update.metrics[name]) for name in COUNTS if name in update.metrics}
    return {"cases": float(update.cases), **reported}
