"""The four backbones: their levels, and that they stay what MONAI made them."""

import monai.networks.nets as nets
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.backbones import NORMS, build_segmenter
from fedbcs_monai.networks.segmenter import Segmenter, features_under

BACKBONES = ["BasicUNet", "UNet", "DynUNet", "SegResNet"]
CASES = [(name, dims) for name in BACKBONES for dims in (2, 3)]
GROUP = ("group", {"num_groups": 8})


def small(backbone: str, spatial_dims: int = 2, **options) -> Segmenter:
    torch.manual_seed(0)
    features = (8, 16, 32, 64, 128) if backbone == "SegResNet" else (8, 16, 16, 32, 32)
    return build_segmenter(backbone, spatial_dims, 1, 2, features, **options).eval()


def image(spatial_dims: int = 2, batch: int = 2, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 1, *[side] * (spatial_dims - 1), 32, generator=generator)


def bare(backbone: str) -> torch.nn.Module:
    torch.manual_seed(0)
    match backbone:
        case "BasicUNet":
            return nets.BasicUNet(2, 1, 2, (8, 16, 16, 32, 32, 8), norm=GROUP)
        case "UNet":
            return nets.UNet(2, 1, 2, (8, 16, 16, 32, 32), (1, 2, 2, 2), norm=GROUP)
        case "DynUNet":
            strides = [1, 2, 2, 2, 2]
            return nets.DynUNet(2, 1, 2, [3] * 5, strides, strides[1:], (8, 16, 16, 32, 32), norm_name=GROUP)
        case _:
            return nets.SegResNet(2, 8, 1, 2, norm=GROUP, blocks_down=(1, 2, 2, 2, 4), blocks_up=(1, 1, 1, 1))


@pytest.mark.parametrize(("backbone", "dims"), CASES)
def test_levels_have_the_channels_and_strides_asked_for(backbone, dims):
    network = small(backbone, dims)
    widths = [8, 16, 32, 64] if backbone == "SegResNet" else [8, 16, 16, 32]
    assert [level.channels for level in network.encoder_levels] == widths
    above = [8, 16, 16, 32] if backbone == "UNet" else widths
    assert [level.channels for level in network.decoder_levels] == above
    for levels in (network.encoder_levels, network.decoder_levels):
        assert [level.stride for level in levels] == [(stride,) * dims for stride in (1, 2, 4, 8)]


def test_basic_unet_keeps_the_names_of_its_levels():
    network = small("BasicUNet")
    assert [level.name for level in network.encoder_levels] == ["conv_0", "down_1", "down_2", "down_3"]
    assert [level.name for level in network.decoder_levels] == ["upcat_1", "upcat_2", "upcat_3", "upcat_4"]


@pytest.mark.parametrize(("backbone", "dims"), CASES)
def test_the_bottleneck_lies_below_all_levels(backbone, dims):
    network = small(backbone, dims)
    stride = 8 if backbone == "UNet" else 16  # UNet's lowest layer is as large as the level above it
    assert network.bottleneck_level.channels == (128 if backbone == "SegResNet" else 32)
    assert network.bottleneck_level.stride == (stride,) * dims
    side = 32 // stride
    assert network.features(image(dims)).bottleneck.shape == (2, network.bottleneck_level.channels, *[side] * dims)


@pytest.mark.parametrize("recalibrate", [(), (1, 2, 3, 4)], ids=["plain", "recalibrated"])
@pytest.mark.parametrize(("backbone", "dims"), CASES)
def test_features_have_the_logits_of_forward_and_the_maps_measured(backbone, dims, recalibrate):
    network = small(backbone, dims, recalibrate=recalibrate)
    features = network.features(image(dims))
    assert torch.equal(features.logits, network(image(dims)))
    for maps, levels in [(features.encoder, network.encoder_levels), (features.decoder, network.decoder_levels)]:
        for feature, level in zip(maps, levels, strict=True):
            assert feature.shape == (2, level.channels, *(32 // stride for stride in level.stride))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_without_recalibration_it_is_the_bare_monai_network(backbone):
    ours, theirs = small(backbone), bare(backbone).eval()
    state = theirs.state_dict()
    for name, tensor in ours.backbone.state_dict().items():
        assert torch.equal(tensor, state[name])
    assert torch.equal(ours(image()), theirs(image()))


@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_weight_has_one_name(backbone):
    state = small(backbone, recalibrate=(2, 3)).state_dict()
    assert len({tensor.data_ptr() for tensor in state.values()}) == len(state)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_recalibration_changes_the_logits_and_is_trained(backbone):
    network = small(backbone, recalibrate=(2,)).train()
    assert not torch.equal(network(image()), small(backbone)(image()))
    network(image()).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize(("backbone", "dims"), CASES)
def test_scripts_with_the_same_logits(backbone, dims):
    network = small(backbone, dims, recalibrate=(2, 3))
    torch.testing.assert_close(torch.jit.script(network)(image(dims)), network(image(dims)))


@pytest.mark.parametrize(
    ("backbone", "dims"), [pytest.param(*case, marks=[pytest.mark.slow] * (case[1] == 3)) for case in CASES]
)
def test_exports_with_free_batch_and_size(backbone, dims):
    network = small(backbone, dims, recalibrate=(2,))
    free = {axis: 16 * torch.export.Dim(f"size{axis}", min=2) for axis in range(2, 2 + dims)}
    free[0] = torch.export.Dim("batch")
    program = torch.export.export(network, (image(dims),), dynamic_shapes=(free,)).module()
    other = image(dims, batch=3, side=48)
    torch.testing.assert_close(program(other), network(other))


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_compiles_with_the_same_logits(backbone):
    network = small(backbone, recalibrate=(2,))
    torch.testing.assert_close(torch.compile(network, backend="eager")(image()), network(image()))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_backbone_takes_every_norm_and_dropout(backbone, norm):
    network = small(backbone, norm=norm, recalibrate=(2,), dropout=0.5)
    assert network(image()).shape == (2, 2, 32, 32)
    assert not torch.equal(network.train()(image()), network(image()))


def test_batch_statistics_have_no_state_of_their_own():
    assert not any(
        "running" in name or "norm" in name.lower() for name in small("BasicUNet", norm="batch_statistics").state_dict()
    )


def test_basic_unet_takes_odd_sizes():
    assert small("BasicUNet", recalibrate=(2, 3, 4))(image(side=37)).shape == (2, 2, 37, 32)


SIZES = st.integers(1, 70), st.integers(1, 70)


@settings(max_examples=25, deadline=None)
@given(backbone=st.sampled_from(BACKBONES), size=st.tuples(*SIZES), training=st.booleans())
def test_every_backbone_takes_every_size(backbone, size, training):
    network = small(backbone, recalibrate=(1, 2), recalibrate_decoder=(1,)).train(training)
    picture = torch.randn(2, 1, *size, generator=torch.Generator().manual_seed(1))
    features = network.features(picture)
    assert features.logits.shape == (2, 2, *size)
    assert torch.equal(features.logits, network(picture))
    for maps, levels in [(features.encoder, network.encoder_levels), (features.decoder, network.decoder_levels)]:
        for feature, level in zip(maps, levels, strict=True):
            assert feature.shape[2:] == tuple(max(side // level.stride[0], 1) for side in size)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_volume_may_have_fewer_slices_than_the_network_halves(backbone):
    network = small(backbone, 3)
    volume = torch.randn(1, 1, 33, 20, 5, generator=torch.Generator().manual_seed(1))
    assert network(volume).shape == (1, 2, 33, 20, 5)
    assert torch.equal(features_under({}, network, volume).logits, network(volume))


@pytest.mark.parametrize("backbone", BACKBONES[1:])
def test_what_is_added_to_an_image_repeats_its_last_pixels_and_is_cut_off_again(backbone):
    network = small(backbone)
    picture = image()[:, :, :27, :30]
    whole = torch.cat([picture, picture[:, :, -1:].expand(-1, -1, 5, -1)], dim=2)
    whole = torch.cat([whole, whole[..., -1:].expand(-1, -1, -1, 2)], dim=3)
    assert torch.equal(network(picture), network.backbone(whole)[:, :, :27, :30])


@pytest.mark.parametrize("backbone", BACKBONES)
def test_an_image_of_a_size_that_the_network_takes_is_not_touched(backbone):
    network = small(backbone)
    for side in (16, 37) if backbone == "BasicUNet" else (16, 48):
        assert torch.equal(network(image(side=side)), network.backbone(image(side=side)))


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_script_takes_every_size_too(backbone):
    network = small(backbone)
    script = torch.jit.script(network)
    for side in (7, 32, 45):
        torch.testing.assert_close(script(image(side=side)), network(image(side=side)))


def test_a_seed_makes_the_weights_repeatable():
    first, second = small("UNet", recalibrate=(2,)).state_dict(), small("UNet", recalibrate=(2,)).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "BasicUnet"}, "did you mean 'BasicUNet'"),
        ({"norm": "groups"}, "did you mean 'group'"),
        ({"style": {"gate": "adaptve"}}, "did you mean 'adaptive'"),
        ({"recalibrate": (5,)}, "levels 1 to 4, cannot recalibrate level 5"),
        ({"features": (12, 24, 48, 96, 192)}, "multiples of 8"),
        ({"features": (8, 16, 32)}, "takes five features"),
        ({"backbone": "SegResNet", "features": (8, 16, 16)}, "doubles its features"),
        ({"spatial_dims": 1}, "2 or 3"),
    ],
)
def test_an_impossible_setting_says_what_would_work(options, message):
    with pytest.raises(UserError, match=message):
        build_segmenter(**options)
