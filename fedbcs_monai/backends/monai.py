"""MONAI backend: a site as `ClientAlgo`, and a server that takes and returns `ExchangeObject`s."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.fl.client import ClientAlgo
from monai.fl.utils.constants import ExtraItems, FlStatistics, WeightType
from monai.fl.utils.exchange_object import ExchangeObject

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.federated.messages import Broadcast, ExchangeId, Unreadable, Update, read_or_refuse
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.federated.site import Site
from fedbcs_monai.federated.validation import NUMBERS
from fedbcs_monai.ood.distance import SiteStyle
from fedbcs_monai.ood.exchange import learn_site_styles
from fedbcs_monai.runs.process import prepare_training, use_threads
from fedbcs_monai.runs.setup import set_up_server, set_up_site
from fedbcs_monai.tensors import Tensors


def tensors_of(values: Mapping[str, Any]) -> Tensors:
    """Arrays of numpy as tensors of the same numbers; anything else as it is."""
    return {
        name: torch.from_numpy(np.array(value)) if isinstance(value, np.ndarray | np.generic) else value
        for name, value in values.items()
    }


def weights_of(exchange: ExchangeObject, base: Tensors | None = None) -> Tensors:
    """The weights in an exchange object as tensors, whole: MONAI's own clients send arrays, and differences.

    Args:
        exchange: with weights as tensors or as arrays of numpy.
        base: what a difference is added to.

    Raises:
        UserError: a difference from weights that are not known.
    """
    weights = tensors_of(exchange.weights or {})
    if exchange.weight_type != WeightType.WEIGHT_DIFF or not weights:
        return weights
    if base is None:
        raise UserError(f"the server sent {WeightType.WEIGHT_DIFF}: have it send whole weights, {WeightType.WEIGHTS}")
    if unknown := weights.keys() - base.keys():
        raise UserError(f"a difference of weights came for {', '.join(sorted(unknown)[:3])}, which were not sent out")
    return {name: base[name] + difference for name, difference in weights.items()}


def pack_broadcast(broadcast: Broadcast) -> ExchangeObject:
    """A broadcast as an exchange object; what MONAI has no field for is stored in its dictionary."""
    exchange = ExchangeObject(weights=dict(broadcast.weights), weight_type=WeightType.WEIGHTS)
    exchange |= {"round": broadcast.round, "task": broadcast.task, "shared": dict(broadcast.shared)}
    exchange |= {"exchange": broadcast.exchange, "refused": dict(broadcast.refused), "selected": broadcast.selected}
    return exchange


def unpack_broadcast(exchange: ExchangeObject, round: int = 1, task: str = "train") -> Broadcast:
    """The broadcast in an exchange object; a platform that carries weights alone sends neither round nor task."""
    return Broadcast(
        int(exchange.get("round", round)),
        weights_of(exchange),
        tensors_of(exchange.get("shared", {})),
        str(exchange.get("task", task)),
        int(exchange.get("exchange", 0)),
        {site: ExchangeId(*exchange_id) for site, exchange_id in exchange.get("refused", {}).items()},
        int(exchange.get("selected", 0)),
    )


def pack_update(update: Update) -> ExchangeObject:
    """An update as an exchange object."""
    exchange = ExchangeObject(
        weights=dict(update.weights),
        metrics=dict(update.metrics),
        weight_type=WeightType.WEIGHTS,
        statistics={FlStatistics.DATA_COUNT: update.cases},
    )
    exchange |= {"site": update.site, "shared": dict(update.shared)}
    return exchange


def unpack_update(exchange: ExchangeObject, base: Tensors | None = None) -> Update:
    """The update in an exchange object; a difference of weights is added to ``base``."""
    return Update(
        str(exchange["site"]),
        exchange.statistics[FlStatistics.DATA_COUNT],
        weights_of(exchange, base),
        tensors_of(exchange.get("shared", {})),
        exchange.metrics or {},
    )


def _read(exchange: ExchangeObject, base: Tensors) -> Update | Unreadable:
    name = exchange.get("site") if isinstance(exchange, dict) else None
    return read_or_refuse(name if isinstance(name, str) else "", lambda: unpack_update(exchange, base))


def _carried(
    ask: Callable[[ExchangeObject], Iterable[ExchangeObject]], broadcast: Broadcast
) -> Iterable[Update | Unreadable]:
    return (_read(answer, broadcast.weights) for answer in ask(pack_broadcast(broadcast)))


class FederatedClient(ClientAlgo):  # type: ignore[misc]
    """One site, as any platform for MONAI's federated learning can drive it.

    A platform calls `initialize`, then `train` and `get_weights` or `evaluate` for every question of its server, and at
    last `finalize`. Exchange objects are those of `pack_broadcast` and `pack_update`.

    Args:
        bundle_root: folder of the bundle, relative to the platform's ``ExtraItems.APP_ROOT`` if it names one.
        config_files: in the bundle, or elsewhere if absolute; later ones win.
        overrides: from keys to values: the site list, the method, the device.
        site: name in the site list; None: the platform's ``ExtraItems.CLIENT_NAME``.
        states: folder for what the site keeps from round to round; None keeps it in memory alone.
        case_scores: whether to send the scores of single test cases, without names, besides their means.
        callbacks: receives the progress.
        trust: as in `load_config`.
    """

    def __init__(
        self,
        bundle_root: str | Path,
        config_files: Sequence[str | Path] = ("configs/train.json",),
        overrides: Mapping[str, Any] | None = None,
        *,
        site: str | None = None,
        states: Path | None = None,
        case_scores: bool = False,
        callbacks: Callbacks | None = None,
        trust: Iterable[str] | Trust = (),
    ) -> None:
        self.trust = trust
        self.bundle_root = Path(bundle_root)
        self.config_files = tuple(config_files)
        self.overrides = dict(overrides or {})
        self.name = site
        self.case_scores = case_scores
        self.callbacks = callbacks or Callbacks()
        self._folder = states

    def initialize(self, extra: Mapping[str, Any] | None = None) -> None:
        """Build the site and read its training cases.

        Args:
            extra: ``ExtraItems.CLIENT_NAME`` and ``ExtraItems.APP_ROOT``, if the platform has them.

        Raises:
            UserError: the configuration or the site's data cannot be used.
        """
        extra = extra or {}
        root = Path(extra.get(ExtraItems.APP_ROOT, "")) / self.bundle_root
        self.settings = load_config([root / file for file in self.config_files], self.overrides, self.trust)
        self.name = self.name or str(extra.get(ExtraItems.CLIENT_NAME, ""))
        prepare_training(self.settings)
        self.session: ClientSession = set_up_site(
            self.settings, self.name, self.callbacks, states=self._folder, case_scores=self.case_scores
        )
        self._answer: Update | None = None
        self._trained = 0

    @property
    def site(self) -> Site:
        """What trains and evaluates."""
        return self.session.site

    def train(self, data: ExchangeObject, extra: Mapping[str, Any] | None = None) -> None:
        """Do what the broadcast in ``data`` asks of the method; `get_weights` has the answer."""
        broadcast = unpack_broadcast(data, self._trained + 1)
        self._answer = self.session.answer(broadcast)
        self._trained = broadcast.round

    def get_weights(self, extra: Mapping[str, Any] | None = None) -> ExchangeObject:
        """The answer to the last `train`.

        Raises:
            UserError: ``extra`` asks for a model that sites do not keep.
        """
        if wanted := (extra or {}).get(ExtraItems.MODEL_TYPE):
            raise UserError(f"{ExtraItems.MODEL_TYPE} is {wanted}: a site keeps no such model, the server selects one")
        if self._answer is None:
            raise RuntimeError("there are no weights before the first training")
        return pack_update(self._answer)

    def evaluate(self, data: ExchangeObject, extra: Mapping[str, Any] | None = None) -> ExchangeObject:
        """Numbers about the weights in ``data``, under the tensors that the site keeps to itself.

        The task in ``data`` is one of `NUMBERS`, as in `ClientSession.answer`; ``evaluate`` where it names none.

        Raises:
            UserError: it names a task of the method.
        """
        broadcast = unpack_broadcast(data, task="evaluate")
        if broadcast.task not in NUMBERS:
            raise UserError(f"task is {broadcast.task!r}: train does that; evaluate answers {', '.join(NUMBERS)}")
        return pack_update(self.session.answer(broadcast))

    def get_data_stats(self, extra: Mapping[str, Any] | None = None) -> ExchangeObject:
        """The number of cases and of training samples.

        Raises:
            UserError: ``extra`` asks for histograms.
        """
        if asked := sorted({FlStatistics.HIST_BINS, FlStatistics.HIST_RANGE} & (extra or {}).keys()):
            raise UserError(
                f"{' and '.join(asked)}: a site reports counts alone; `fedbcs flare export --statistics` has histograms"
            )
        counts = self.session.cases
        return ExchangeObject(
            statistics={
                **{part: {FlStatistics.DATA_COUNT: count} for part, count in counts.items()},
                FlStatistics.TOTAL_DATA: {FlStatistics.DATA_COUNT: sum(counts.values())},
                FlStatistics.NUM_EXECUTED_ITERATIONS: self.site.steps,
            }
        )

    def abort(self, extra: Mapping[str, Any] | None = None) -> None:
        """End a training that is under way after its present step: `train` raises `Aborted`, and keeps nothing."""
        self.site.abort()

    def finalize(self, extra: Mapping[str, Any] | None = None) -> None:
        """Let go of the data and the network."""
        for name in ("session", "_answer"):
            self.__dict__.pop(name, None)


class FederatedServer:
    """The server of a federation, for a platform that carries exchange objects.

    >>> server = FederatedServer("bundle", overrides={"method": "FedBCS"})  # doctest: +SKIP
    >>> for _ in range(400):  # doctest: +SKIP
    ...     model = server.round(platform.send_to_all_and_wait)

    Args:
        bundle_root: folder of the bundle.
        config_files: in the bundle, or elsewhere if absolute; later ones win.
        overrides: from keys to values.
        refused: called with a site and the reason when its update is not accepted.
        trust: as in `load_config`.
    """

    def __init__(
        self,
        bundle_root: str | Path,
        config_files: Sequence[str | Path] = ("configs/train.json",),
        overrides: Mapping[str, Any] | None = None,
        refused: Callable[[str, str], None] = lambda site, reason: None,
        trust: Iterable[str] | Trust = (),
    ) -> None:
        files = [Path(bundle_root) / file for file in config_files]
        settings = load_config(files, overrides, trust)
        use_threads(settings)
        self.aggregator = set_up_server(settings)
        self.aggregator.refused = lambda broadcast, site, reason: refused(site, reason)

    def round(self, ask: Callable[[ExchangeObject], Iterable[ExchangeObject]]) -> ExchangeObject:
        """Run one round.

        Args:
            ask: carries an exchange object to every site and brings their answers back, sorted by site name. A method
                may ask more than once a round.

        Returns:
            What the sites would be sent next: the new global model and the method's payload.
        """
        (state,) = self.aggregator.rounds(partial(_carried, ask), self.aggregator.state.round + 1)
        return pack_broadcast(Broadcast(state.round + 1, state.weights, state.shared))

    def site_styles(self, ask: Callable[[ExchangeObject], Iterable[ExchangeObject]]) -> dict[str, SiteStyle]:
        """Learn how cases look at the sites, for `write_site_styles` beside the present weights.

        Args:
            ask: as for `round`, to be answered by `FederatedClient.evaluate`; twice.
        """
        return learn_site_styles(self.aggregator, lambda broadcast: _carried(ask, broadcast))
