"""Compute: device, precision, memory layout and compilation of a network."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from fedbcs_monai.errors import UserError

PRECISIONS: Mapping[str, torch.dtype] = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Compute:
    """Device, precision and memory layout of training and evaluation.

    Args:
        device: ``auto`` takes cuda, else mps, else cpu.
        precision: ``float32``, or ``bfloat16`` / ``float16`` for mixed precision; spectra and losses stay in float32.
        channels_last: keep images and 2-D or 3-D convolutions in channels-last layout.
        compile: `torch.compile` the plain forward pass. A method that listens to features runs uncompiled.
    """

    device: str = "auto"
    precision: str = "float32"
    channels_last: bool = False
    compile: bool = False

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.precision not in PRECISIONS:
            raise UserError(f"precision is {self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        try:
            torch.empty(0, device=self.torch_device)
        except (RuntimeError, AssertionError) as error:
            raise UserError(f"device {self.device!r} cannot be used here; try --device cpu") from error

    @property
    def torch_device(self) -> torch.device:
        """The device that ``auto`` stands for."""
        if self.device != "auto":
            return torch.device(self.device)
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

    def autocast(self) -> AbstractContextManager[Any]:
        """The context in which a network runs."""
        if self.precision == "float32":
            return nullcontext()
        return torch.autocast(self.torch_device.type, dtype=PRECISIONS[self.precision])

    @contextmanager
    def inference(self) -> Iterator[None]:
        """The context in which a trained network is used."""
        with torch.inference_mode(), self.autocast():
            yield

    def scaler(self) -> torch.amp.GradScaler:
        """A gradient scaler, which only float16 needs."""
        return torch.amp.GradScaler(self.torch_device.type, enabled=self.precision == "float16")

    def place(self, network: nn.Module) -> nn.Module:
        """Move a network to the device, in place.

        Raises:
            UserError: it is to be compiled, and nothing can be here.
        """
        network.to(self.torch_device)
        if self.channels_last:
            for parameter in network.parameters():
                parameter.data = self._laid_out(parameter.data)
        if self.compile:
            _check_compiler(self.torch_device)
            # On a CPU the compiler's own choice of layouts does not fit the gradient of BasicUNet's padding.
            cpu = self.torch_device.type == "cpu"
            network.compile(options={"layout_optimization": False} if cpu else None)
        return network

    def batch(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Move a batch to the device."""
        moved = {name: tensor.to(self.torch_device, non_blocking=True) for name, tensor in batch.items()}
        return {**moved, "image": self._laid_out(moved["image"])} if self.channels_last else moved

    def _laid_out(self, tensor: Tensor) -> Tensor:
        layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(tensor.ndim)
        return tensor if layout is None else tensor.contiguous(memory_format=layout)


def _check_compiler(device: torch.device) -> None:
    """Compile a sum, which takes the same compiler as a network."""
    try:
        torch.compile(torch.add)(torch.zeros(2, device=device), 1)
    except Exception as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise UserError(
            f"compile is true, and nothing can be compiled for {device.type} here ({line}); install a C++ compiler "
            "such as g++, or set compile to false"
        ) from error
