"""Segmenter: a segmentation network with named levels whose features can be captured."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.frequency import StyleRecalibration


class Level(NamedTuple):
    """One level of the encoder or the decoder, as measured."""

    name: str
    """Dotted name of the module whose output it is."""
    channels: int
    stride: tuple[int, ...]
    """Pixels of the image per pixel of the map, one number per spatial axis."""


class Features(NamedTuple):
    """What one pass gives: shallow levels come first, in the encoder and in the decoder."""

    logits: Tensor
    """(B, K, H, W[, D])"""
    encoder: tuple[Tensor, ...]
    """(B, C_l, H / s_l, W / s_l[, D / s_l]) for each of `Segmenter.encoder_levels`"""
    decoder: tuple[Tensor, ...]
    """The same for each of `Segmenter.decoder_levels`."""
    bottleneck: Tensor
    """The deepest map, of `Segmenter.bottleneck_level`."""


FEATURE_LAYERS = ("bottleneck", "penultimate")


def feature_layer(features: Features, where: str) -> Tensor:
    """The map that a method compares between networks or with prototypes, one of `FEATURE_LAYERS`.

    The `bottleneck` is the deepest map, and the `penultimate` one the finest of the decoder: what the last layer reads
    (in MONAI's UNet, what comes up into its last block).
    """
    return features.bottleneck if where == "bottleneck" else features.decoder[0]


def feature_channels(network: "Segmenter", where: str) -> int:
    """Channels of a `feature_layer`."""
    return (network.bottleneck_level if where == "bottleneck" else network.decoder_levels[0]).channels


def pooled(features: Features, where: str) -> Tensor:
    """The mean of a `feature_layer` over its pixels, (B, C) in float32: global average pooling."""
    return feature_layer(features, where).flatten(2).float().mean(2)


class Segmenter(nn.Module):
    """A segmentation network with named levels and, behind some of them, style recalibration (FSR).

    `forward` is the bare network: it scripts, exports and compiles as that does. `features` is the same pass with
    forward hooks listening. The levels, and `classes`, the channels of the logits, are measured once: no other layer
    needs a number of channels.

    Images may be of any size. Where the backbone takes only certain sizes, the last pixels of an image are repeated up
    to the next of them, and the logits are cut back; maps keep the cells that the image fills. An image of a size that
    the backbone takes passes untouched.

    `harmonize` is a layer that every image passes first, wherever the network is used. It changes nothing until it is
    replaced.

    Args:
        backbone: (B, in_channels, H, W[, D]) -> logits (B, K, H, W[, D]). It is changed where `recalibrate` says.
        encoder: dotted names of the modules in `backbone` whose outputs are the encoder levels, shallow first.
        decoder: the same for the decoder, shallow first.
        recalibrate: dotted names of modules of one input behind which FSR is put, in the main path: skips, deeper
            layers and `features` see the recalibrated map (Zhao et al., AAAI 2026, eq. 8). () is the plain network.
        style: arguments of `StyleRecalibration` besides the channels.
        fusion: a module that a training method uses. It is trained and sent with the rest, but `forward` never calls it
            and scripting leaves it out.
        bottleneck: the module of the deepest map; None: there is none below the deepest encoder level.
        in_channels: of the image.
        spatial_dims: 2 or 3.
        multiple: the sizes that the backbone takes are multiples of it; 1: any that leave the bottleneck a pixel.
    """

    __jit_ignored_attributes__ = ("fusion", "encoder_levels", "decoder_levels", "bottleneck_level")

    def __init__(
        self,
        backbone: nn.Module,
        encoder: Sequence[str],
        decoder: Sequence[str],
        recalibrate: Sequence[str] = (),
        style: Mapping[str, Any] | None = None,
        fusion: nn.Module | None = None,
        *,
        bottleneck: str | None = None,
        in_channels: int,
        spatial_dims: int,
        multiple: int = 1,
    ) -> None:
        super().__init__()
        self.harmonize: nn.Module = nn.Identity()
        self.backbone = backbone
        self.fusion = fusion
        # The smallest image that leaves the bottleneck two pixels a side: some norms refuse one.
        image = torch.zeros(1, in_channels, *[2 ** (len(encoder) + 1)] * spatial_dims)
        bottleneck = bottleneck or encoder[-1]
        names = [*encoder, *decoder, bottleneck, *recalibrate]
        levels = {level.name: level for level in _measured(backbone, [*names, ""], image)}
        self.encoder_levels = tuple(levels[name] for name in encoder)
        self.decoder_levels = tuple(levels[name] for name in decoder)
        self.bottleneck_level = levels[bottleneck]
        self.in_channels, self.spatial_dims, self.multiple = in_channels, spatial_dims, multiple
        self.least = list(self.bottleneck_level.stride)
        self.classes = levels[""].channels
        for name in recalibrate:
            block = StyleRecalibration(levels[name].channels, **style or {})
            backbone.set_submodule(name, nn.Sequential(backbone.get_submodule(name), block))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> logits (B, K, H, W[, D])."""
        logits: Tensor = self.backbone(_padded(self.harmonize(image), self.multiple, self.least))
        return cut(logits, list(image.shape[2:]))

    def features(self, image: Tensor) -> Features:
        """The logits of `forward`, bit for bit, and the map of every level."""
        with _listening(self.backbone, _names(self)) as maps:
            return _gathered(self, self.forward(image), maps, image.shape[2:])


def features_under(weights: Mapping[str, Tensor], network: Segmenter, image: Tensor) -> Features:
    """The features that the same network has under other weights; nothing given is changed.

    Args:
        weights: by their names in `network.state_dict()`. Names that are missing are taken from `network`.
        network: in training or evaluation mode.
        image: (B, C, H, W[, D])
    """
    with _listening(network.backbone, _names(network)) as maps:
        harmonized = _under(weights, network, "harmonize", image)
        logits = _under(weights, network, "backbone", _padded(harmonized, network.multiple, network.least))
        return _gathered(network, cut(logits, list(image.shape[2:])), maps, image.shape[2:])


def _under(weights: Mapping[str, Tensor], network: Segmenter, part: str, image: Tensor) -> Tensor:
    module = network.get_submodule(part)
    own = {name: weights[f"{part}.{name}"] for name, _ in module.named_parameters() if f"{part}.{name}" in weights}
    # In training mode batch norm writes its running statistics into the buffers it is given.
    own |= {name: weights.get(f"{part}.{name}", buffer).clone() for name, buffer in module.named_buffers()}
    output: Tensor = functional_call(module, own, (image,))
    return output


def _names(network: Segmenter) -> list[str]:
    return [level.name for level in (*network.encoder_levels, *network.decoder_levels, network.bottleneck_level)]


def _padded(image: Tensor, multiple: int, least: list[int]) -> Tensor:
    """An image whose sides are multiples, and not below the least; what is added repeats the last pixel of its axis."""
    padding: list[int] = []  # in F.pad's order: the last axis first, before and behind
    for axis in range(image.dim() - 1, 1, -1):
        side = image.shape[axis]
        padding += [0, max(-(-side // multiple) * multiple, least[axis - 2]) - side]
    return F.pad(image, padding, mode="replicate") if max(padding) > 0 else image


def cut(maps: Tensor, size: list[int]) -> Tensor:
    """The first ``size`` elements of every spatial axis, (B, C, *size)."""
    for axis, side in enumerate(size):
        if maps.shape[axis + 2] > side:
            maps = maps.narrow(axis + 2, 0, side)
    return maps


def _gathered(network: Segmenter, logits: Tensor, maps: Mapping[str, Tensor], size: Sequence[int]) -> Features:
    """The maps of the levels, without the cells that an image of some size does not fill."""

    def at(level: Level) -> Tensor:
        sides = (max(side // step, 1) for side, step in zip(size, level.stride, strict=True))
        return cut(maps[level.name], list(sides))

    encoder, decoder = (tuple(map(at, levels)) for levels in (network.encoder_levels, network.decoder_levels))
    return Features(logits, encoder, decoder, at(network.bottleneck_level))


def _measured(backbone: nn.Module, names: Sequence[str], image: Tensor) -> list[Level]:
    modules = dict(backbone.named_modules())
    for name in names:
        if name not in modules:
            near = get_close_matches(name, modules, n=5, cutoff=0.3) or [
                child for child, _ in backbone.named_children()
            ]
            raise UserError(f"{type(backbone).__name__} has no module {name!r}. Near it: {', '.join(near)}")
    with eval_mode(backbone), _listening(backbone, names) as maps:
        backbone(image)
    size = image.shape[2:]
    return [
        Level(name, maps[name].shape[1], tuple(a // b for a, b in zip(size, maps[name].shape[2:], strict=True)))
        for name in names
    ]


@contextmanager
def _listening(module: nn.Module, names: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Collect the outputs of named submodules for as long as the context lasts."""
    maps: dict[str, Tensor] = {}

    def keep(name: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
        maps[name] = output

    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(module.get_submodule(name).register_forward_hook(partial(keep, name)))
        yield maps
