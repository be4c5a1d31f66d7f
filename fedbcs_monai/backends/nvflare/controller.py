"""FederatedController: runs the rounds of a federation inside an NVFlare server."""

import math
import time
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel
from nvflare.app_common.app_event_type import AppEventType
from nvflare.app_common.utils.tensor_disk_offload_context import cleanup_tensor_disk_offload, setup_tensor_disk_offload
from nvflare.app_common.workflows.model_controller import ModelController
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs
from safetensors.torch import load_file

from fedbcs_monai.backends.nvflare.failures import HEADER, Failure
from fedbcs_monai.backends.nvflare.filters import objection_to_filters, reason_in
from fedbcs_monai.backends.nvflare.layout import EXPERIMENT, RESULTS
from fedbcs_monai.backends.nvflare.messages import model_of, update_in
from fedbcs_monai.backends.nvflare.site_file import checked_run_id, read_site_file
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.federated.memory import collect_garbage, give_back_freed_memory
from fedbcs_monai.federated.messages import Broadcast, Carry, RefusedError, State, Unreadable, Update, read_or_refuse
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.federated.traffic import size_bytes
from fedbcs_monai.federated.trust import load_job
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.metrics.tables import mean_of
from fedbcs_monai.names import checked_site_name, is_site_name, shortened
from fedbcs_monai.ood.exchange import learn_site_styles
from fedbcs_monai.ood.file import write_site_styles
from fedbcs_monai.runs.loop import open_run
from fedbcs_monai.runs.model_io import WEIGHTS, write_model
from fedbcs_monai.runs.process import use_threads
from fedbcs_monai.runs.schema import CHECKPOINTS, CROSS_SITE, Counts, ModelScore
from fedbcs_monai.runs.setup import set_up_server
from fedbcs_monai.runs.writer import copy_run
from fedbcs_monai.tensors import write_tensors

COLLECT_S = 1.0
"""Seconds between two collections of garbage: looking for it takes time from the sites of one machine."""

CONTINUE = "when they are back, continue with `fedbcs flare resume`"


class FederatedController(ModelController):  # type: ignore[misc]
    """Runs the rounds: asks the sites, waits no longer than configured, and leaves a run folder.

    The run folder lies in the server's kit under ``fedbcs/runs`` and outlives the job. A job that finds one there
    resumes from its newest checkpoint. When the job ends, however it ends, the folder is among the job's results too.

    Args:
        run_id: of the run, the same when it is resumed as another job.
        min_responses: sites that must answer; with fewer a round fails, and the run with it.
        round_timeout_s: longest time for a question.
        wait_s: how long to wait for the other sites when `min_responses` have answered.
        cross_site: in the end have every site evaluate what every other site trained in the last round.
        offload_mib: from this size of network on, updates wait for the aggregation on disk.

    Raises:
        UserError: nobody would have to answer, or a question would be waited for without end.
    """

    def __init__(
        self,
        run_id: str,
        min_responses: int = 2,
        round_timeout_s: int = 7200,
        wait_s: int = 600,
        cross_site: bool = False,
        offload_mib: int = 256,
    ) -> None:
        super().__init__(persistor_id="", ignore_result_error=True, task_check_period=0.2)
        # 0 means to NVFlare: everybody, and for ever.
        for name, value, least in (
            ("min_responses", min_responses, 1),
            ("round_timeout_s", round_timeout_s, 1),
            ("wait_s", wait_s, 0),
        ):
            if value < least:
                raise UserError(f"{name} is {value}: it must be {least} or more")
        self.run_id = run_id
        self.min_responses = min_responses
        self.round_timeout_s = round_timeout_s
        self.wait_s = wait_s
        self.cross_site = cross_site
        self.offload_mib = offload_mib
        self._clients: dict[str, str] = {}  # from a client to the site that it speaks for
        self._counts: dict[str, Counts] = {}  # from a site to its cases in each part
        self._registered: set[str] = set()  # every client that has been there
        self._fetched: set[str] = set()  # clients that have fetched the question that is out
        self._absent: set[str] = set()  # clients that did not answer the last question that they were asked
        self._refused: dict[str, str] = {}  # from a client to why its answer to the question that is out is not taken

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Note which client has fetched a question, and which could not answer it."""
        super().handle_event(event_type, fl_ctx)
        if event_type == AppEventType.BEFORE_TRAIN_TASK:
            self._fetched.add(fl_ctx.get_peer_context().get_identity_name())
        elif event_type == EventType.BEFORE_PROCESS_SUBMISSION:
            result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
            if failure := failure_in(result.get_return_code(), result.get_header(HEADER)):
                self._refused[fl_ctx.get_peer_context().get_identity_name()] = failure.value

    def run(self) -> None:
        """Run the rounds that are left, test, and leave the results."""
        fobs.register(TensorDecomposer)
        give_back_freed_memory()
        workspace = self.fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        job = self.fl_ctx.get_job_id()
        here = read_site_file(Path(workspace.get_root_dir()))
        folder = here.folder / "runs" / checked_run_id(self.run_id)
        experiment = Path(workspace.get_app_config_dir(job)) / EXPERIMENT
        settings = load_job(experiment, {**here.overrides, "output": str(folder)}, here.allow)
        use_threads(settings)
        aggregator = set_up_server(settings)
        aggregator.least = self.min_responses
        resume = any((folder / CHECKPOINTS).glob("*.json"))
        self._run = open_run(settings, aggregator.state, torch.device("cpu"), resume, _Log(self))
        aggregator.state = self._run.point.state
        aggregator.refused = self._run.refused
        try:
            with self._large(aggregator):
                self._describe(aggregator)
                self._run.began = time.perf_counter() - self._run.point.history["seconds"]
                self._run.rounds(aggregator, self._keeping(aggregator) if self.cross_site else self._ask)
                self._test(aggregator)
                self._learn_site_styles(aggregator)
                if self.cross_site:
                    self._cross_site(aggregator)
        finally:
            self._run.close()
            copy_run(folder, Path(workspace.get_run_dir(job)) / RESULTS)

    # Asking.

    def _ask(self, broadcast: Broadcast) -> Iterator[Update | Unreadable]:
        """Carry a broadcast to the sites; their updates, sorted by site name, are let go of one by one."""
        targets = self._targets(broadcast.task)
        if len(targets) < self.min_responses:
            raise UserError(
                f"{_of(broadcast)}: {len(targets)} sites can be asked, {self.min_responses} must answer; {CONTINUE}"
            )
        came: dict[str, Update | Unreadable] = {}
        self._fetched, self._refused = set(), {}
        self.broadcast_model(
            model_of(replace(broadcast, selected=self._selected)),
            broadcast.task,
            targets,
            self.min_responses,
            self.round_timeout_s,
            self.wait_s,
            blocking=False,
            callback=lambda model: self._accept(model, came),
        )
        self._wait(targets, came)
        late = set(targets) - came.keys()
        self._absent = (self._absent - came.keys()) | late
        refused = sorted((client, reason) for client, reason in self._refused.items() if client not in came)
        reasons = {self._clients.get(client, client): reason for client, reason in refused}
        for site, reason in reasons.items():
            self._run.refused(broadcast, site, reason)
        if len(came) < self.min_responses:
            why = "".join(f"; {site}: {reason}" for site, reason in reasons.items())
            raise UserError(
                f"{_of(broadcast)}: {len(came)} of {len(targets)} sites answered, {self.min_responses} must{why}; "
                f"{CONTINUE}"
            )
        if late:
            names = sorted(self._clients.get(client, client) for client in late)
            self.warning(f"{_of(broadcast)}: continues without {', '.join(names)}")
        return _in_order(came)

    def _accept(self, model: FLModel, came: dict[str, Update | Unreadable]) -> bool:
        """Take an answer that is of the site that its client speaks for, and that its filters have left whole.

        NVFlare identifies the client. An answer that is not accepted is refused like any other.
        """
        client = model.meta["client_name"]
        site = self._clients.get(client, client)
        answer = read_or_refuse(site, lambda: _update_of(model))
        if isinstance(answer, Update):
            others = {other.name for other in self.engine.get_clients()} - {client}
            if objected := objection_to_name(self._clients, client, answer.site, others):
                self.error(f"{objected}; its answer is not taken")
                self._refused[client] = objected
                return False
            self._clients[client] = answer.site
        came[client] = answer
        return isinstance(answer, Update)

    def _wait(self, targets: Sequence[str], came: Mapping[str, Update | Unreadable]) -> None:
        """Until the question is settled.

        Enough having answered, nobody waits for a site that is gone: that NVFlare holds for dead, or that did not
        answer the question before and has not come for this one. So a lost site costs the waiting time once.

        What NVFlare has sent or taken in lies in cycles of references, and elsewise stays for many rounds.
        """
        collected = time.monotonic()
        while self.get_num_standing_tasks():
            if self.abort_signal.triggered:
                raise RuntimeError("the job was aborted")
            gone = self._absent - self._fetched
            silent = set(targets) - came.keys()
            if len(came) >= self.min_responses and all(self._dead(client) or client in gone for client in silent):
                self.cancel_all_tasks()
            if time.monotonic() > collected + COLLECT_S:
                collect_garbage()
                collected = time.monotonic()
            time.sleep(self._task_check_period)
        collect_garbage()

    def _dead(self, client: str) -> bool:
        return self.get_client_disconnect_time(client) is not None

    def _targets(self, task: str) -> list[str]:
        """Clients that are there. Those of sites without training cases only describe themselves and test.

        Where every site has a network of its own, there is none for them to test.
        """
        clients = [client.name for client in self.engine.get_clients()]
        self._registered.update(clients)
        there = [client for client in clients if not self._dead(client)]
        if task == "describe" or (task == "test" and not self._alone):
            return there
        known = {c: self._counts.get(self._clients.get(c, "")) for c in there}
        return [c for c, counts in known.items() if counts is None or counts.train]

    @property
    def _selected(self) -> int:
        return int(self._run.point.history.get("best", {}).get("round", 0))

    # Around the rounds.

    def _describe(self, aggregator: Aggregator) -> None:
        """Learn which client speaks for which site, and how many cases each has."""
        self._alone = aggregator.private >= aggregator.state.weights.keys()
        for update in aggregator.numbers(self._ask, Broadcast(aggregator.state.round, {}, {}, "describe")):
            self._count(update)
        trained = sorted(site for site, counts in self._counts.items() if counts.train)
        self._run.callbacks.note(f"training at {', '.join(trained)}")

    def _count(self, update: Update) -> None:
        counts = (int(update.metrics.get(f"{part}_cases", 0)) for part in Counts._fields)
        self._counts[update.site] = Counts(*counts)

    def _test(self, aggregator: Aggregator) -> None:
        """Have every site score its test cases with the last and the selected model, and write the results."""
        run, state = self._run, aggregator.state
        folder = run.writer.folder
        write_model(folder, "last", state.weights, {})
        rounds = {"last": state.round, "selected": run.point.history["best"]["round"]}
        rows: list[ModelScore] = []
        answers: dict[int, Sequence[Update]] = {}
        for model, file in WEIGHTS.items():
            number = rounds[model]
            if number not in answers:
                broadcast = Broadcast(number, load_file(folder / file), {}, "test")
                answers[number] = aggregator.numbers(self._ask, broadcast)
            for update in answers[number]:
                self._count(update)
                rows += [ModelScore(model, update.site, score) for score in scores_in(update)]
        trained = [site for site, counts in self._counts.items() if counts.train]
        silent = {client for client in self._registered if client not in self._clients}
        run.finish(
            type(aggregator.method).__name__, rows, trained, dict(sorted(self._counts.items())), {*trained, *silent}
        )

    def _learn_site_styles(self, aggregator: Aggregator) -> None:
        """Learn how cases look at the sites to the selected model, and write it beside that."""
        selected = self._run.writer.folder / WEIGHTS["selected"]
        state = State(self._selected, load_file(selected), {})
        write_site_styles(selected, learn_site_styles(replace(aggregator, state=state), self._ask))

    def _keeping(self, aggregator: Aggregator) -> Carry:
        """Ask, and keep the networks that the sites trained in the newest round, for `_cross_site`."""

        def ask(broadcast: Broadcast) -> Iterator[Update | Unreadable]:
            for update in self._ask(broadcast):
                if (
                    isinstance(update, Update)
                    and broadcast.task == "train"
                    and aggregator.rejection_reason(broadcast, update) is None
                ):
                    write_tensors(self._local / f"{checked_site_name(update.site)}.safetensors", update.weights)
                yield update

        return ask

    def _cross_site(self, aggregator: Aggregator) -> None:
        """Write ``cross_site.csv``: every site's network of the last round, on every site's validation cases."""
        rows = []
        for file in sorted(self._local.glob("*.safetensors")):
            broadcast = Broadcast(aggregator.state.round, load_file(file), {}, "evaluate")
            for update in aggregator.numbers(self._ask, broadcast):
                rows.append((file.stem, update.site, update.metrics.get("val_dice", math.nan)))
        self._run.writer.write_table(CROSS_SITE, rows)

    @property
    def _local(self) -> Path:
        return self._run.writer.folder / "local"

    @contextmanager
    def _large(self, aggregator: Aggregator) -> Iterator[None]:
        """While a large network is under way, updates wait on disk."""
        large = size_bytes(aggregator.state.weights) >= self.offload_mib * 2**20
        context = setup_tensor_disk_offload(self.engine, large, self.fl_ctx.get_job_id())
        try:
            yield
        finally:
            cleanup_tensor_disk_offload(self.engine, context)


class _Log(Callbacks):
    """What happens, in NVFlare's log."""

    def __init__(self, controller: FederatedController) -> None:
        self.controller = controller

    def note(self, text: str) -> None:
        self.controller.info(text)

    def on_evaluation(self, round: int, scores: Mapping[str, float]) -> None:
        self.controller.info(f"round {round}: validation Dice {dict(scores)}")


def failure_in(code: str, name: object) -> Failure | None:
    """Why a site could not answer; None if it could.

    Args:
        code: NVFlare's return code.
        name: of a `Failure`, from the reply's header.
    """
    if code in (ReturnCode.OK, ReturnCode.TASK_ABORTED):
        return None
    return Failure.FILTER if code == ReturnCode.TASK_RESULT_FILTER_ERROR else Failure.of(name)


def _update_of(model: FLModel) -> Update:
    if objected := objection_to_filters(model) or reason_in(model):
        raise RefusedError(objected)
    return update_in(model)


def objection_to_name(
    clients: Mapping[str, str], client: str, site: object, certified: Set[str] = frozenset()
) -> str | None:
    """Why a client is not accepted as a site; None if it is.

    >>> objection_to_name({"a": "Alder"}, "b", "Alder")
    'b claims to be Alder, as a does'

    Args:
        clients: from a client, which its certificate names, to the site that it has spoken for so far.
        client: who has answered.
        site: the site that it claims to be.
        certified: the other clients. A name that is another's is not free, even before that one has spoken.
    """
    if not isinstance(site, str) or not is_site_name(site):
        return f"{client} claims the name {shortened(site)}"
    if clients.get(client, site) != site:
        return f"{client} was {clients[client]} and now claims to be {site}"
    if site in certified:
        return f"{client} claims to be {site}, which is the certificate name of another client"
    others = [other for other, spoken in clients.items() if spoken == site and other != client]
    return f"{client} claims to be {site}, as {others[0]} does" if others else None


def scores_in(update: Update) -> list[CaseScore]:
    """A site's test scores: of single cases, which have numbers for names, or in one row the means of all."""
    names = CaseScore._fields[1:]
    columns = {name: update.shared[name].flatten().tolist() for name in names if name in update.shared}
    if not columns:
        means = [float(update.metrics.get(name, math.nan)) for name in names]
        count = int(update.metrics.get("test_cases", 0))
        return [CaseScore(mean_of(count), *means)] if count else []
    cases = range(len(next(iter(columns.values()))))
    return [
        CaseScore(str(n + 1), *(columns[name][n] if name in columns else math.nan for name in names)) for n in cases
    ]


def _in_order(came: dict[str, Update | Unreadable]) -> Iterator[Update | Unreadable]:
    for client in sorted(came, key=lambda client: came[client].site):
        yield came.pop(client)


def _of(broadcast: Broadcast) -> str:
    return f"round {broadcast.round}, {broadcast.task}"
