"""Method and Local: the interface that every federated method fills in."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from monai.networks.utils import eval_mode
from torch import Tensor
from torch.optim import Optimizer

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregation import RULES
from fedbcs_monai.federated.messages import Ask, Broadcast, State, Update
from fedbcs_monai.networks import Features, Segmenter, tap, tap_channels
from fedbcs_monai.prototypes.pooling import LabelledMap
from fedbcs_monai.tensors import Tensors

Batch = dict[str, Tensor]
"""``image`` (B, C, H, W[, D]) float and ``label`` (B, 1, H, W[, D]) integer class numbers, on the network's device."""

WEIGHTINGS = ("cases", "equal")


class Parcel(NamedTuple):
    """A tensor that a site may send besides the weights.

    Args:
        shape: with -1 for any number.
        needed: whether every site sends it. What belongs to a class is not: a site without the class has none.
        dtype: of its numbers.
    """

    shape: tuple[int, ...]
    needed: bool = False
    dtype: torch.dtype = torch.float32


@dataclass
class Local:
    """One round at one site: all that a method may read and change there.

    Args:
        network: the network, with the received weights loaded.
        optimizer: over the network's parameters, with the site's state of the round before.
        criterion: logits (B, K, *) and label (B, 1, *) to a scalar.
        batches: from the number of an epoch to that epoch's batches.
        epochs: local epochs a round.
        received: what the server sent.
        memory: the site's own tensors, kept for its next round and never sent.
        autocast: the context in which networks run (mixed precision).
        scaler: scales the loss in half precision; does nothing otherwise.
        scratch: anything; gone when the round ends.
        epoch: the epoch under way, from 0.
        terms: sums of the loss terms that `record` was given, for progress and logs.
        steps: optimizer steps so far.
        site: the site's name.
    """

    network: Segmenter
    optimizer: Optimizer
    criterion: Callable[[Tensor, Tensor], Tensor]
    batches: Callable[[int], Iterable[Batch]]
    epochs: int
    received: Broadcast
    memory: dict[str, Tensor] = field(default_factory=dict)
    autocast: Callable[[], AbstractContextManager[None]] = nullcontext
    scaler: torch.amp.GradScaler = field(default_factory=lambda: torch.amp.GradScaler(enabled=False))
    scratch: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    terms: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0
    site: str = ""

    @property
    def device(self) -> torch.device:
        """Where the network is, and the batches."""
        return next(self.network.parameters()).device

    @property
    def last_epoch(self) -> bool:
        """Whether the epoch under way is the round's last."""
        return self.epoch == self.epochs - 1

    def features(self, batch: Batch) -> Features:
        """What the network makes of a batch."""
        with self.autocast():
            return self.network.features(batch["image"])

    @torch.no_grad()
    def survey(self, epoch: int) -> Iterator[tuple[Features, Batch]]:
        """The features of one epoch's batches in evaluation mode; nothing is trained."""
        with eval_mode(self.network):
            for batch in self.batches(epoch):
                yield self.features(batch), batch

    def segmentation(self, logits: Tensor, batch: Batch) -> Tensor:
        """The segmentation loss of a batch, a scalar, recorded."""
        return self.record("segmentation", self.criterion(logits.float(), batch["label"]))

    def record(self, term: str, value: Tensor) -> Tensor:
        """Add to the sum of a loss term, and hand the value back."""
        self.terms[term] = self.terms.get(term, torch.zeros((), device=value.device)) + value.detach().float()
        return value

    def here(self, tensors: Tensors) -> dict[str, Tensor]:
        """Tensors that were received or kept, on the network's device."""
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Method:
    """What happens at a site and what happens at the server; the defaults are federated averaging.

    Args:
        weighting: a site's weight in the mean: its ``cases`` (the default), or ``equal`` weights.
        aggregation: the rule that makes one network of the sites': one of `RULES`. ``mean`` is the weighted mean.
    """

    weighting: str = "cases"
    aggregation: str = field(default="mean", kw_only=True)

    tasks: ClassVar[tuple[str, ...]] = ("train",)
    """What a server may ask of a site: functions of `Local` that return named tensors."""

    network_layers: ClassVar[Mapping[str, Any]] = {"norm": "group"}
    """Arguments of `build_segmenter` that the method brings where it is named and the configuration does not set them.

    Those of a class win over those of its bases, argument by argument.
    """

    def __post_init__(self) -> None:
        """Check the fields."""
        choose("weighting", self.weighting, WEIGHTINGS)
        choose("aggregation", self.aggregation, tuple(RULES))

    # At a site.

    def begin(self, local: Local) -> None:
        """Before the first step of a round."""

    def loss(self, local: Local, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar."""
        with local.autocast():
            logits = local.network(batch["image"])
        return local.segmentation(logits, batch)

    def correct(self, local: Local) -> None:
        """Between backward and step: change gradients."""

    def step(self, local: Local, batch: Batch) -> None:
        """One optimizer step."""
        local.optimizer.zero_grad()
        loss = local.record("loss", self.loss(local, batch))
        local.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        local.scaler.unscale_(local.optimizer)
        self.correct(local)
        local.scaler.step(local.optimizer)
        local.scaler.update()
        local.steps += 1

    def train(self, local: Local) -> Tensors:
        """One round: epochs of steps; returns what `finish` sends."""
        self.begin(local)
        for epoch in range(local.epochs):
            local.epoch = epoch
            for batch in local.batches(epoch):
                self.step(local, batch)
        return self.finish(local)

    def finish(self, local: Local) -> Tensors:
        """After the last step: what to send besides the weights."""
        return {}

    def private(self, network: Segmenter) -> set[str]:
        """Names of the tensors that never leave a site."""
        return set()

    def luggage(self, network: Segmenter) -> dict[str, Parcel]:
        """All that a site may send besides the weights, by name: a server believes nothing else."""
        return {}

    # At the server.

    def round(self, state: State, ask: Ask) -> State:
        """One round: ask every site to train, then aggregate."""
        return self.aggregate(state, ask(Broadcast(state.round + 1, state.weights, state.shared)))

    def aggregate(self, state: State, updates: Iterable[Update]) -> State:
        """One network of the sites' by the rule ``aggregation``, and `share` of the rest.

        Updates are taken one at a time and their weights are let go at once, so that memory does not grow with the
        number of sites.
        """
        light: list[Update] = []

        def parts() -> Iterable[tuple[Tensors, float]]:
            for update in updates:
                light.append(replace(update, weights={}))
                yield update.weights, update.cases if self.weighting == "cases" else 1

        weights = RULES[self.aggregation](parts())
        return State(state.round + 1, {**state.weights, **weights}, self.share(state, light))

    def share(self, state: State, updates: Sequence[Update]) -> Tensors:
        """The luggage of the next broadcast, from the sites' luggage; ``updates`` come without weights."""
        return {}


def labelled(features: Features, batch: Batch, where: str) -> LabelledMap:
    """A `tap` of a network with the label of its batch."""
    return LabelledMap(tap(features, where), batch["label"], features.logits.shape[1])


def vectors_of_classes(network: Segmenter, where: str, *rows: int) -> dict[str, Parcel]:
    """Luggage of one vector of a `tap` for each class, (D,), or after ``rows`` of a matrix of them."""
    return {str(c): Parcel((*rows, tap_channels(network, where))) for c in range(network.classes)}


def choose(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is none of the choices."""
    if value not in choices:
        raise UserError(f"{name} is {value!r}: choose one of {', '.join(choices)}")


def not_negative(name: str, value: float) -> None:
    """Refuse a value below 0."""
    if not value >= 0:
        raise UserError(f"{name} is {value}: it must be 0 or more")


def positive(name: str, value: float) -> None:
    """Refuse a value that is not above 0."""
    if not value > 0:
        raise UserError(f"{name} is {value}: it must be more than 0")
