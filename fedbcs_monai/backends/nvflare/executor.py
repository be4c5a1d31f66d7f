"""SiteExecutor: passes tasks from NVFlare's client to the trainer process, and its results to the server."""

from pathlib import Path

from nvflare.apis.analytix import AnalyticsDataType
from nvflare.apis.dxo import from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.executor import Executor
from nvflare.apis.fl_constant import FLContextKey, ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.apis.utils.analytix_utils import create_analytic_dxo, send_analytic_dxo
from nvflare.app_common.utils.fl_model_utils import FLModelUtils
from nvflare.app_opt.pt.decomposers import TensorDecomposer
from nvflare.fuel.utils import fobs

from fedbcs_monai.backends.nvflare.failures import HEADER, Failure
from fedbcs_monai.backends.nvflare.filters import REASON, forms, objection_to_filters
from fedbcs_monai.backends.nvflare.layout import EXPERIMENT
from fedbcs_monai.backends.nvflare.messages import broadcast_in, model_of
from fedbcs_monai.backends.nvflare.process import Failed, Stopped, TrainerProcess
from fedbcs_monai.backends.nvflare.site_file import checked_run_id, read_site_file
from fedbcs_monai.backends.nvflare.wire import decode_update, write_message
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.memory import collect_garbage, give_back_freed_memory
from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.names import checked_site_name


class SiteExecutor(Executor):  # type: ignore[misc]
    """Answers every task of a job by the trainer, an external process that it starts and, when it is killed, restarts.

    NVFlare's own external-process executor takes the command line from the job; here it is the installed package and
    the site's own file that say what runs, so a site allows this class and lets nobody choose a command.

    Args:
        run_id: of the run, the same when it is resumed as another job.
        restarts: so often a killed trainer is started again over one question.
    """

    def __init__(self, run_id: str, restarts: int = 3) -> None:
        super().__init__()
        self.run_id = run_id
        self.restarts = restarts
        self._trainer: TrainerProcess | None = None
        self._sent: dict[str, str] = {}  # what the last answer consisted of, before the site's filters

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Start the trainer with the job, and end it with the job; look at what filters have left of an answer."""
        if event_type == EventType.START_RUN:
            fobs.register(TensorDecomposer)
            give_back_freed_memory()
            self._start(fl_ctx)
        elif event_type in (EventType.END_RUN, EventType.ABORT_TASK) and self._trainer:
            self._trainer.stop()
        elif event_type == EventType.AFTER_TASK_RESULT_FILTER:
            self._look_at_filtered(fl_ctx.get_prop(FLContextKey.TASK_RESULT), fl_ctx)

    def execute(self, task_name: str, shareable: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Have the trainer answer. After a failure the server receives a `Failure`, and this site's log the text."""
        self._sent = {}
        try:
            if self._trainer is None:
                self._start(fl_ctx)
            question = broadcast_in(FLModelUtils.from_shareable(shareable))
            answer = self._answered(question, abort_signal)
        except Stopped:
            return make_reply(ReturnCode.TASK_ABORTED)
        except (Failed, UserError) as error:
            self.log_error(fl_ctx, f"{task_name}: {error}", fire_event=False)
            correctable = isinstance(error, UserError) or error.correctable
            return _failed(Failure.CORRECTABLE if correctable else Failure.TRAINER)
        except Exception as error:
            self.log_exception(fl_ctx, f"{task_name}: {type(error).__name__}: {error}", fire_event=False)
            return _failed(Failure.PROGRAM)
        self._track(answer, question.round, fl_ctx)
        collect_garbage()  # what NVFlare has sent before lies in cycles of references
        model = model_of(answer)
        self._sent = forms(model.params)
        return FLModelUtils.to_shareable(model)

    def _look_at_filtered(self, reply: Shareable, fl_ctx: FLContext) -> None:
        """Say here, and to the server with the answer, when the site's filters have left nothing of use."""
        if not isinstance(reply, Shareable) or reply.get_return_code() != ReturnCode.OK:
            return
        try:
            reason = objection_to_filters(FLModelUtils.from_shareable(reply), self._sent)
        except ValueError as error:
            reason = f"a filter of the site left no model ({error})"
            reply.set_return_code(ReturnCode.TASK_RESULT_FILTER_ERROR)
        else:
            if reason:
                dxo = from_shareable(reply)
                dxo.set_meta_prop(REASON, reason)
                dxo.update_shareable(reply)
        if reason:
            text = f"the server will refuse this answer: {reason}; filters are named in local/privacy.json"
            self.log_error(fl_ctx, text, fire_event=False)

    def _start(self, fl_ctx: FLContext) -> None:
        workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        self._folder = Path(workspace.get_run_dir(fl_ctx.get_job_id())) / "post"
        try:
            site, run = read_site_file(Path(workspace.get_root_dir())), checked_run_id(self.run_id)
            name = checked_site_name(site.name or fl_ctx.get_identity_name())
        except UserError as error:
            self.log_error(fl_ctx, str(error), fire_event=False)
            return
        settings = {
            "config": str(Path(workspace.get_app_config_dir(fl_ctx.get_job_id())) / EXPERIMENT),
            "allow": site.allow,
            "overrides": dict(site.overrides),
            "site": name,
            "states": str(site.folder / "states" / run / name),
            "case_scores": site.case_scores,
        }

        def note(text: str) -> None:
            self.log_warning(fl_ctx, text, fire_event=False)

        self._trainer = TrainerProcess(
            site.python, settings, self._folder.with_name("trainer.log"), self.restarts, note
        )
        self._trainer.start()

    def _answered(self, question: Broadcast, abort_signal: Signal) -> Update:
        if self._trainer is None:
            raise Failed("the site file cannot be used")
        files = self._folder / "question.safetensors", self._folder / "answer.safetensors"
        write_message(files[0], question)
        try:
            self._trainer.ask(*files, lambda: bool(abort_signal.triggered))
            return decode_update(files[1])
        finally:
            for file in files:
                file.unlink(missing_ok=True)

    def _track(self, answer: Update, round: int, fl_ctx: FLContext) -> None:
        """Send the site's metrics to the experiment tracker."""
        for name, value in answer.metrics.items():
            dxo = create_analytic_dxo(tag=name, value=value, data_type=AnalyticsDataType.SCALAR, global_step=round)
            send_analytic_dxo(self, dxo=dxo, fl_ctx=fl_ctx)


def _failed(failure: Failure) -> Shareable:
    return make_reply(ReturnCode.EXECUTION_EXCEPTION, {HEADER: failure.name})
