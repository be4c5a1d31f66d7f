"""Aggregator: the round loop."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from fedbcs_monai.messages import Ask, Broadcast, State, Update
from fedbcs_monai.methods.base import Method


@dataclass
class Aggregator:
    """The server's half of a federation.

    Args:
        method: what to ask and how to aggregate.
        state: where to begin; a saved state resumes.
        heard: called with every update that comes in, for progress and logs.
    """

    method: Method
    state: State
    heard: Callable[[Broadcast, Update], None] = lambda broadcast, update: None

    def rounds(self, ask: Ask, until: int) -> Iterator[State]:
        """Run rounds until ``until`` of them are done, and yield the state after each."""

        def listening(broadcast: Broadcast) -> Iterable[Update]:
            for update in ask(broadcast):
                self.heard(broadcast, update)
                yield update

        while self.state.round < until:
            self.state = self.method.round(self.state, listening)
            yield self.state

    def evaluate(self, ask: Ask) -> Sequence[Update]:
        """Ask every site for its scores of the present weights."""
        return list(ask(Broadcast(self.state.round, self.state.weights, self.state.shared, "evaluate")))
