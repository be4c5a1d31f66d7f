"""What sites and server say to each other: named tensors and a few numbers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from fedbcs_monai.tensors import Tensors


@dataclass(frozen=True)
class Broadcast:
    """From the server to every site.

    Args:
        round: the round that is asked for; the first is 1.
        weights: the global network.
        shared: the method's own luggage, named by paths (``decoder/1`` is class 1 of the decoder half).
        task: what the site shall do: ``train``, ``evaluate``, or a function that a method names.
    """

    round: int
    weights: Tensors
    shared: Tensors
    task: str = "train"


@dataclass(frozen=True)
class Update:
    """From one site to the server; nothing else leaves a site.

    Args:
        site: the site's name.
        cases: training samples behind this update (slices for MRI, images for histology).
        weights: the site's network after training; empty when nothing was trained.
        shared: the method's own luggage.
        metrics: plain numbers: mean losses, scores, seconds.
    """

    site: str
    cases: int
    weights: Tensors
    shared: Tensors
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """The server between two rounds: after ``round`` rounds. A server's checkpoint is this and no more."""

    round: int
    weights: Tensors
    shared: Tensors


Ask = Callable[[Broadcast], Iterable[Update]]
"""Carry a broadcast to the sites and bring their updates back one by one, sorted by site name."""
