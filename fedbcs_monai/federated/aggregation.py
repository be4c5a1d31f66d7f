"""Aggregation: rules by which the server combines the weights of the sites."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from statistics import median_low
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.tensors import Tensors, mean

ITERATIONS = 3
"""Of centered clipping, from the broadcast network on."""


class Part(NamedTuple):
    """The network of one site.

    Args:
        site: its name.
        tensors: what it sent.
        weight: in a weighted mean.
    """

    site: str
    tensors: Tensors
    weight: float


@dataclass(frozen=True)
class Rule(ABC):
    """One network of the sites'; a rule has at most one parameter, its only field."""

    @abstractmethod
    def __call__(self, before: Tensors, parts: Iterable[Part]) -> Tensors:
        """The tensors of the global network.

        Args:
            before: the network that was sent out; what it does not have counts from 0.
            parts: of the sites, one at a time.
        """


@dataclass(frozen=True)
class Mean(Rule):
    """The weighted mean (McMahan et al., AISTATS 2017, Algorithm 1), for any number of sites.

    One network is held at a time. One hostile site can move it anywhere.
    """

    def __call__(self, before: Tensors, parts: Iterable[Part]) -> Tensors:
        """The mean of the networks, whatever was sent out."""
        return mean((part.tensors, part.weight) for part in parts)


@dataclass(frozen=True)
class RobustRule(Rule):
    """A rule on steps, each a site's network minus the one that was sent out, in float64.

    The networks of all sites are held at once. They are taken in the order of the sites' names, so that the order in
    which they arrive changes no bit. Tensors that are not floating point (counters) are those of `tensors.mean`, where
    no site weighs more than the median site.
    """

    @abstractmethod
    def min_sites(self, sites: int) -> int:
        """For how many sites the rule is defined, if there are ``sites``."""

    @abstractmethod
    def steps(self, steps: "Steps") -> Mapping[str, Tensor]:
        """The step of the global network."""

    def __call__(self, before: Tensors, parts: Iterable[Part]) -> Tensors:
        """The network that was sent out, moved by one step.

        Raises:
            UserError: there are too few sites.
        """
        held = sorted(parts, key=lambda part: part.site)
        least = self.min_sites(len(held))
        if len(held) < least:
            raise UserError(
                f"aggregation {_text(self)} is defined for {least} sites or more, and {len(held)} updates are "
                f"accepted ({', '.join(part.site for part in held)}): set method::aggregation to mean, or to a rule "
                "or value for fewer sites"
            )
        cap = median_low(part.weight for part in held)
        weights = [min(part.weight, cap) for part in held]
        found = Steps(before, [part.tensors for part in held], weights)
        moved = {name: found.moved(name, step) for name, step in self.steps(found).items()}
        return {**found.counters(), **moved}


@dataclass(frozen=True)
class Steps:
    """The steps of all sites, computed one tensor at a time.

    Args:
        before: the network that was sent out.
        after: the networks of n sites.
        weights: of the sites, none above their median.
    """

    before: Tensors
    after: Sequence[Tensors]
    weights: Sequence[float]

    def names(self) -> list[str]:
        """Of the floating-point tensors."""
        return [name for name, tensor in self.after[0].items() if tensor.is_floating_point()]

    def rows(self, name: str) -> Tensor:
        """The steps of one tensor, (n, ...)."""
        after = torch.stack([tensors[name].double() for tensors in self.after])
        return after - self.before[name].double() if name in self.before else after

    def moved(self, name: str, step: Tensor) -> Tensor:
        """A tensor of the network that was sent out after a step, in its own type."""
        start = self.before[name].double() if name in self.before else 0
        return (start + step).to(self.after[0][name].dtype)

    def counters(self) -> dict[str, Tensor]:
        """The tensors that are not floating point."""
        whole = [{name: t for name, t in after.items() if not t.is_floating_point()} for after in self.after]
        return mean(zip(whole, self.weights, strict=True))

    def products(self) -> Tensor:
        """Scalar products of every two steps over all tensors, (n, n)."""
        found = torch.zeros(len(self.after), len(self.after), dtype=torch.float64)
        for name in self.names():
            flat = self.rows(name).reshape(len(self.after), -1)
            found += flat @ flat.T
        return found


@dataclass(frozen=True)
class CoordinateRule(RobustRule):
    """A rule that looks at every coordinate by itself, and at no weights of sites."""

    @abstractmethod
    def coordinate(self, ordered: Tensor) -> Tensor:
        """One value of the sites' n sorted ones, (n, ...) to (...)."""

    def steps(self, steps: Steps) -> Mapping[str, Tensor]:
        """Coordinate by coordinate."""
        return {name: self.coordinate(steps.rows(name).sort(0).values) for name in steps.names()}


@dataclass(frozen=True)
class CoordinateMedian(CoordinateRule):
    """The median of every coordinate (Yin et al., ICML 2018, Definition 1), for 3 sites or more.

    Of an even number it is the mean of the two in the middle. Fewer than half of the sites may be hostile.
    """

    def min_sites(self, sites: int) -> int:
        """Of 1 or 2 sites the median is the mean."""
        return 3

    def coordinate(self, ordered: Tensor) -> Tensor:
        """The middle."""
        n = len(ordered)
        return (ordered[(n - 1) // 2] + ordered[n // 2]) / 2


@dataclass(frozen=True)
class TrimmedMean(CoordinateRule):
    """The mean of every coordinate without its extremes (Yin et al., ICML 2018, Definition 2), unweighted.

    The ceiling of ``share`` times n is cut at either end, and that many sites may be hostile; defined for more than
    twice as many sites.

    Args:
        share: that is cut at either end, 0 to below 0.5; 0 is the unweighted mean.
    """

    share: float = 0.25

    def __post_init__(self) -> None:
        """Check the share."""
        if not 0 <= self.share < 0.5:
            raise UserError(f"aggregation {_text(self)}: share is {self.share}: it must be 0 or more and below 0.5")

    def cut(self, sites: int) -> int:
        """How many are cut at either end."""
        return math.ceil(self.share * sites - 1e-9)

    def min_sites(self, sites: int) -> int:
        """One must be left."""
        return 2 * self.cut(sites) + 1

    def coordinate(self, ordered: Tensor) -> Tensor:
        """The mean of what is left."""
        cut = self.cut(len(ordered))
        return ordered[cut : len(ordered) - cut].mean(0)


@dataclass(frozen=True)
class LinearRule(RobustRule):
    """A rule whose step is a sum of the sites' steps, each times a share."""

    @abstractmethod
    def shares(self, products: Tensor, weights: Tensor) -> Tensor:
        """The share of every site, (n,).

        Args:
            products: scalar products of every two steps, (n, n).
            weights: of the sites, none above their median, (n,).
        """

    def steps(self, steps: Steps) -> Mapping[str, Tensor]:
        """The sum, site by site."""
        shares = self.shares(steps.products(), torch.tensor(steps.weights, dtype=torch.float64)).tolist()
        return {name: _sum(steps.rows(name), shares) for name in steps.names()}


@dataclass(frozen=True)
class NormClippedMean(LinearRule):
    """The weighted mean of steps that are clipped to the median length (Sun et al., 2019, arXiv:1911.07963).

    The paper's bound on the length is a number; here it is the median over sites (Andrew et al., NeurIPS 2021, follow
    it from round to round). No site weighs more than the median site. For 3 sites or more: of fewer, a hostile site
    could be the median. A direction is not looked at: a hostile site still pulls, as hard as the median site.
    """

    def min_sites(self, sites: int) -> int:
        """So that the median is not one site's to choose."""
        return 3

    def shares(self, products: Tensor, weights: Tensor) -> Tensor:
        """The weight, clipped."""
        lengths = products.diagonal().sqrt()
        return weights * _clipped(lengths, median_low(lengths.tolist())) / weights.sum()


@dataclass(frozen=True)
class CenteredClipping(LinearRule):
    """Mean steps from a center, each clipped to a radius (Karimireddy et al., ICML 2021, Algorithm 2), unweighted.

        v <- v + mean( (x_i - v) * min(1, radius / |x_i - v|) )

    The paper starts at the aggregate of the round before, of momenta that sites send; here v starts at the network
    that was sent out, and is moved three times. The paper's radius is a length; here it is a multiple of the median
    length of the sites' steps. For 3 sites or more. A hostile site moves the result by up to three radii over n.

    Args:
        radius: in median step lengths, above 0; a large one is the unweighted mean.
    """

    radius: float = 1.0

    def __post_init__(self) -> None:
        """Check the radius."""
        if not 0 < self.radius < math.inf:
            raise UserError(f"aggregation {_text(self)}: radius is {self.radius}: it must be above 0 and finite")

    def min_sites(self, sites: int) -> int:
        """So that the median is not one site's to choose."""
        return 3

    def shares(self, products: Tensor, weights: Tensor) -> Tensor:
        """The center, as shares of the steps."""
        radius = self.radius * median_low(products.diagonal().sqrt().tolist())
        center = torch.zeros_like(weights)
        for _ in range(ITERATIONS):
            squares = products.diagonal() - 2 * products @ center + center @ products @ center
            clipped = _clipped(squares.clamp_min(0).sqrt(), radius)
            center = (1 - clipped.mean()) * center + clipped / len(center)
        return center


@dataclass(frozen=True)
class Krum(LinearRule):
    """The step that is nearest to its n - hostile - 2 nearest others (Blanchard et al., NeurIPS 2017), unweighted.

    Defined for n > 2 hostile + 2. All but one site's work is dropped.

    Args:
        hostile: so many sites may be hostile (f in the paper).
    """

    hostile: int = 1

    def __post_init__(self) -> None:
        """Check the number."""
        if self.hostile < 0:
            raise UserError(f"aggregation {_text(self)}: hostile is {self.hostile}: it must be 0 or more")

    def min_sites(self, sites: int) -> int:
        """Of the paper."""
        return 2 * self.hostile + 3

    def selected(self, sites: int) -> int:
        """How many steps are averaged."""
        return 1

    def shares(self, products: Tensor, weights: Tensor) -> Tensor:
        """The same for every selected site; of equal scores the first."""
        n, squares = len(products), products.diagonal()
        distances = (squares[:, None] + squares - 2 * products).clamp_min(0).fill_diagonal_(math.inf)
        scores = distances.sort(1).values[:, : n - self.hostile - 2].sum(1).tolist()
        best = sorted(range(n), key=scores.__getitem__)[: self.selected(n)]
        shares = torch.zeros_like(weights)
        shares[best] = 1 / len(best)
        return shares


@dataclass(frozen=True)
class MultiKrum(Krum):
    """The mean of the n - hostile steps with the best scores of `Krum` (Blanchard et al., NeurIPS 2017), unweighted.

    Defined for n > 2 hostile + 2.

    Args:
        hostile: so many sites may be hostile (f in the paper).
    """

    def selected(self, sites: int) -> int:
        """All that may be honest."""
        return sites - self.hostile


RULES: Mapping[str, type[Rule]] = {
    "mean": Mean,
    "norm_clipped_mean": NormClippedMean,
    "coordinate_median": CoordinateMedian,
    "trimmed_mean": TrimmedMean,
    "krum": Krum,
    "multi_krum": MultiKrum,
    "centered_clipping": CenteredClipping,
}
"""Every rule by the name that ``aggregation`` of a method takes."""


def rule_of(named: str | Mapping[str, float]) -> Rule:
    """The rule of a name, or of a name and the value of its parameter.

    >>> rule_of("krum"), rule_of({"trimmed_mean": 0.1})
    (Krum(hostile=1), TrimmedMean(share=0.1))

    Raises:
        UserError: there is no such rule, or the value is none of its parameter.
    """
    pairs: Mapping[str, Any] = {str(named): None} if not isinstance(named, Mapping) else named
    if len(pairs) != 1 or not pairs.keys() <= RULES.keys():
        usages = ", ".join(_usage(name) for name in RULES if fields(RULES[name]))
        raise UserError(
            f"aggregation is {_said(named)}: choose one of {', '.join(RULES)}; with a value, one of {usages}"
        )
    ((name, value),) = pairs.items()
    build: Callable[..., Rule] = RULES[name]
    return build() if value is None else build(_parameter(name, value))


def _parameter(name: str, value: Any) -> float:
    """A value of a rule's parameter, checked for its kind; the rule checks its range."""
    parameters = fields(RULES[name])
    if not parameters:
        raise UserError(f"aggregation is {_said({name: value})}: {name} has no parameter; write {name}")
    default: Any = parameters[0].default
    kinds, said = ((int,), "a whole number") if isinstance(default, int) else ((int, float), "a number")
    if type(value) not in kinds:
        raise UserError(
            f"aggregation is {_said({name: value})}: {parameters[0].name} of {name} must be {said}, as in "
            f"{_said({name: default})}"
        )
    return type(default)(value)  # type: ignore[no-any-return]


def _said(named: object) -> str:
    """As a configuration has it."""
    if not isinstance(named, Mapping):
        return repr(named)
    return "{" + ", ".join(f"{name}: {value}" for name, value in named.items()) + "}"


def _usage(name: str) -> str:
    (parameter,) = fields(RULES[name])
    return _said({name: parameter.name.upper()})


def _text(rule: Rule) -> str:
    """As `rule_of` reads it."""
    name = next(name for name, kind in RULES.items() if kind is type(rule))
    values = [getattr(rule, parameter.name) for parameter in fields(rule)]
    return _said({name: values[0]}) if values else name


def _clipped(lengths: Tensor, radius: float) -> Tensor:
    """By what lengths (n,) are multiplied so that none is above a radius."""
    return torch.where(lengths > radius, radius / lengths, 1.0)


def _sum(rows: Tensor, shares: Sequence[float]) -> Tensor:
    found = torch.zeros_like(rows[0])
    for row, share in zip(rows, shares, strict=True):
        found.add_(row, alpha=share)
    return found
