"""Style: mean and standard deviation of image channels and shallow features over one case."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fedbcs_monai.networks.segmenter import Segmenter

LEVELS = 2
"""So many encoder levels are listened to."""


class Style:
    """Sums over the passes of one case; windows and slices may come one after the other.

    Mean and deviation of a channel are what style transfer calls style (Huang and Belongie, ICCV 2017, eq. 5-7): they
    hold what scanner, stain and protocol do to an image, and nothing of where in it something lies.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, name: str, maps: Tensor) -> None:
        """Add maps (B, C, H, W[, D]). Rows are summed where they are, and all the rest in float64 on the CPU."""
        rows = maps.detach().float()
        each = (rows.sum(-1), torch.linalg.vector_norm(rows, dim=-1))
        sums, norms = (part.to("cpu", torch.float64).movedim(1, 0).flatten(1) for part in each)
        counts = torch.full((len(sums),), maps.numel() // len(sums))
        found = torch.stack([counts, sums.sum(1), norms.square().sum(1)])
        self._sums[name] = self._sums[name] + found if name in self._sums else found

    def vector(self) -> Tensor:
        """Means, then standard deviations, of all channels of all maps: (D,) in float32."""
        counts, sums, squares = torch.cat([self._sums[name] for name in sorted(self._sums)], dim=1)
        means = sums / counts
        return torch.cat([means, (squares / counts - means.square()).clamp_min(0).sqrt()]).float()


@contextmanager
def style_of(network: Segmenter) -> Iterator[Style]:
    """Collect the style of all that passes through a network for as long as the context lasts.

    Of the image as the backbone sees it, and of the shallowest encoder levels: what lies deeper follows from the style
    and from what is shown, and there are too few cases to tell these apart.
    """
    style = Style()

    def record(name: str, _module: nn.Module, _args: Any, output: Tensor) -> None:
        style.add(name, output)

    with ExitStack() as hooks:
        shallow = [level.name for level in network.encoder_levels[:LEVELS]]
        heard_of = {"image": network.harmonize} | {name: network.backbone.get_submodule(name) for name in shallow}
        for name, module in heard_of.items():
            hooks.enter_context(module.register_forward_hook(partial(record, name)))
        yield style
