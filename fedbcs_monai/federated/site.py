"""Site: local training and local evaluation on the data of one site."""

import hashlib
import math
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.optim import Optimizer

from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.federated.method import Batch, ClientContext, Method
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.ood.distance import QUESTIONS, style_answer
from fedbcs_monai.tensors import Tensors, detached, prefixed, under


class Aborted(RuntimeError):
    """A training was aborted."""


def seed_of(*parts: object) -> int:
    """A 63-bit seed that depends on every part.

    >>> seed_of(0, 1, "Alder") == seed_of(0, 1, "Alder") != seed_of(0, 1, "Birch")
    True
    """
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:8], "big") >> 1


@dataclass
class Site:
    """One hospital: its data, its optimizer, and what it keeps to itself between rounds.

    In one process several sites may share one network: every answer loads its weights again, and the optimizer's state
    waits on the CPU, so that a device holds one network and one optimizer whatever the number of sites.

    Args:
        name: unique among the sites.
        network: computed on; its weights between answers mean nothing.
        batches: from a seed to one epoch of batches.
        cases: number of training samples, the site's weight in a mean.
        criterion: logits (B, K, *) and label (B, 1, *) to a scalar.
        optimizer: from parameters to an optimizer.
        scores: from the network to plain numbers, the site's scores.
        schedule: sets the optimizer's learning rate to that of a round, the first of which is 1.
        styles: from the network to how the site's cases look to it, (N, D); of no cases where `ood` is off.
        epochs: local epochs per round.
        steps: optimizer steps per round, for progress; 0: not known.
        seed: of the run.
        reset_optimizer: forget the optimizer's state after every round.
        compute: device and precision.
        on_step: called after every training step with the number of steps of this round, for progress.
        memory: what the method keeps here between rounds.
        private: tensors of the network that never leave.
        moments: the optimizer's state.
    """

    name: str
    network: Segmenter
    batches: Callable[[int], Iterable[Batch]]
    cases: int
    criterion: Callable[[Tensor, Tensor], Tensor]
    optimizer: Callable[[Iterable[Tensor]], Optimizer]
    scores: Callable[[Segmenter], Mapping[str, float]]
    schedule: Callable[[Optimizer, int], None] = lambda optimizer, round: None
    styles: Callable[[Segmenter], Tensor] = lambda network: torch.zeros(0, 1)
    epochs: int = 1
    steps: int = 0
    seed: int = 0
    reset_optimizer: bool = False
    compute: Compute = field(default_factory=lambda: Compute("cpu"))
    on_step: Callable[[int], None] = lambda steps: None
    memory: dict[str, Tensor] = field(default_factory=dict)
    private: dict[str, Tensor] = field(default_factory=dict)
    moments: dict[str, Tensor] = field(default_factory=dict)
    _aborted: bool = field(default=False, init=False, repr=False)

    def answer(self, method: Method, received: Broadcast) -> Update:
        """Carry out the broadcast's task: ``evaluate``, one of `QUESTIONS`, or the method's function of that name.

        Raises:
            Aborted: a training was called off.
        """
        if received.task == "evaluate":
            return Update(self.name, self.cases, {}, {}, plain_numbers(self.evaluate(received.weights)))
        if received.task in QUESTIONS:
            with self.using(received.weights) as network:
                styles = self.styles(network)
            tensors, numbers = style_answer(received.task, styles, received.shared)
            return Update(self.name, self.cases, {}, detached(tensors), plain_numbers(numbers))
        if received.task not in method.tasks:
            raise ValueError(f"asked for {received.task!r}: {type(method).__name__} knows {', '.join(method.tasks)}")
        started, self._aborted = time.perf_counter(), False
        torch.manual_seed(seed_of(self.seed, received.round, self.name))
        self.network.load_state_dict({**received.weights, **self.private})
        self.network.train()
        optimizer = self.optimizer(self.network.parameters())
        self.schedule(optimizer, received.round)
        restore_moments(optimizer, self.moments)
        client = ClientContext(
            network=self.network,
            optimizer=optimizer,
            criterion=self.criterion,
            batches=lambda epoch: self._heard(
                seed_of(self.seed, received.round, self.name, epoch), lambda: alive.steps
            ),
            epochs=self.epochs,
            received=received,
            memory=self.memory,
            autocast=self.compute.autocast,
            scaler=self.compute.scaler(),
            site=self.name,
        )
        alive = weakref.proxy(client)  # not a cycle, in which all that was received would wait to be collected
        shared = detached(getattr(method, received.task)(client))
        weights = detached(self.network.state_dict())
        self.private = {name: weights.pop(name) for name in sorted(method.private(self.network))}
        self.moments = {} if self.reset_optimizer else moments_of(optimizer)
        metrics = {name: float(total) / max(client.steps, 1) for name, total in client.terms.items()}
        metrics["seconds"] = time.perf_counter() - started
        return Update(self.name, self.cases, weights, shared, plain_numbers(metrics))

    def evaluate(self, weights: Tensors) -> dict[str, float]:
        """The site's scores of some weights, under its private tensors."""
        with self.using(weights) as network:
            return dict(self.scores(network))

    def state(self) -> dict[str, Tensor]:
        """Everything this site needs to resume later."""
        kept = {"memory": self.memory, "private": self.private, "moments": self.moments}
        return {name: tensor for kind, tensors in kept.items() for name, tensor in prefixed(kind, tensors).items()}

    def restore(self, state: Tensors) -> None:
        """Restore what `state` returned."""
        self.memory = under("memory", state)
        self.private = under("private", state)
        self.moments = under("moments", state)

    def abort(self) -> None:
        """End a running training after its present step, with `Aborted`."""
        self._aborted = True

    @contextmanager
    def using(self, weights: Tensors) -> Iterator[Segmenter]:
        """The network with some weights under the site's private tensors, in evaluation mode."""
        self.network.load_state_dict({**weights, **self.private})
        self.network.eval()
        with self.compute.inference():
            yield self.network

    def _heard(self, seed: int, steps: Callable[[], int]) -> Iterator[Batch]:
        for batch in self.batches(seed):
            yield self.compute.batch(batch)
            self.on_step(steps())
            if self._aborted:
                raise Aborted(f"training at {self.name} was aborted after {steps()} steps")


def plain_numbers(numbers: Mapping[str, float]) -> dict[str, float]:
    """Numbers as a server takes them; one that is not finite, as a loss in half precision may be, is left out."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def moments_of(optimizer: Optimizer) -> dict[str, Tensor]:
    """An optimizer's state as named tensors on the CPU: ``3/exp_avg`` is that of its fourth parameter."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}/{name}": torch.as_tensor(value).detach().cpu()
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def restore_moments(optimizer: Optimizer, moments: Tensors) -> None:
    """Give an optimizer the state that `moments_of` took."""
    if not moments:
        return
    state: dict[int, dict[str, Tensor]] = {}
    for path, tensor in moments.items():
        index, name = path.split("/")
        state.setdefault(int(index), {})[name] = tensor.clone()  # the optimizer writes into what it is given
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
