"""NeighbouringSlicesInferer: a 2-D network on every slice of a volume."""

from collections.abc import Callable
from typing import Any

import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from torch import Tensor

from fedbcs_monai.data.transforms import neighbours


class NeighbouringSlicesInferer(Inferer):  # type: ignore[misc]  # MONAI is untyped
    """Run a 2-D network of `count` input channels over the slices of a volume and stack what it says.

    Batches never mix cases and are as even as can be (19 slices, `sw_batch_size` 8: 7, 6, 6), so that a network whose
    normalisation looks at its batch gives a case the same result whatever it is evaluated with, and no slice is alone
    unless the volume has only one.

    Args:
        count: number of neighbouring slices, as in `NeighbouringSlicesd`.
        sw_batch_size: the most slices at once; named as in MONAI's sliding window.
    """

    def __init__(self, count: int = 3, sw_batch_size: int = 16) -> None:
        super().__init__()
        self.count = count
        self.sw_batch_size = sw_batch_size

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        """Predict.

        Args:
            inputs: volumes `(B, 1, H, W, D)`.
            network: from `(N, count, H, W)` to `(N, K, H, W)`.
            args: passed on to the network.
            kwargs: passed on to the network.

        Returns:
            `(B, K, H, W, D)`; a `MetaTensor` keeps its metadata.
        """
        volumes = inputs.as_tensor() if isinstance(inputs, MetaTensor) else inputs
        outputs = torch.stack([self._predict(volume, network, *args, **kwargs) for volume in volumes])
        return MetaTensor(outputs, meta=inputs.meta) if isinstance(inputs, MetaTensor) else outputs

    def _predict(self, volume: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        slices = neighbours(volume, self.count)
        batches = slices.tensor_split(-(-len(slices) // self.sw_batch_size))
        return torch.cat([network(batch.contiguous(), *args, **kwargs) for batch in batches]).movedim(0, -1)
