"""Messages: what server and sites exchange, named tensors and a few numbers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fedbcs_monai.tensors import Tensors


class ExchangeId(NamedTuple):
    """A point in a run: the number of the exchange within its round. Most methods have one per round."""

    round: int
    exchange: int


@dataclass(frozen=True)
class Broadcast:
    """From the server to every site.

    Args:
        round: the round that is asked for; the first is 1.
        weights: the global network.
        shared: the method's own payload, named by paths (``decoder/1`` is class 1 of the decoder half).
        task: what the site shall do: ``train``, ``evaluate``, or a function that a method names.
        exchange: the number of earlier questions of this round to the method.
        refused: from a site to the exchange of its last answer to the method, if the server refused it; the site then
            continues from its state before.
        selected: the round whose model is the best so far; 0: none is.
    """

    round: int
    weights: Tensors
    shared: Tensors
    task: str = "train"
    exchange: int = 0
    refused: Mapping[str, ExchangeId] = field(default_factory=dict)
    selected: int = 0

    @property
    def exchange_id(self) -> ExchangeId:
        """Its round and exchange."""
        return ExchangeId(self.round, self.exchange)


@dataclass(frozen=True)
class Update:
    """From one site to the server; nothing else leaves a site.

    Args:
        site: the site's name.
        cases: training samples behind this update (slices for MRI, images for histology).
        weights: the site's network after training; empty when nothing was trained.
        shared: the method's own payload.
        metrics: plain numbers: mean losses, scores, seconds.
    """

    site: str
    cases: int
    weights: Tensors
    shared: Tensors
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """The server's state after ``round`` rounds; all that its checkpoint holds."""

    round: int
    weights: Tensors
    shared: Tensors


@dataclass(frozen=True)
class Unreadable:
    """An answer that could not be read.

    Args:
        site: its site, if known.
        reason: what is wrong.
    """

    site: str
    reason: str


class RefusedError(Exception):
    """Why an answer is refused while it is read, as printable text."""


def read_or_refuse(site: str, read: Callable[[], Update]) -> Update | Unreadable:
    """Read an update lazily; an error while reading counts as the sender's."""
    try:
        return read()
    except RefusedError as error:
        return Unreadable(site, str(error))
    except Exception as error:
        return Unreadable(site, f"its answer cannot be read ({type(error).__name__})")


Carry = Callable[[Broadcast], Iterable[Update | Unreadable]]
"""Send a broadcast to the sites and return their raw answers, sorted by site name."""

Ask = Callable[[Broadcast], Iterable[Update]]
"""Send a broadcast to the sites and yield their updates one by one, sorted by site name."""
