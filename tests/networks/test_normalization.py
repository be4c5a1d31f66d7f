"""Normalization layers: which tensors are theirs in every backbone, and passes that leave statistics alone."""

import pytest
import torch

from fedbcs_monai.networks import build_segmenter
from fedbcs_monai.networks.normalization import normalization_tensors, statistics_kept

ENDINGS = {
    "batch": {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"},
    "instance": {"weight", "bias"},
    "group": {"weight", "bias"},
    "batch_statistics": set(),
}


def network(backbone="BasicUNet", norm="batch", dims=2):
    features = (8, 16, 32, 64, 128) if backbone == "SegResNet" else (8,) * 5
    return build_segmenter(backbone, dims, 1, 2, features, norm=norm, recalibrate=(2, 3))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("norm", ENDINGS)
@pytest.mark.parametrize("backbone", ["BasicUNet", "UNet", "DynUNet", "SegResNet"])
def test_layers_are_found_in_every_backbone(backbone, norm, dims):
    made = network(backbone, norm, dims)
    found = normalization_tensors(made)
    assert found <= made.state_dict().keys()
    assert {name.rpartition(".")[2] for name in found} == ENDINGS[norm]
    # What is one number a channel and not found belongs to convolutions, activations or style recalibration.
    left = {name.rpartition(".")[0] for name, t in made.state_dict().items() if name not in found and t.dim() == 1}
    owners = {type(made.get_submodule(name)).__name__ for name in left}
    assert owners <= {f"Conv{dims}d", f"ConvTranspose{dims}d", "PReLU", "StyleRecalibration"}


def test_kept_statistics_change_no_output_and_no_buffer():
    image = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    made = network().train()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    with statistics_kept(made):
        kept = made(image)
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert torch.equal(made(image), kept)
    assert not all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())


def test_statistics_are_kept_again_after_an_exception():
    made = network().train()
    with pytest.raises(RuntimeError, match="stop"), statistics_kept(made):
        raise RuntimeError("stop")
    made(torch.rand(2, 1, 32, 32))
    counts = {int(t) for name, t in made.state_dict().items() if name.endswith("num_batches_tracked")}
    assert counts == {1}
