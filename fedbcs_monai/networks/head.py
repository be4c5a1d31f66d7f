"""Head: the 1x1 convolution that makes the logits, and its input features."""

from contextlib import ExitStack
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.segmenter import Segmenter, cut


class HeadPass(NamedTuple):
    """One pass through a network whose logits are ``W z + b`` at every pixel.

    Args:
        logits: (B, K, H, W[, D]).
        feature: z, (B, D, H, W[, D]).
        name: of the convolution in the network: ``name.weight`` and ``name.bias`` are W and b.
    """

    logits: Tensor
    feature: Tensor
    name: str


def through_head(network: Segmenter, image: Tensor) -> HeadPass:
    """The logits of `forward`, bit for bit, and what the last convolution makes them of.

    Raises:
        UserError: the network does not end in a 1x1 convolution with bias, as MONAI's UNet does not.
    """
    passes: list[HeadPass] = []

    def keep(name: str, _module: nn.Module, args: tuple[Tensor, ...], output: Any) -> None:
        passes.append(HeadPass(output, args[0], name))

    with ExitStack() as hooks:
        for name, module in network.named_modules():
            if _pixel_by_pixel(module):
                hooks.enter_context(module.register_forward_hook(partial(keep, name)))
        logits = network.forward(image)
    if not passes or passes[-1].logits.data_ptr() != logits.data_ptr():
        raise UserError("this method needs a network that ends in a 1x1 convolution: BasicUNet, DynUNet or SegResNet")
    last = passes[-1]
    return HeadPass(logits, cut(last.feature, list(logits.shape[2:])), last.name)


def _pixel_by_pixel(module: nn.Module) -> bool:
    if not isinstance(module, (nn.Conv2d, nn.Conv3d)):
        return False
    return set(module.kernel_size) == {1} and module.bias is not None


def heads(network: Segmenter) -> list[str]:
    """Names of the 1x1 convolutions that may be the last: those with as many channels as there are classes."""
    return [
        name
        for name, module in network.backbone.named_modules(prefix="backbone")
        if _pixel_by_pixel(module) and module.out_channels == network.classes
    ]
