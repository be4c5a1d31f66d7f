"""What holds for every method that the package knows, with its default settings; a new one joins by its import line."""

import math
from dataclasses import FrozenInstanceError

import pytest
import torch

from fedbcs_monai import methods
from fedbcs_monai.errors import UserError
from fedbcs_monai.methods import Method
from fedbcs_monai.runs.checkpoint import Checkpoint, read_checkpoint, write_checkpoint

METHODS = sorted(set(methods.__all__) - {"ClientContext", "Method"})
WAYS = {
    "2-D": {},
    "3-D": {"dims": 3},
    "bfloat16": {"precision": "bfloat16"},
    "cuda": {"device": "cuda"},
    "cuda-float16": {"device": "cuda", "precision": "float16"},
}
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


def made(name) -> Method:
    return getattr(methods, name)()


@pytest.fixture(scope="module", params=METHODS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def straight(name, hospitals, run):
    """Two rounds, and the sites after them."""
    sites = hospitals()
    return run(made(name), sites, 2), sites


@pytest.mark.parametrize("way", [pytest.param(way, marks=[CUDA] * way.startswith("cuda")) for way in WAYS])
def test_two_rounds_have_finite_losses_and_leave_finite_tensors_on_the_cpu(name, way, hospitals, run):
    sites = hospitals(**WAYS[way])
    done = run(made(name), sites, 2)
    assert all(math.isfinite(value) for update in done.updates for value in update.metrics.values())
    assert len(done.metric("loss")) == 6
    messages = [part for message in (*done.states, *done.updates) for part in (message.weights, message.shared)]
    for tensor in (tensor for kept in (*messages, *(site.state() for site in sites)) for tensor in kept.values()):
        assert tensor.device.type == "cpu"
        assert not tensor.requires_grad
        assert bool(tensor.isfinite().all())


def test_sites_may_be_computed_in_any_order(name, straight, hospitals, run, same):
    done, sites = straight
    backwards = hospitals()[::-1]
    again = run(made(name), backwards, 2)
    assert same(again.weights, done.weights)
    assert same(again.states[-1].shared, done.states[-1].shared)
    assert all(same(mine.state(), other.state()) for mine, other in zip(sites, backwards[::-1], strict=True))


def test_resumed_from_a_checkpoint_equals_straight_through(name, straight, hospitals, run, same, tmp_path):
    done, sites = straight
    before, after = hospitals(), hospitals()
    first = run(made(name), before, 1)
    write_checkpoint(tmp_path, Checkpoint(first.states[-1], {site.name: site.state() for site in before}, {}))
    point = read_checkpoint(tmp_path)
    for site in after:
        site.restore(point.sites[site.name])
    again = run(made(name), after, 2, point.state)
    assert same(again.weights, done.weights)
    assert same(again.states[-1].shared, done.states[-1].shared)
    assert all(same(mine.state(), other.state()) for mine, other in zip(sites, after, strict=True))


def test_a_site_that_diverges_does_not_stop_the_others(name, hospitals, run):
    """Its features are not numbers; what it makes of them is refused at the server, and the rest goes on."""
    sites = hospitals()
    whole = sites[1].batches
    sites[1].batches = lambda seed: ({**batch, "image": batch["image"] * math.nan} for batch in whole(seed))
    done = run(made(name), sites, 2)
    assert [update.site for update in done.updates].count("Alder") >= 2
    assert all(bool(tensor.isfinite().all()) for tensor in (*done.weights.values(), *done.states[-1].shared.values()))


def test_what_a_site_keeps_is_its_own(name, straight):
    """A checkpoint refuses two tensors of one memory; and what one site changes, no other should see."""
    _, sites = straight
    kept = [tensor for site in sites for tensor in site.state().values() if tensor.numel()]
    assert len({tensor.data_ptr() for tensor in kept}) == len(kept)


def test_what_is_private_is_not_sent_and_the_rest_is(name, straight):
    done, sites = straight
    private = made(name).private(sites[0].network)
    for update in done.updates:
        assert not update.weights or update.weights.keys() == done.weights.keys() - private
    assert all(site.private.keys() == private for site in sites)


def test_what_is_sent_besides_the_weights_has_been_announced(name, straight):
    done, sites = straight
    payload = made(name).payload(sites[0].network)
    needed = {path for path, spec in payload.items() if spec.needed}
    for update in done.updates:
        assert needed <= update.shared.keys() <= payload.keys()
        shapes = {path: tuple(tensor.shape) for path, tensor in update.shared.items()}
        wanted = {path: payload[path].shape for path in shapes}
        assert all(len(shape) == len(wanted[path]) for path, shape in shapes.items())
        assert all(
            have == want for path in shapes for have, want in zip(shapes[path], wanted[path], strict=True) if want != -1
        )


def test_settings_cannot_be_changed_and_say_what_is_wrong(name):
    method = made(name)
    assert method == made(name)
    with pytest.raises(FrozenInstanceError):
        method.weighting = "equal"
    with pytest.raises(UserError, match="weighting is 'size'"):
        type(method)(weighting="size")
