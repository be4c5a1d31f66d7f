"""Harmonization: give all images one low-frequency amplitude, and keep the phase of each."""

import math

import torch
from torch import Tensor, nn

from fedbcs_monai.errors import UserError


class AmplitudeNormalization(nn.Module):
    """Give every image the federation's mean amplitude at its lowest frequencies (Jiang et al., AAAI 2022).

    Amplitudes are those of the Fourier transform divided by the number of pixels, so they do not depend on the size of
    the image, and windows of any size can be normalised. With `half_width` 0 only the constant frequency is exchanged:
    a channel of mean m and amplitude a becomes ``x - m + sign(m) a``. This is what the authors' code does.

    Before amplitudes are collected, and at frequencies that an image does not have, the image passes unchanged. A
    channel whose mean is only noise around 0 has a random sign: scale intensities to 0 and above first.

    Args:
        channels: C.
        spatial_dims: 2 or 3.
        half_width: frequencies from -half_width to half_width, in cycles per image, are exchanged on every axis. Images
            must have more than twice as many pixels a side.
    """

    amplitude: Tensor
    """(C, 2 half_width + 1, ...), one axis for each of the image's; 0 where nothing was collected."""

    def __init__(self, channels: int, spatial_dims: int, half_width: int = 0) -> None:
        super().__init__()
        if half_width < 0:
            raise UserError(f"half_width is {half_width}: it must be 0 or more")
        self.half_width = half_width
        self.register_buffer("amplitude", torch.zeros(channels, *[2 * half_width + 1] * spatial_dims))

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> the same."""
        x = image.to(torch.promote_types(image.dtype, torch.float32))
        real, imaginary = low_frequencies(x, self.half_width)
        square = real.square() + imaginary.square()
        gain = torch.where(self.amplitude > 0, self.amplitude * torch.rsqrt(square.clamp_min(1e-30)), 1.0)
        return (x + waves(real * (gain - 1), imaginary * (gain - 1), list(x.shape[2:]))).to(image.dtype)

    @torch.no_grad()
    def collect(self, image: Tensor, share: float) -> None:
        """Move the amplitude by a share of the way to the mean of a batch; 1 replaces it."""
        real, imaginary = low_frequencies(image.float(), self.half_width)
        self.amplitude.lerp_((real.square() + imaginary.square()).sqrt().mean(0), share)


def low_frequencies(image: Tensor, half_width: int) -> tuple[Tensor, Tensor]:
    """Real and imaginary part of the lowest frequencies of FFT(image) / pixels, the constant one in the middle.

    Sums instead of a transform: there are few frequencies, and neither autocast nor an exporter touches them.

    Args:
        image: (B, C, H, W[, D]).
        half_width: F = 2 half_width + 1 frequencies on every axis.

    Returns:
        two of (B, C, F, F[, F])
    """
    real, imaginary = image, torch.zeros_like(image)
    for size in image.shape[2:]:
        cosine, sine = _basis(size, half_width, image)
        # The first spatial axis goes, its frequencies come last: after all axes, the order is as before.
        r, i = real.movedim(2, -1)[..., None], imaginary.movedim(2, -1)[..., None]
        real, imaginary = (r * cosine + i * sine).mean(-2), (i * cosine - r * sine).mean(-2)
    return real, imaginary


def waves(real: Tensor, imaginary: Tensor, size: list[int]) -> Tensor:
    """The inverse of `low_frequencies`: the real image (B, C, *size) that has these frequencies and no other."""
    half_width = real.shape[2] // 2
    for length in size:
        cosine, sine = _basis(length, half_width, real)
        r, i = real.movedim(2, -1)[..., None, :], imaginary.movedim(2, -1)[..., None, :]
        real, imaginary = (r * cosine - i * sine).sum(-1), (i * cosine + r * sine).sum(-1)
    return real


def _basis(size: int, half_width: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the frequencies -half_width..half_width on an axis, (size, 2 half_width + 1)."""
    frequency = torch.arange(-half_width, half_width + 1, device=like.device)
    position = torch.arange(size, device=like.device)
    angle = (position[:, None] * frequency).to(like.dtype) * (2 * math.pi / size)
    return angle.cos(), angle.sin()
