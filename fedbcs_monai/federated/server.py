"""Aggregator: the server's round loop, from broadcast to aggregated state."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.history import History, Magnitude
from fedbcs_monai.federated.messages import Broadcast, Carry, State, Unreadable, Update
from fedbcs_monai.federated.method import Method, TensorSpec
from fedbcs_monai.federated.traffic import traffic
from fedbcs_monai.federated.validation import NUMBERS, Finding, examined
from fedbcs_monai.names import is_site_name, shortened
from fedbcs_monai.networks import Segmenter


class _Unlike(Exception):
    """Sites of a first round are far from the others, and their updates are in the sum already."""


@dataclass
class Aggregator:
    """The server's half of a federation.

    Args:
        method: what to ask and how to aggregate.
        state: where to begin; a saved state resumes.
        on_update: called with every received update, for progress and logs; its metrics include the `traffic`.
        refused: called with a site and the reason when its update is not accepted; the round continues with the others.
        repeated: called with the round that is asked for again, because in a first round nobody knows what is usual
            before all have answered, and then a site was far from it.
        private: weights that sites keep to themselves.
        payload: what sites may send besides the weights, of `Method.payload`.
        buffers: weights that are not trained.
        least: minimum number of accepted updates once one was refused.
        sites: who may answer; None: everyone the platform admits.
        history: of the updates so far.
    """

    method: Method
    state: State
    on_update: Callable[[Broadcast, Update], None] = lambda broadcast, update: None
    refused: Callable[[Broadcast, str, str], None] = lambda broadcast, site, reason: None
    repeated: Callable[[int, Sequence[str]], None] = lambda round, sites: None
    private: Set[str] = frozenset()
    payload: Mapping[str, TensorSpec] = field(default_factory=dict)
    buffers: Set[str] = frozenset()
    least: int = 1
    sites: Set[str] | None = None
    history: History = field(default_factory=History)

    def rounds(self, ask: Carry, until: int) -> Iterator[State]:
        """Run rounds until ``until`` of them are done, and yield the state after each.

        Raises:
            UserError: too few updates of a round can be accepted.
        """
        while self.state.round < until:
            try:
                self.state = self.method.round(self.state, partial(self._listening, ask, count()))
            except _Unlike as unlike:
                self.repeated(self.state.round + 1, unlike.args)
            else:
                yield self.state

    def evaluate(self, ask: Carry) -> Sequence[Update]:
        """Ask every site for its scores of the present weights."""
        return self.numbers(ask, Broadcast(self.state.round, self.state.weights, self.state.shared, "evaluate"))

    def numbers(self, ask: Carry, broadcast: Broadcast) -> Sequence[Update]:
        """Ask every site for numbers about some weights."""
        broadcast = replace(broadcast, refused=dict(self.history.refused))
        return list(self._accepted(broadcast, ask(broadcast)))

    def rejection_reason(self, broadcast: Broadcast, update: Update) -> str | None:
        """Why an update is refused; None if it is accepted."""
        return self._examined(broadcast, update).rejection_reason

    def _listening(self, ask: Carry, numbers: Iterator[int], broadcast: Broadcast) -> Iterator[Update]:
        broadcast = replace(broadcast, exchange=next(numbers), refused=dict(self.history.refused))
        for update in self._accepted(broadcast, ask(broadcast)):
            self.on_update(broadcast, replace(update, metrics={**update.metrics, **traffic(broadcast, update)}))
            yield update

    def _accepted(self, broadcast: Broadcast, answers: Iterable[Update | Unreadable]) -> Iterator[Update]:
        """The accepted updates, the first of each site.

        Raises:
            UserError: they are too few.
            _Unlike: what is usual became known only now, and an accepted update is far from it.
        """
        trained = broadcast.task not in NUMBERS
        accepted: dict[str, Mapping[str, Magnitude]] = {}
        reasons = []
        for answer in answers:
            found = self._examined(broadcast, answer)
            if isinstance(answer, Update) and found.rejection_reason is None and answer.site not in accepted:
                accepted[answer.site] = found.magnitudes
                self.history.accept(broadcast, answer, trained)
                yield answer
                continue
            reason, site = found.rejection_reason or "it has answered already", _site_of(answer)
            if trained and site not in accepted and is_site_name(site):
                self.history.refused[site] = broadcast.exchange_id
            reasons.append(f"{site} ({reason})")
            self.refused(broadcast, site, reason)
        if reasons and len(accepted) < self.least:
            raise UserError(
                f"round {broadcast.round}, {broadcast.task}: {len(accepted)} updates are accepted, "
                f"{self.least} must be; refused: {', '.join(reasons)}"
            )
        if trained and (unlike := self.history.learn(accepted)):
            self.history.refused |= dict.fromkeys(accepted, broadcast.exchange_id)  # all go back, and answer again
            raise _Unlike(*unlike)

    def _examined(self, broadcast: Broadcast, answer: Update | Unreadable) -> Finding:
        if not isinstance(answer, Update):
            return Finding(answer.reason if isinstance(answer, Unreadable) else "its answer is not an update", {})
        found = examined(broadcast, answer, self.private, self.payload, self.buffers)
        if found.rejection_reason is not None:
            return found
        if self.sites is not None and answer.site not in self.sites:
            return Finding("it is not a site of this federation", {})
        return found._replace(rejection_reason=self.history.rejection_reason(answer, found.magnitudes))


def aggregator_of(method: Method, network: Segmenter, state: State) -> Aggregator:
    """The server's half of a federation that trains a network, from a state on."""
    return Aggregator(
        method,
        state,
        private=method.private(network),
        payload=method.payload(network),
        buffers={name for name, _ in network.named_buffers()},
    )


def _site_of(answer: object) -> str:
    name = getattr(answer, "site", None)
    return name if isinstance(name, str) and is_site_name(name) else shortened(name)
