"""Messages in NVFlare's hands: what it copies, serialises and leaves on disk is what was sent."""

import copy

import pytest
import torch

from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.tensors import PIECE, Stored, mean, write_tensors

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")

WEIGHTS = {"a.weight": torch.rand(3, 2), "a.count": torch.tensor(7), "large": torch.rand(3, PIECE // 2)}
SHARED = {"decoder/1": torch.rand(5)}


def same(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor)
        assert found[name].dtype == tensor.dtype


@pytest.fixture
def arrived(tmp_path):
    """A model as NVFlare hands it over when it has left what came on disk."""
    from nvflare.app_opt.pt.lazy_tensor_dict import LazyTensorDict

    def arrive(model, site="Alder"):
        file = tmp_path / site / "chunk_0.safetensors"
        write_tensors(file, {name: tensor.clone() for name, tensor in model.params.items()})
        kept = LazyTensorDict({name: (str(file), name) for name in model.params}, str(file.parent))
        model.params = {name: kept.make_lazy_ref(name) for name in model.params}
        return model

    return arrive


def update_of(weights, site="Alder", cases=4):
    from fedbcs_monai.backends.nvflare.messages import model_of

    return model_of(Update(site, cases, weights, SHARED, {"loss": 0.5}))


def test_a_message_is_the_same_behind_a_model():
    from fedbcs_monai.backends.nvflare.messages import broadcast_in, model_of

    broadcast = broadcast_in(model_of(Broadcast(3, WEIGHTS, SHARED, "gradients")))
    assert (broadcast.round, broadcast.task) == (3, "gradients")
    same(broadcast.weights, WEIGHTS)
    same(broadcast.shared, SHARED)


def test_a_serialised_message_is_the_same():
    from nvflare.app_common.utils.fl_model_utils import FLModelUtils
    from nvflare.app_opt.pt.decomposers import TensorDecomposer
    from nvflare.fuel.utils import fobs

    from fedbcs_monai.backends.nvflare.messages import update_in

    fobs.register(TensorDecomposer)
    came = FLModelUtils.from_shareable(fobs.loads(fobs.dumps(FLModelUtils.to_shareable(update_of(WEIGHTS)))))
    update = update_in(came)
    assert (update.site, update.cases, update.metrics) == ("Alder", 4, {"loss": 0.5})
    same(update.weights, WEIGHTS)
    same(update.shared, SHARED)


def test_a_deep_copy_of_a_message_takes_no_memory():
    model = update_of(WEIGHTS)
    copied = copy.deepcopy(model).params
    assert copied.keys() == model.params.keys()
    assert all(copied[name].data_ptr() == tensor.data_ptr() for name, tensor in model.params.items())


def test_large_tensors_go_in_pieces():
    sizes = {name: tensor.numel() for name, tensor in update_of(WEIGHTS).params.items()}
    assert sizes == {
        "weights/a.weight": 6,
        "weights/a.count": 1,
        "weights/large#0": PIECE,
        "weights/large#1": PIECE // 2,
        "shared/decoder/1": 5,
    }


def test_a_piece_that_is_missing_or_has_another_size_is_an_error():
    from fedbcs_monai.backends.nvflare.messages import update_in

    model = update_of(WEIGHTS)
    model.params["weights/large#0"] = model.params["weights/large#0"][1:]
    with pytest.raises(ValueError, match=f"has not {PIECE} elements"):
        update_in(model)
    del model.params["weights/large#0"]
    with pytest.raises(KeyError, match="weights/large#0"):
        update_in(model)


def test_an_update_left_on_disk_reads_as_it_was(arrived):
    from fedbcs_monai.backends.nvflare.messages import update_in

    weights = update_in(arrived(update_of(WEIGHTS))).weights
    assert isinstance(weights, Stored)
    same(weights, WEIGHTS)
    assert isinstance(update_in(update_of(WEIGHTS)).weights, dict)


def test_the_mean_of_updates_left_on_disk_has_the_same_bits(arrived):
    from fedbcs_monai.backends.nvflare.messages import update_in

    sites = {
        "Alder": (WEIGHTS, 3),
        "Birch": ({name: tensor + 1 for name, tensor in WEIGHTS.items()}, 8),
        "Cedar": ({name: tensor * 3 for name, tensor in WEIGHTS.items()}, 8),
    }
    kept = [
        (update_in(arrived(update_of(weights, site), site)).weights, cases) for site, (weights, cases) in sites.items()
    ]
    same(mean(kept), mean(sites.values()))
