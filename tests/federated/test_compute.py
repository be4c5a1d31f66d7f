"""Device, precision and memory layout."""

import pytest
import torch

from fedbcs_monai.backends.local import train
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.networks import build_segmenter
from fedbcs_monai.tensors import read_tensors

FEATURES = (8, 8, 16, 16, 16)


def weights_after(config):
    return read_tensors(train(config) / "last.safetensors")


@pytest.mark.parametrize("method", ["FedAvg", "FedBCS"])
def test_mixed_precision_trains_close_to_float32(tiny, method):
    full = weights_after(tiny(method, rounds=2))
    mixed = weights_after(tiny(method, rounds=2, precision="bfloat16"))
    assert full.keys() == mixed.keys()
    moved = max((full[name] - mixed[name]).abs().max() for name in full)
    assert 0 < moved < 0.05
    assert all(tensor.dtype == torch.float32 for tensor in mixed.values())


def test_losses_are_float32_under_mixed_precision():
    compute = Compute("cpu", "bfloat16")
    network = build_segmenter(features=FEATURES, context={"width": 4})
    with compute.autocast():
        features = network.features(torch.rand(1, 3, 32, 32))
    assert features.encoder[0].dtype == torch.bfloat16
    anchors, prototypes = torch.arange(9), torch.rand(2, 12)
    assert all(
        part.dtype == torch.float32 for part in network.fusion.encoder.products(features.encoder, anchors, prototypes)
    )


def test_channels_last_changes_the_layout_and_not_the_result():
    network = build_segmenter(features=FEATURES).eval()
    image = torch.rand(2, 3, 32, 32)
    before = network(image)
    compute = Compute("cpu", channels_last=True)
    compute.place(network)
    batch = compute.batch({"image": image, "label": torch.zeros(2, 1, 32, 32)})
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(network(batch["image"]), before, atol=1e-5, rtol=1e-4)


def test_channels_last_weights_load_into_a_plain_network(tiny):
    laid_out = weights_after(tiny(channels_last=True, rounds=1))
    plain = weights_after(tiny(rounds=1))
    assert {name: t.shape for name, t in laid_out.items()} == {name: t.shape for name, t in plain.items()}
    assert max((laid_out[name] - plain[name]).abs().max() for name in plain) < 1e-3


def test_auto_is_a_device_that_is_there():
    assert Compute("auto").torch_device.type in ("cpu", "cuda", "mps")


@pytest.mark.parametrize(("field", "value"), [("precision", "int8"), ("device", "cuda:99"), ("device", "abacus")])
def test_what_cannot_be_used_is_refused_with_a_way_out(field, value):
    with pytest.raises(UserError, match=r"choose one of|try --device cpu"):
        Compute(**{field: value})
