"""Aggregator: the round loop."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.guards import objection
from fedbcs_monai.federated.traffic import traffic
from fedbcs_monai.messages import Ask, Broadcast, State, Update
from fedbcs_monai.methods.base import Method, Parcel
from fedbcs_monai.networks import Segmenter


@dataclass
class Aggregator:
    """The server's half of a federation.

    Args:
        method: what to ask and how to aggregate.
        state: where to begin; a saved state resumes.
        heard: called with every update that comes in, for progress and logs; its metrics hold the `traffic` too.
        refused: called with a site and the reason when its update is not believed; the round goes on with the others.
        private: weights that sites keep to themselves.
        luggage: what sites may send besides the weights, of `Method.luggage`.
        least: once an update was refused, so many others must be believed.
    """

    method: Method
    state: State
    heard: Callable[[Broadcast, Update], None] = lambda broadcast, update: None
    refused: Callable[[Broadcast, str, str], None] = lambda broadcast, site, reason: None
    private: Set[str] = frozenset()
    luggage: Mapping[str, Parcel] = field(default_factory=dict)
    least: int = 1

    def rounds(self, ask: Ask, until: int) -> Iterator[State]:
        """Run rounds until ``until`` of them are done, and yield the state after each.

        Raises:
            UserError: too few updates of a round can be believed.
        """

        def listening(broadcast: Broadcast) -> Iterable[Update]:
            for update in self._believed(broadcast, ask(broadcast)):
                self.heard(broadcast, replace(update, metrics={**update.metrics, **traffic(broadcast, update)}))
                yield update

        while self.state.round < until:
            self.state = self.method.round(self.state, listening)
            yield self.state

    def evaluate(self, ask: Ask) -> Sequence[Update]:
        """Ask every site for its scores of the present weights."""
        return self.numbers(ask, Broadcast(self.state.round, self.state.weights, self.state.shared, "evaluate"))

    def numbers(self, ask: Ask, broadcast: Broadcast) -> Sequence[Update]:
        """Ask every site for numbers about some weights."""
        return list(self._believed(broadcast, ask(broadcast)))

    def objection(self, broadcast: Broadcast, update: Update) -> str | None:
        """Why an update is not to be believed; None if nothing speaks against it."""
        return objection(broadcast, update, self.private, self.luggage)

    def _believed(self, broadcast: Broadcast, updates: Iterable[Update]) -> Iterator[Update]:
        """The updates that nothing speaks against, the first of each site."""
        seen: set[str] = set()
        reasons = []
        for update in updates:
            reason = self.objection(broadcast, update)
            if reason is None and update.site in seen:
                reason = "it has answered already"
            if reason is None:
                seen.add(update.site)
                yield update
            else:
                reasons.append(f"{update.site} ({reason})")
                self.refused(broadcast, update.site, reason)
        if reasons and len(seen) < self.least:
            raise UserError(
                f"round {broadcast.round}, {broadcast.task}: {len(seen)} updates are believed, {self.least} must be; "
                f"refused: {', '.join(reasons)}"
            )


def aggregator_of(method: Method, network: Segmenter, state: State) -> Aggregator:
    """The server's half of a federation that trains a network, from a state on."""
    return Aggregator(method, state, private=method.private(network), luggage=method.luggage(network))
