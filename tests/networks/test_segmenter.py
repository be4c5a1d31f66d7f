"""The segmenter: levels, hooks, other weights, recalibration in the main path."""

from io import BytesIO

import pytest
import torch
from torch import Tensor, nn

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.frequency import StyleRecalibration
from fedbcs_monai.networks.segmenter import Level, Segmenter, feature_layer, features_under, pooled


class TwoLevels(nn.Module):
    """A U-Net of one skip: 4 channels at full size, 6 at half."""

    def __init__(self) -> None:
        super().__init__()
        self.top = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4))
        self.down = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1))
        self.up = nn.ConvTranspose2d(6, 4, 2, stride=2)
        self.join = nn.Conv2d(8, 4, 3, padding=1)
        self.head = nn.Conv2d(4, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        top = self.top(image)
        joined = self.join(torch.cat([top, self.up(self.down(top))], dim=1))
        return self.head(joined)


class Unscriptable(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, *maps, **options):
        return sum(maps, *options)


def segmenter(**options) -> Segmenter:
    torch.manual_seed(0)
    return Segmenter(TwoLevels(), ["top", "down"], ["join", "up"], in_channels=1, spatial_dims=2, **options)


def image() -> Tensor:
    return torch.randn(2, 1, 8, 6, generator=torch.Generator().manual_seed(1))


def hooks(network: nn.Module) -> int:
    return sum(len(module._forward_hooks) for module in network.modules())


def test_levels_are_measured_shallow_first():
    network = segmenter()
    assert network.encoder_levels == (Level("top", 4, (1, 1)), Level("down", 6, (2, 2)))
    assert network.decoder_levels == (Level("join", 4, (1, 1)), Level("up", 4, (1, 1)))


def test_measuring_leaves_mode_and_running_statistics_alone():
    network, fresh = segmenter(), TwoLevels()
    assert all(module.training for module in network.modules())
    assert torch.equal(network.backbone.top[1].running_var, fresh.top[1].running_var)
    assert network.backbone.top[1].num_batches_tracked == 0


def test_recalibration_draws_no_random_numbers():
    segmenter()
    plain = torch.rand(1)
    segmenter(recalibrate=["top", "down"])
    assert torch.equal(torch.rand(1), plain)


def test_features_are_the_outputs_of_the_named_modules():
    network = segmenter().eval()
    features = network.features(image())
    assert torch.equal(features.logits, network(image()))
    assert torch.equal(features.encoder[1], network.backbone.down(features.encoder[0]))
    assert torch.equal(features.logits, network.backbone.head(features.decoder[0]))


def test_the_bottleneck_is_the_deepest_encoder_level_unless_another_is_named():
    network = segmenter().eval()
    assert torch.equal(network.features(image()).bottleneck, network.features(image()).encoder[-1])
    named = Segmenter(TwoLevels(), ["top"], ["join"], bottleneck="down", in_channels=1, spatial_dims=2).eval()
    features = named.features(image())
    assert named.bottleneck_level == Level("down", 6, (2, 2))
    assert torch.equal(features.bottleneck, named.backbone.down(features.encoder[0]))


def test_taps_are_the_deepest_map_and_the_one_before_the_last_layer():
    network = segmenter().eval()
    features = network.features(image())
    assert torch.equal(feature_layer(features, "bottleneck"), features.bottleneck)
    assert torch.equal(network.backbone.head(feature_layer(features, "penultimate")), features.logits)
    assert torch.equal(pooled(features, "bottleneck"), features.bottleneck.mean((2, 3)))


def test_recalibrated_map_is_what_skips_deeper_layers_and_features_see():
    network = segmenter(recalibrate=["top"]).eval()
    block, fsr = network.backbone.top
    assert isinstance(fsr, StyleRecalibration)
    features, expected = network.features(image()), fsr(block(image()))
    assert torch.equal(features.encoder[0], expected)
    assert torch.equal(features.encoder[1], network.backbone.down(expected))
    skipped = torch.cat([expected, features.decoder[1]], dim=1)
    assert torch.equal(features.decoder[0], network.backbone.join(skipped))


def test_a_decoder_level_can_be_recalibrated():
    network = segmenter(recalibrate=["join"], style={"gate": "scalar"}).eval()
    assert torch.equal(network.features(image()).logits, network.backbone.head(network.features(image()).decoder[0]))
    assert network.backbone.join[1].weight.shape == (4,)


def test_no_hook_stays_behind():
    network = segmenter()
    network.features(image())
    features_under(network.state_dict(), network, image())
    assert hooks(network) == 0


def test_no_hook_stays_behind_an_exception():
    network = segmenter()
    with pytest.raises(RuntimeError, match="channels"):
        network.features(torch.zeros(1, 3, 8, 8))
    assert hooks(network) == 0


def test_features_carry_gradients():
    network = segmenter(recalibrate=["down"])
    features = network.features(image())
    (features.encoder[1].sum() + features.decoder[0].sum()).backward()
    assert network.backbone.down[1].weight.grad.abs().sum() > 0
    assert network.backbone.head.weight.grad is None


def test_features_under_other_weights_are_those_of_the_other_network():
    network, other = segmenter(recalibrate=["down"]), segmenter(recalibrate=["down"])
    for tensor in other.state_dict().values():
        tensor += 1
    ours, theirs = features_under(other.state_dict(), network.eval(), image()), other.eval().features(image())
    assert torch.equal(ours.logits, theirs.logits)
    assert all(map(torch.equal, ours.encoder + ours.decoder, theirs.encoder + theirs.decoder))


def test_features_under_change_neither_the_weights_given_nor_the_network():
    network = segmenter()
    given = {name: tensor + 1 for name, tensor in network.state_dict().items()}
    copies = [{name: tensor.clone() for name, tensor in weights.items()} for weights in (given, network.state_dict())]
    features_under(given, network, image())
    for weights, copy in zip([given, network.state_dict()], copies, strict=True):
        assert all(torch.equal(weights[name], copy[name]) for name in copy)


def test_features_under_take_a_missing_name_from_the_network():
    network = segmenter()
    head = {"backbone.head.bias": network.backbone.head.bias.detach() + 1}
    assert torch.allclose(features_under(head, network, image()).logits, network(image()) + 1, atol=1e-6)
    features_under(head, network, image())
    assert network.backbone.top[1].num_batches_tracked == 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
def test_fusion_is_sent_with_the_weights_and_left_out_of_saved_scripts():
    network, file = segmenter(fusion=Unscriptable()).eval(), BytesIO()
    assert "fusion.weight" in network.state_dict()
    torch.jit.save(torch.jit.script(network), file)
    script = torch.jit.load(BytesIO(file.getvalue()))
    assert torch.equal(script(image()), network(image()))
    assert "fusion.weight" not in script.state_dict()


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
def test_fusion_can_be_attached_later():
    network = segmenter()
    network.fusion = nn.Conv2d(3, 3, 1)
    assert torch.equal(torch.jit.script(network.eval())(image()), network(image()))


def test_an_unknown_module_names_its_neighbours():
    with pytest.raises(UserError, match=r"TwoLevels has no module 'dwn'. Near it: down"):
        Segmenter(TwoLevels(), ["top", "dwn"], ["join"], in_channels=1, spatial_dims=2)
