"""OOD distance: how far a case lies from the cases of each training site.

A case is a vector (D,), its style. Its deviation from a site is the Mahalanobis distance to the mean of the site's
cases, divided by the root of D; the covariance is that within sites, pooled over them (Lee et al., NeurIPS 2018). A
site's own cases, each compared with all others, show how large a deviation is usual. The distance is the number of
standard deviations from that usual deviation.

Sites have few cases. So the covariance and the spread of the usual deviations are pooled, the covariance is shrunk
towards its diagonal, and a case that is compared with the others is taken out of mean and covariance. A site with fewer
than `MIN_CASES` cases sends nothing: mean and covariance of two would reveal both.
"""

import math
from collections.abc import Mapping
from statistics import mode
from typing import NamedTuple

import torch
from torch import Tensor

from fedbcs_monai.tensors import Tensors

QUESTIONS = STYLES, DISTANCES = "styles", "distances"
"""The two questions to the sites: what their cases look like, and how far these lie from each other."""

MIN_CASES = 3
"""A site with fewer cases sends nothing about them."""

UNLIKE_SD = 3.0
"""A case farther than this from every site is out of distribution."""

SHRINKAGE = 0.1
"""Share of its diagonal in a covariance."""

FLOOR = 1e-6
"""Share of the mean variance that is added to every channel, so that one that hardly varies does not dominate."""


class StyleAnswer(NamedTuple):
    """A site's answer: tensors and plain numbers, by name."""

    tensors: Tensors
    numbers: Mapping[str, float]


class SiteStyle(NamedTuple):
    """What the cases of one site look like to a network.

    Fields:
        mean: of its cases, (D,).
        covariance: within sites, (D, D).
        usual: the mean deviation of its own cases, each from all others.
        spread: the standard deviation of these.
    """

    mean: Tensor
    covariance: Tensor
    usual: float
    spread: float

    def distance_sd(self, style: Tensor) -> float:
        """How far a case (D,) is from what is usual at the site; below 0 it is nearer than most of its own cases."""
        return (deviation(style, self.mean, self.covariance) - self.usual) / max(self.spread, FLOOR)


def deviation(style: Tensor, mean: Tensor, covariance: Tensor) -> float:
    """The Mahalanobis distance of a vector (D,), with a shrunk covariance (D, D), over the root of D."""
    full, away = covariance.double(), style.double() - mean.double()
    variance = full.diagonal()
    floor = (FLOOR * variance.mean()).clamp_min(torch.finfo(torch.float32).tiny)
    shrunk = (1 - SHRINKAGE) * full + torch.diag(SHRINKAGE * variance + floor)
    return float((away @ torch.linalg.solve(shrunk, away) / len(away)).clamp_min(0).sqrt())


# At a site.


def style_answer(question: str, styles: Tensor, sent: Tensors) -> StyleAnswer:
    """A site's answer to one of `QUESTIONS`; nothing if it has fewer than `MIN_CASES` cases.

    Args:
        question: what is asked.
        styles: of the site's cases, (N, D).
        sent: with the second question the pooled ``covariance`` and its ``freedom``; without them the site's own are
            meant.
    """
    count = len(styles)
    if count < MIN_CASES:
        return StyleAnswer({}, {})
    covariance, mean = styles.T.cov().reshape(2 * styles.shape[1:]), styles.mean(0)
    if question == STYLES:
        return StyleAnswer({"mean": mean, "covariance": covariance}, {"cases": count})
    degrees = float(sent.get("freedom", count - 1))
    usual = torch.tensor(
        [_from_others(style, mean, count, sent.get("covariance", covariance), degrees) for style in styles]
    )
    return StyleAnswer({}, {"cases": count, "usual": float(usual.mean()), "usual_variance": float(usual.var())})


def _from_others(style: Tensor, mean: Tensor, count: int, covariance: Tensor, freedom: float) -> float:
    """The deviation of a site's own case from the others, which it is taken out of."""
    away = style - mean
    without = (freedom * covariance - count / (count - 1) * away.outer(away)) / (freedom - 1)
    return deviation(style, mean - away / (count - 1), without)


# At the server.


def complete(question: str, answers: Mapping[str, StyleAnswer]) -> dict[str, StyleAnswer]:
    """The complete answers, with vectors as long as those of most sites."""
    tensors, numbers = (
        ({"mean", "covariance"}, {"cases"}) if question == STYLES else (set(), {"cases", "usual", "usual_variance"})
    )
    found = {
        site: answer
        for site, answer in answers.items()
        if answer.tensors.keys() == tensors
        and numbers <= answer.numbers.keys()
        and all(math.isfinite(answer.numbers[name]) for name in numbers)
        and answer.numbers["cases"] >= MIN_CASES
    }
    sizes = [len(answer.tensors["mean"]) for answer in found.values() if answer.tensors]
    return {
        s: answer for s, answer in found.items() if all(set(t.shape) == {mode(sizes)} for t in answer.tensors.values())
    }


def pooled(variances: Mapping[str, Tensor], answers: Mapping[str, StyleAnswer]) -> Tensor:
    """Pool the sites' variances or covariances, weighted by their degrees of freedom."""
    weighted = torch.stack([(answers[site].numbers["cases"] - 1) * variance for site, variance in variances.items()])
    return weighted.sum(0) / freedom(answers)


def freedom(answers: Mapping[str, StyleAnswer]) -> float:
    """The degrees of freedom of the pooled variance: the number of cases minus the number of sites."""
    return sum(of_site.numbers["cases"] - 1 for of_site in answers.values())


def within(first: Mapping[str, StyleAnswer]) -> dict[str, Tensor]:
    """The tensors sent with the second question: the ``covariance`` within sites, (D, D), and its ``freedom``."""
    covariance = pooled({site: answer.tensors["covariance"] for site, answer in first.items()}, first)
    return {"covariance": covariance, "freedom": torch.tensor(freedom(first))}


def site_styles(
    first: Mapping[str, StyleAnswer], second: Mapping[str, StyleAnswer], alone: bool = False
) -> dict[str, SiteStyle]:
    """The sites that have answered both questions.

    Args:
        first: the sites' answers about their cases.
        second: their answers about the distances between these.
        alone: whether nothing is pooled, because every site sees its cases with a network of its own.
    """
    sites = sorted(first.keys() & second.keys())
    variances = {site: torch.tensor(second[site].numbers["usual_variance"]) for site in sites}
    if sites and not alone:
        variances = dict.fromkeys(sites, pooled(variances, {site: second[site] for site in sites}))
    together = None if alone or not first else within(first)["covariance"]
    return {
        site: SiteStyle(
            first[site].tensors["mean"],
            first[site].tensors["covariance"] if together is None else together,
            second[site].numbers["usual"],
            float(variances[site].sqrt()),
        )
        for site in sites
    }


# For a new case.


def distances(sites: Mapping[str, SiteStyle], style: Tensor) -> dict[str, float]:
    """The distance of a case (D,) to every site in standard deviations, the nearest site first."""
    found = {site: of_site.distance_sd(style) for site, of_site in sites.items()}
    return dict(sorted(found.items(), key=lambda item: item[1]))
