"""Backbones: named levels of MONAI's BasicUNet, UNet, DynUNet and SegResNet, and `build_segmenter`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet
from torch import nn

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.choices import known
from fedbcs_monai.networks.frequency import StyleRecalibration
from fedbcs_monai.networks.fusion import Fusions
from fedbcs_monai.networks.harmonize import AmplitudeNormalization
from fedbcs_monai.networks.segmenter import Segmenter

GROUPS = 8
"""Groups of the group norm."""

NORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "instance": ("instance", {"affine": True}),
    "batch": ("batch", {}),
    "batch_statistics": ("batch", {"affine": False, "track_running_stats": False}),
    "group": ("group", {"num_groups": GROUPS}),
}


class _Plan(NamedTuple):
    """What every backbone is built from."""

    spatial_dims: int
    in_channels: int
    out_channels: int
    features: tuple[int, ...]
    norm: tuple[str, dict[str, Any]]
    dropout: float


class _Named(NamedTuple):
    """A network, the modules whose outputs are its levels, shallow first, its deepest map, and what it takes.

    The sizes that it takes are multiples of `multiple`.
    """

    network: nn.Module
    encoder: list[str]
    decoder: list[str]
    bottleneck: str
    multiple: int = 1


def build_segmenter(
    backbone: str = "BasicUNet",
    spatial_dims: int = 2,
    in_channels: int = 3,
    out_channels: int = 2,
    features: Sequence[int] = (32, 64, 128, 256, 512),
    norm: str = "group",
    recalibrate: Sequence[int] = (),
    recalibrate_decoder: Sequence[int] = (),
    style: Mapping[str, Any] | None = None,
    context: Mapping[str, Any] | None = None,
    harmonize: Mapping[str, Any] | None = None,
    dropout: float = 0.0,
) -> Segmenter:
    """Put a MONAI network, its levels, and the layers that methods add to it together.

    Images may be of any size, also those that UNet, DynUNet and SegResNet alone would refuse: see `Segmenter`.

    The levels are those above the bottleneck, as in the code of Zhao et al. (AAAI 2026): four for five `features`.
    Weights are drawn from torch's global generator: `torch.manual_seed(0)` before the call makes them repeatable.

    `norm` is a choice that matters. Style recalibration mixes a map with its instance norm, so behind a block that ends
    in one it does next to nothing. And it matters without recalibration: FedAvg on four nuclei sites scored a mean Dice
    of 73.9 with group norm against 70.0 with instance norm in one small setting, and a single site moved by 11 points.
    The default is "group", by the mean validation Dice over two tasks and four methods (docs/study.md: 65.8 against
    65.2 with instance norm; on nuclei alone instance norm led). On prostate "batch_statistics" was better by three
    points on validation cases, at the price that a mask depends on what is segmented beside it.

    Args:
        backbone: "BasicUNet", "UNet", "DynUNet" or "SegResNet".
        spatial_dims: 2 or 3.
        in_channels: of the image.
        out_channels: K, classes with background.
        features: channels of each level, full resolution first, the bottleneck last. BasicUNet takes five; those of
            SegResNet double from level to level.
        norm: "group" (8 groups, nothing to average but its affine), "instance" (affine), "batch" (running statistics,
            averaged over sites) or "batch_statistics" (no affine, no running statistics: the result for one image
            depends on its batch, also in evaluation; the authors' code).
        recalibrate: encoder levels behind which style recalibration goes, 1 is full resolution. () is the plain
            network. The experiments of FedBCS take every level of both halves (Zhao et al., eq. 8, 9); the authors'
            code takes (2, 3, 4) of the encoder.
        recalibrate_decoder: decoder levels likewise.
        style: arguments of `StyleRecalibration` besides the channels, such as its gate; the experiments of FedBCS
            take two learnt numbers, {"gate": "scalar"}.
        context: arguments of the context fusion (`Fusions`) besides the channels, such as its width; None is none.
        harmonize: arguments of the `AmplitudeNormalization` of the images besides channels and axes, such as its
            half_width; None is none.
        dropout: probability in every block; 0 is none.
    """
    known("norm", norm, NORMS)
    StyleRecalibration(features[0], **style or {})  # also where it is not used, a wrong argument is an error
    if spatial_dims not in (2, 3):
        raise UserError(f"spatial_dims must be 2 or 3, got {spatial_dims}")
    build = _BUILDERS[known("backbone", backbone, _BUILDERS)]
    if norm == "group" and any(width % GROUPS for width in features):
        raise UserError(f"norm 'group' needs features that are multiples of {GROUPS}, got {tuple(features)}")
    network, encoder, decoder, bottleneck, multiple = build(
        _Plan(spatial_dims, in_channels, out_channels, tuple(features), NORMS[norm], dropout)
    )
    for level in (*recalibrate, *recalibrate_decoder):
        if not 1 <= level <= len(encoder):
            raise UserError(f"{backbone} has levels 1 to {len(encoder)}, cannot recalibrate level {level}")
    inner = [_of_one_input(decoder[level - 1], network) for level in recalibrate_decoder]
    segmenter = Segmenter(
        network,
        encoder,
        decoder,
        [encoder[level - 1] for level in recalibrate] + inner,
        style,
        bottleneck=bottleneck,
        in_channels=in_channels,
        spatial_dims=spatial_dims,
        multiple=multiple,
    )
    if context is not None:
        down, up = ([level.channels for level in s] for s in (segmenter.encoder_levels, segmenter.decoder_levels))
        segmenter.fusion = Fusions(down, up, **context)
    if harmonize is not None:
        segmenter.harmonize = AmplitudeNormalization(in_channels, spatial_dims, **harmonize)
    return segmenter


def _of_one_input(name: str, network: nn.Module) -> str:
    """The last part of a decoder block: BasicUNet's and DynUNet's blocks take the skip as a second input."""
    parts = dict(network.get_submodule(name).named_children())
    return next((f"{name}.{part}" for part in ("convs", "conv_block") if part in parts), name)


def _basic_unet(plan: _Plan) -> _Named:
    if len(plan.features) != 5:
        raise UserError(f"BasicUNet takes five features, got {plan.features}; UNet and DynUNet take any number")
    network = BasicUNet(
        plan.spatial_dims,
        plan.in_channels,
        plan.out_channels,
        (*plan.features, plan.features[0]),
        norm=plan.norm,
        dropout=plan.dropout,
    )
    return _Named(
        network,
        ["conv_0", "down_1", "down_2", "down_3"],
        ["upcat_1", "upcat_2", "upcat_3", "upcat_4"],
        "down_4",
    )


def _unet(plan: _Plan) -> _Named:
    """MONAI's UNet has no bottleneck below its last level and no map between its first level and the logits.

    So decoder level l is what comes up from below into level l, at that level's size: the deepest is the bottom layer.
    """
    depth = len(plan.features) - 1
    network = UNet(
        plan.spatial_dims,
        plan.in_channels,
        plan.out_channels,
        plan.features,
        (1,) + (2,) * (depth - 1),
        norm=plan.norm,
        dropout=plan.dropout,
    )
    blocks = ["model" + ".1.submodule" * level for level in range(depth + 1)]
    return _Named(
        network,
        [f"{block}.0" for block in blocks[:-1]],
        [f"{block}.2" for block in blocks[1:-1]] + [blocks[-1]],
        blocks[-1],
        2 ** (depth - 1),
    )


def _dyn_unet(plan: _Plan) -> _Named:
    depth = len(plan.features) - 1
    network = DynUNet(
        plan.spatial_dims,
        plan.in_channels,
        plan.out_channels,
        kernel_size=[3] * (depth + 1),
        strides=[1] + [2] * depth,
        upsample_kernel_size=[2] * depth,
        filters=plan.features,
        norm_name=plan.norm,
        dropout=plan.dropout or None,
    )
    # Every block is also in the tree that is executed: one name for each is enough, and half the message.
    del network.input_block, network.downsamples, network.bottleneck, network.upsamples
    blocks = ["skip_layers" + ".next_layer" * level for level in range(depth)]
    return _Named(
        network,
        [f"{block}.downsample" for block in blocks],
        [f"{block}.upsample" for block in blocks],
        f"{blocks[-1]}.next_layer",
        2**depth,
    )


def _seg_resnet(plan: _Plan) -> _Named:
    depth = len(plan.features) - 1
    if plan.features != tuple(plan.features[0] * 2**level for level in range(depth + 1)):
        raise UserError(f"SegResNet doubles its features from level to level, got {plan.features}")
    network = SegResNet(
        plan.spatial_dims,
        plan.features[0],
        plan.in_channels,
        plan.out_channels,
        dropout_prob=plan.dropout or None,
        norm=plan.norm,
        blocks_down=(1,) + (2,) * (depth - 1) + (4,),
        blocks_up=(1,) * depth,
    )
    return _Named(
        network,
        [f"down_layers.{level}" for level in range(depth)],
        [f"up_layers.{depth - 1 - level}" for level in range(depth)],
        f"down_layers.{depth}",
        2**depth,
    )


_BUILDERS = {"BasicUNet": _basic_unet, "UNet": _unet, "DynUNet": _dyn_unet, "SegResNet": _seg_resnet}
