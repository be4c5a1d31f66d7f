"""Method and ClientContext: the interface that every federated method implements."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple

import torch
from monai.networks.utils import eval_mode
from torch import Tensor
from torch.optim import Optimizer

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregation import Part, rule_of
from fedbcs_monai.federated.messages import Ask, Broadcast, State, Update
from fedbcs_monai.networks import Features, Segmenter, feature_channels, feature_layer
from fedbcs_monai.prototypes.pooling import LabelledMap
from fedbcs_monai.tensors import Tensors

Batch = dict[str, Tensor]
"""``image`` (B, C, H, W[, D]) float and ``label`` (B, 1, H, W[, D]) integer class numbers, on the network's device."""

WEIGHTINGS = ("cases", "equal")


class TensorSpec(NamedTuple):
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
class ClientContext:
    """One round at one site: all that a method may read and change there.

    Args:
        network: the network, with the received weights loaded.
        optimizer: over the network's parameters, with the site's state of the round before.
        criterion: logits (B, K, *) and label (B, 1, *) to a scalar.
        batches: from the number of an epoch to that epoch's batches.
        epochs: local epochs per round.
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
        """The network's features of a batch."""
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
        """Add to the sum of a loss term, and return the value."""
        self.terms[term] = self.terms.get(term, torch.zeros((), device=value.device)) + value.detach().float()
        return value

    def here(self, tensors: Tensors) -> dict[str, Tensor]:
        """Received or kept tensors, on the network's device."""
        return {name: tensor.to(self.device) for name, tensor in tensors.items()}


@dataclass(frozen=True)
class Method:
    """Client and server steps of a federated method; the defaults are federated averaging.

    Args:
        weighting: a site's weight in the mean: its ``cases`` (the default), or ``equal`` weights.
        aggregation: the rule that makes one network of the sites': the weighted ``mean`` (the default),
            ``norm_clipped_mean``, ``coordinate_median``, ``trimmed_mean``, ``krum``, ``multi_krum`` or
            ``centered_clipping``; with a value as ``{trimmed_mean: SHARE}``, ``{krum: HOSTILE}``,
            ``{multi_krum: HOSTILE}`` and ``{centered_clipping: RADIUS}`` (docs/concepts/robustness.md).
    """

    weighting: str = "cases"
    aggregation: str | Mapping[str, float] = field(default="mean", kw_only=True)

    tasks: ClassVar[tuple[str, ...]] = ("train",)
    """What a server may ask of a site: functions of `ClientContext` that return named tensors."""

    network_layers: ClassVar[Mapping[str, Any]] = {"norm": "group"}
    """Arguments of `build_segmenter` that the method brings where it is named and the configuration does not set them.

    Those of a class win over those of its bases, argument by argument.
    """

    def __post_init__(self) -> None:
        """Check the fields."""
        choose("weighting", self.weighting, WEIGHTINGS)
        rule_of(self.aggregation)

    # At a site.

    def on_round_start(self, client: ClientContext) -> None:
        """Before the first step of a round."""

    def loss(self, client: ClientContext, batch: Batch) -> Tensor:
        """The loss of one batch, a scalar."""
        with client.autocast():
            logits = client.network(batch["image"])
        return client.segmentation(logits, batch)

    def modify_gradients(self, client: ClientContext) -> None:
        """Between backward and step: change gradients."""

    def step(self, client: ClientContext, batch: Batch) -> None:
        """One optimizer step."""
        client.optimizer.zero_grad()
        loss = client.record("loss", self.loss(client, batch))
        client.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        client.scaler.unscale_(client.optimizer)
        self.modify_gradients(client)
        client.scaler.step(client.optimizer)
        client.scaler.update()
        client.steps += 1

    def train(self, client: ClientContext) -> Tensors:
        """One round: epochs of steps; returns what `client_payload` sends."""
        self.on_round_start(client)
        for epoch in range(client.epochs):
            client.epoch = epoch
            for batch in client.batches(epoch):
                self.step(client, batch)
        return self.client_payload(client)

    def client_payload(self, client: ClientContext) -> Tensors:
        """After the last step: what to send besides the weights."""
        return {}

    def private(self, network: Segmenter) -> set[str]:
        """Names of the tensors that never leave a site."""
        return set()

    def payload(self, network: Segmenter) -> dict[str, TensorSpec]:
        """Everything a site may send besides the weights, by name; the server accepts nothing else."""
        return {}

    # At the server.

    def round(self, state: State, ask: Ask) -> State:
        """One round: ask every site to train, then aggregate."""
        return self.aggregate(state, ask(Broadcast(state.round + 1, state.weights, state.shared)))

    def aggregate(self, state: State, updates: Iterable[Update]) -> State:
        """Aggregate the weights by the rule ``aggregation``, and the rest by `aggregate_payload`.

        For the mean, updates are taken one at a time and their weights are let go at once, so that memory does not
        grow with the number of sites; every other rule holds all of them.
        """
        light: list[Update] = []

        def parts() -> Iterable[Part]:
            for update in updates:
                light.append(replace(update, weights={}))
                yield Part(update.site, update.weights, update.cases if self.weighting == "cases" else 1)

        weights = rule_of(self.aggregation)(state.weights, parts())
        return State(state.round + 1, {**state.weights, **weights}, self.aggregate_payload(state, light))

    def aggregate_payload(self, state: State, updates: Sequence[Update]) -> Tensors:
        """The payload of the next broadcast, from the sites' payload; ``updates`` come without weights."""
        return {}


def labelled(features: Features, batch: Batch, where: str) -> LabelledMap:
    """A `feature_layer` of a network with the label of its batch."""
    return LabelledMap(feature_layer(features, where), batch["label"], features.logits.shape[1])


def class_vectors(network: Segmenter, where: str, *rows: int) -> dict[str, TensorSpec]:
    """Payload of one vector of a `feature_layer` for each class, (D,), or after ``rows`` of a matrix of them."""
    return {str(c): TensorSpec((*rows, feature_channels(network, where))) for c in range(network.classes)}


def choose(name: str, value: str, choices: Sequence[str]) -> None:
    """Refuse a value that is not among the choices."""
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
