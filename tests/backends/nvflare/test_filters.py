"""NVFlare's own filters at a site: what they leave of an answer, and what the site and the server say of it."""

import pytest
import torch

from fedbcs_monai.backends.nvflare.failures import Failure
from fedbcs_monai.federated.messages import Broadcast, Update

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")

SENT = {"a": torch.tensor([[0.5, -0.25], [1.0, 2.0]]), "b": torch.tensor([3.0])}


class StyleAnswer:
    """What a site's executor would say, and what its answer is behind the filters of the site."""

    def __init__(self, monkeypatch):
        from nvflare.apis.fl_constant import FLContextKey
        from nvflare.apis.fl_context import FLContext
        from nvflare.app_common.utils.fl_model_utils import FLModelUtils

        from fedbcs_monai.backends.nvflare.executor import SiteExecutor
        from fedbcs_monai.backends.nvflare.filters import forms
        from fedbcs_monai.backends.nvflare.messages import model_of

        self.log = []
        self.executor = SiteExecutor("run")
        monkeypatch.setattr(self.executor, "log_error", lambda fl_ctx, text, fire_event=True: self.log.append(text))
        self.context, self.key, self.utils = FLContext(), FLContextKey, FLModelUtils
        self.forms, self.model_of = forms, model_of

    def filtered(self, *filters):
        """The answer as the server takes it in."""
        from nvflare.apis.event_type import EventType

        model = self.model_of(Update("Alder", 1, {name: tensor.clone() for name, tensor in SENT.items()}, {}))
        self.executor._sent = self.forms(model.params)
        reply = self.utils.to_shareable(model)
        question = self.model_of(Broadcast(1, {name: tensor.clone() for name, tensor in SENT.items()}, {}))
        self.context.set_prop(self.key.TASK_DATA, self.utils.to_shareable(question), private=True, sticky=False)
        for one in filters:
            reply = one.process(reply, self.context)
        self.context.set_prop(self.key.TASK_RESULT, reply, private=True, sticky=False)
        self.executor.handle_event(EventType.AFTER_TASK_RESULT_FILTER, self.context)
        return self.utils.from_shareable(reply)


@pytest.fixture
def site(monkeypatch):
    return StyleAnswer(monkeypatch)


def of(name, *arguments, **options):
    """A filter of NVFlare's, as a privacy policy would name it."""
    from nvflare.app_common.filters.convert_weights import ConvertWeights
    from nvflare.app_common.filters.exclude_vars import ExcludeVars
    from nvflare.app_common.filters.percentile_privacy import PercentilePrivacy
    from nvflare.app_common.filters.svt_privacy import SVTPrivacy

    kinds = (ConvertWeights, ExcludeVars, PercentilePrivacy, SVTPrivacy)
    return {kind.__name__: kind for kind in kinds}[name](*arguments, **options)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("PercentilePrivacy", [10, 0.01], "PercentilePrivacy clip differences of weights"),
        ("SVTPrivacy", [], "SVTPrivacy clip differences of weights"),
        ("ConvertWeights", ["weights_to_diff"], "made differences of its weights"),
        ("ExcludeVars", [["weights/b"]], "removed 1 of its 2 tensors: weights/b"),
    ],
)
def test_a_filter_that_ruins_whole_weights_is_named_at_the_site_and_to_the_server(name, arguments, said, site):
    from fedbcs_monai.backends.nvflare.filters import objection_to_filters, reason_in

    model = site.filtered(of(name, *arguments))
    heard = objection_to_filters(model) or reason_in(model)
    assert name in heard
    assert said in heard
    assert [heard in line and "privacy.json" in line for line in site.log] == [True]


def test_a_server_does_not_need_the_sites_word_for_clipped_weights(site):
    from fedbcs_monai.backends.nvflare.filters import REASON, objection_to_filters

    model = site.filtered(of("PercentilePrivacy", 10, 0.01))
    assert float(model.params["weights/b"].abs().max()) == pytest.approx(0.01)  # it was 3
    del model.meta[REASON]
    assert "PercentilePrivacy" in objection_to_filters(model)


def test_nothing_is_said_of_an_answer_as_it_was_or_with_noise(site):
    from nvflare.apis.dxo import DataKind
    from nvflare.apis.dxo_filter import DXOFilter

    from fedbcs_monai.backends.nvflare.filters import objection_to_filters, reason_in

    class Noise(DXOFilter):
        def process_dxo(self, dxo, shareable, fl_ctx):
            dxo.data = {name: tensor + 0.5 for name, tensor in dxo.data.items()}
            return dxo

    for filters in ([], [Noise([DataKind.WEIGHTS], None)], [of("ExcludeVars", ["weights/elsewhere"])]):
        model = site.filtered(*filters)
        assert (objection_to_filters(model), reason_in(model), site.log) == (None, None, [])


def test_a_filter_of_no_known_kind_is_caught_by_what_it_leaves(site):
    from nvflare.apis.dxo import DataKind
    from nvflare.apis.dxo_filter import DXOFilter

    from fedbcs_monai.backends.nvflare.filters import reason_in

    class Halves(DXOFilter):
        def process_dxo(self, dxo, shareable, fl_ctx):
            dxo.data = {name: tensor.half() for name, tensor in dxo.data.items()}
            return dxo

    said = reason_in(site.filtered(Halves([DataKind.WEIGHTS], None)))
    assert said == (
        "a filter of the site (Halves) changed the kind of 2 tensors: "
        "weights/a was (2, 2) float32 and is (2, 2) float16"
    )


def test_what_a_site_says_is_one_printable_line():
    from nvflare.app_common.abstract.fl_model import FLModel

    from fedbcs_monai.backends.nvflare.filters import LONGEST, REASON, reason_in

    said = reason_in(FLModel(params={}, meta={REASON: "a\n\x1b[31m" + 1000 * "b"}))
    assert said.isprintable()
    assert len(said) == LONGEST


def test_of_a_failure_a_site_sends_one_of_a_few_words_and_its_log_has_the_text(site, monkeypatch):
    from nvflare.apis.fl_constant import ReturnCode
    from nvflare.apis.signal import Signal

    from fedbcs_monai.backends.nvflare.controller import failure_in
    from fedbcs_monai.backends.nvflare.failures import HEADER
    from fedbcs_monai.backends.nvflare.process import Failed
    from fedbcs_monai.errors import UserError

    secret = "/data/anna/case_7.nii"
    question = site.utils.to_shareable(site.model_of(Broadcast(1, {}, {})))
    site.executor._trainer = object()
    monkeypatch.setattr(site.executor, "log_exception", lambda fl_ctx, text, fire_event=True: site.log.append(text))
    for error, failure in (
        (UserError(f"{secret}: cannot be read"), Failure.CORRECTABLE),
        (Failed(f"UserError: {secret}", correctable=True), Failure.CORRECTABLE),
        (Failed(f"RuntimeError: {secret}"), Failure.TRAINER),
        (KeyError(secret), Failure.PROGRAM),
        (RuntimeError(secret), Failure.PROGRAM),
    ):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(site.executor, "_answered", fail)
        reply = site.executor.execute("train", question, site.context, Signal())
        assert reply.get_return_code() == ReturnCode.EXECUTION_EXCEPTION
        assert failure_in(reply.get_return_code(), reply.get_header(HEADER)) is failure
        assert secret not in repr(dict(reply))
        assert secret in site.log.pop()


@pytest.mark.parametrize(
    ("code", "name", "failure"),
    [
        ("OK", None, None),
        ("TASK_ABORTED", None, None),
        ("EXECUTION_EXCEPTION", "CORRECTABLE", Failure.CORRECTABLE),
        ("EXECUTION_EXCEPTION", "/data/anna.nii", Failure.UNKNOWN),
        ("EXECUTION_RESULT_ERROR", None, Failure.UNKNOWN),
        ("TASK_RESULT_FILTER_ERROR", None, Failure.FILTER),
    ],
)
def test_the_server_reads_a_failure_and_prints_nothing_that_a_site_made_up(code, name, failure):
    from fedbcs_monai.backends.nvflare.controller import failure_in

    assert failure_in(code, name) is failure
