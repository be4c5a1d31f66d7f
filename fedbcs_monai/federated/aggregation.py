"""Aggregation: rules by which the server combines the weights of the sites."""

from collections.abc import Callable, Iterable, Mapping

from fedbcs_monai.tensors import Tensors, mean

Rule = Callable[[Iterable[tuple[Tensors, float]]], Tensors]
"""From the sites' tensors, one at a time, each with its weight, to those of the global network."""

RULES: Mapping[str, Rule] = {
    "mean": mean,  # weighted (McMahan et al., AISTATS 2017)
}
"""Every rule by the name that ``aggregation`` of a method takes."""
