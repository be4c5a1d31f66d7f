"""ClientSession: a site over the course of a training, whichever backend carries its messages."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedbcs_monai.federated.client_store import ClientStore
from fedbcs_monai.federated.messages import Broadcast, ExchangeId, Update
from fedbcs_monai.federated.method import Method
from fedbcs_monai.federated.site import Site
from fedbcs_monai.federated.validation import NUMBERS
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.tensors import Tensors

SCORES = CaseScore._fields[1:]
"""What a test case is scored with."""


@dataclass
class ClientSession:
    """One site of a federation: answers every `Broadcast` with an `Update`, and goes back where the server does.

    A backend only carries the two. An answer starts from the state before its question. So with a store, a repeated
    question has the same answer, and one that fails or is aborted leaves nothing behind.

    Args:
        method: what runs.
        site: trains and evaluates; without training cases it only tests.
        cases: the number of its cases in each part.
        tests: from the network to the scores of its test cases.
        store: keeps the site's state on its disk; None: only in memory, and only the state before the last answer.
        case_scores: whether to send the scores of single test cases, without names, besides their means.
    """

    method: Method
    site: Site
    cases: Mapping[str, int] = field(default_factory=dict)
    tests: Callable[[Segmenter], Sequence[CaseScore]] = lambda network: ()
    store: ClientStore | None = None
    case_scores: bool = False
    _loaded: ExchangeId | None = field(default=None, init=False, repr=False)  # whose state of the store the site has
    _before: Tensors = field(default_factory=dict, init=False, repr=False)  # the site's state before its last answer
    _answered: ExchangeId | None = field(default=None, init=False, repr=False)

    def answer(self, broadcast: Broadcast) -> Update:
        """Carry out a broadcast's task: one of `NUMBERS`, or the method's function of that name.

        ``test`` asks for the mean scores of the test cases, ``describe`` only for the number of cases in each part,
        which the answer to both holds; the others are those of `Site.answer`.

        Raises:
            Aborted: it was called off; the site is as it was before.
        """
        self.go_back(broadcast.refused)
        self._load_before(ExchangeId(broadcast.round + 1, 0) if broadcast.task in NUMBERS else broadcast.exchange_id)
        if broadcast.task in ("test", "describe"):
            return self._described(self._tested(broadcast.weights) if broadcast.task == "test" else {})
        if broadcast.task in NUMBERS:
            return self.site.answer(self.method, broadcast)
        return self._trained(broadcast)

    def go_back(self, refused: Mapping[str, ExchangeId]) -> None:
        """If the server refused the last answer, restore the site's state before it."""
        exchange_id = refused.get(self.site.name)
        if exchange_id is not None and exchange_id == self._answered:
            self.restore(self._before)
        if exchange_id is not None and self.store:
            self.store.forget(exchange_id)

    def state(self) -> dict[str, Tensor]:
        """Everything the site needs to resume later."""
        return self.site.state()

    def restore(self, state: Tensors) -> None:
        """Restore what `state` returned."""
        self.site.restore(state)
        self._before, self._answered = {}, None

    def _load_before(self, exchange_id: ExchangeId) -> None:
        """With a store, restore the site's state before an exchange."""
        if self.store and (wanted := self.store.before(exchange_id)) != self._loaded:
            self.restore(self.store.read(wanted))
            self._loaded = wanted

    def _trained(self, broadcast: Broadcast) -> Update:
        self._before, self._answered = self.state(), broadcast.exchange_id
        try:
            update = self.site.answer(self.method, broadcast)
        except BaseException:
            self.restore(self._before)
            raise
        if self.store:
            self.store.write(broadcast.exchange_id, self.state(), broadcast.selected)
            self._loaded = broadcast.exchange_id
        return update

    def _described(self, scores: Tensors) -> Update:
        counts = {f"{part}_cases": float(count) for part, count in self.cases.items()}
        means = {name: float(column.mean()) for name, column in scores.items()}
        return Update(self.site.name, self.site.cases, {}, scores if self.case_scores else {}, {**counts, **means})

    def _tested(self, weights: Tensors) -> dict[str, Tensor]:
        """The test cases' scores, (cases,) each; a score that these cases do not have, as a distance, is absent."""
        with self.site.using(weights) as network:
            scores = self.tests(network)
        columns = {name: torch.tensor([getattr(s, name) for s in scores], dtype=torch.float64) for name in SCORES}
        return {name: column for name, column in columns.items() if scores and bool(column.isfinite().all())}
