"""Style recalibration (FSR): weight a feature map by its own instance norm, by FFT or in closed form."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.choices import known

GATES = ("scalar", "channel", "adaptive", "literal", "banded")
SPECTRUM_NORMS = {"forward": 1.0, "ortho": 0.5, "backward": 0.0}
"""FFT normalisations in torch's words: an amplitude is divided by (number of pixels) to this power."""


class StyleRecalibration(nn.Module):
    """Frequency-domain style recalibration (Zhao et al., AAAI 2026, eq. 4-7).

        y = IFT(l_norm |FFT(IN x)| + l_org |FFT x|, phase of FFT x) * weight + bias

    with two gates l. Instance norm (IN: per sample and channel, biased variance) scales every frequency of a channel
    alike and removes the constant one, so the phases agree, the transforms cancel, and wherever the gates come from

        y = (l_norm IN(x) + l_org x) * weight + bias.

    This is what "scalar", "channel" and "adaptive" compute. The gates start at 0.5, where all but "literal" agree.
    Behind a block that ends in instance norm, IN(x) is nearly x and little is left to recalibrate.

    Half precision is computed in float32, and autocast has no hold on it. A constant channel has finite gradients.

    Args:
        channels: C.
        gate: "adaptive", gates of every sample from its mean amplitudes (eq. 6); "scalar", two learnt numbers (the
            authors' code); "channel", two for each channel (ours); "literal", |FFT(IN x)| replaced by the instance
            norm of |FFT x| (eq. 6-7 as printed); "banded", adaptive gates for each band of radial frequencies (ours).
        affine: learn weight and bias; they are the authors', not in the paper.
        temperature: of the softmax of "scalar" and "channel".
        spectrum_norm: "forward" divides the spectrum by its size N (eq. 4), "ortho" by the root of N, "backward" by 1.
            It is the scale of what the gates see and, in "literal", of the normalised part of y. With "forward" the
            gates see some 1 / sqrt(N) and the literal part grows with sqrt(N); with "ortho" neither depends on N.
        bands: number of bands of "banded"; 1 is "adaptive".
        floor: what the authors' code raises |FFT|^2 to (theirs is 1e-5), through the transform and its angles, with
            "scalar", "channel" or "adaptive". On a constant channel it leaves a spike and large gradients; 0 is the
            closed form.
    """

    def __init__(
        self,
        channels: int,
        gate: str = "adaptive",
        affine: bool = True,
        temperature: float = 0.1,
        spectrum_norm: str = "forward",
        bands: int = 4,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        power = SPECTRUM_NORMS[known("spectrum_norm", spectrum_norm, SPECTRUM_NORMS)]
        self.mix: nn.Module
        if known("gate", gate, GATES) in ("literal", "banded"):
            if floor > 0:
                raise UserError(f"floor {floor} goes with the gates scalar, channel and adaptive, got {gate}")
            self.mix = Literal(channels, spectrum_norm) if gate == "literal" else Banded(channels, bands, power)
        else:
            weights: nn.Module
            if gate == "adaptive":
                weights = AdaptiveGate(channels, power)
            else:
                weights = ScalarGate(temperature) if gate == "scalar" else ChannelGate(channels, temperature)
            closed = ClosedForm if gate == "adaptive" else FixedClosedForm
            self.mix = Floored(weights, floor) if floor > 0 else closed(weights)
        if affine:
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels))
        else:
            self.register_buffer("weight", torch.ones(channels), persistent=False)
            self.register_buffer("bias", torch.zeros(channels), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> the same."""
        x = image.to(torch.promote_types(image.dtype, torch.float32))
        recalibrated: Tensor = self.mix(x, _spread(self.weight[None], x), _spread(self.bias[None], x))
        return recalibrated.to(image.dtype)


class ClosedForm(nn.Module):
    """(l_norm IN(x) + l_org x) * weight + bias, with gates that read x."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> the same."""
        centred, mean, scale = moments(x)
        normed, original = self.gate(centred, mean, scale)
        return torch.addcmul(bias + weight * original * mean, centred, weight * (normed * scale + original))


class FixedClosedForm(nn.Module):
    """The same with gates that do not read x: training keeps only x for the backward pass."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> the same."""
        normed, original = self.gate(x, x, x)
        if torch.compiler.is_compiling() or torch.jit.is_scripting() or not torch.is_grad_enabled():  # type: ignore[attr-defined]
            centred, mean, scale = moments(x)
            return torch.addcmul(bias + weight * original * mean, centred, weight * (normed * scale + original))
        return self.differentiable(x, normed, original, weight, bias)

    @torch.jit.unused
    def differentiable(self, x: Tensor, normed: Tensor, original: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The same values, by a function with a backward pass of its own."""
        blended: Tensor = _Blend.apply(x, normed, original, weight, bias)  # type: ignore[no-untyped-call]
        return blended


class _Blend(torch.autograd.Function):
    """y = a x + c for each sample and channel, with a and c from the moments of x.

    With mean m, r = 1 / sd, size N, G = sum g and S = sum g (x - m) of the gradient g of y,

        dx = a g + c2 x + c0, a = w (l_norm r + l_org), c2 = -w l_norm r^3 S / N, c0 = -w l_norm r G / N - c2 m.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, normed: Tensor, original: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The map x (B, C, H, W[, D]); gates, weight and bias broadcast over it, a number per sample and channel."""
        centred, mean, scale = moments(x)
        ctx.save_for_backward(x, mean, scale, normed, original, weight)
        gain = weight * (normed * scale + original)
        return torch.addcmul(bias + weight * original * mean, centred, gain, out=centred)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        """The gradients of `forward`'s arguments."""
        x, mean, scale, normed, original, weight = ctx.saved_tensors
        axes, size = list(range(2, x.dim())), x[0, 0].numel()
        total = gradient.sum(dim=axes, keepdim=True)
        product = torch.linalg.vecdot(gradient.flatten(2), x.flatten(2)).view_as(mean) - mean * total
        styled = weight * normed * scale
        slope = styled * scale.square() * product / -size
        of_x = torch.addcmul(styled * total / -size - slope * mean, x, slope)
        of_x.addcmul_(gradient, styled + weight * original)
        of_original = product + mean * total
        return (
            of_x,
            (weight * scale * product).sum_to_size(normed.shape),
            (weight * of_original).sum_to_size(original.shape),
            (normed * scale * product + original * of_original).sum_to_size(weight.shape),
            total.sum_to_size(weight.shape),
        )


class Floored(nn.Module):
    """The same through amplitude and angle, with small amplitudes raised to a floor: the authors' code."""

    def __init__(self, gate: nn.Module, floor: float) -> None:
        super().__init__()
        self.gate = gate
        self.floor = floor

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> the same."""
        centred, mean, scale = moments(x)
        normed, original = self.gate(centred, mean, scale)
        axes = list(range(2, x.dim()))
        spectrum = torch.fft.rfftn(x, dim=axes)
        amplitude = normed * self.raised(torch.fft.rfftn(centred * scale, dim=axes)) + original * self.raised(spectrum)
        real = torch.where(spectrum.real.abs() < self.floor, self.floor, spectrum.real)
        recomposed = torch.polar(amplitude, torch.atan2(spectrum.imag, real))
        y: Tensor = torch.fft.irfftn(recomposed, s=x.shape[2:], dim=axes) * weight + bias
        return y

    def raised(self, spectrum: Tensor) -> Tensor:
        """Amplitudes, at least sqrt(floor)."""
        return (spectrum.real.square() + spectrum.imag.square()).clamp_min(self.floor).sqrt()


class Literal(nn.Module):
    """Eq. 6-7 as printed: chi_norm is the instance norm of the amplitude spectrum itself.

    An amplitude cannot be negative, so chi_norm is clamped at 0. The gates see its mean after that: before, it is 0.
    """

    def __init__(self, channels: int, spectrum_norm: str) -> None:
        super().__init__()
        self.gates = PooledGates(channels)
        self.spectrum_norm = spectrum_norm

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> the same."""
        axes = list(range(2, x.dim()))
        spectrum = torch.fft.fftn(x, dim=axes, norm=self.spectrum_norm)
        amplitude = spectrum.abs()
        centred, _, scale = moments(amplitude)
        flattened = torch.relu(centred * scale)
        gates = self.gates(flattened.mean(dim=axes)[:, None], amplitude.mean(dim=axes)[:, None])
        normed, original = _columns(gates[:, 0], x)
        # A real gain keeps the phase without its angle.
        gain = flattened / amplitude.clamp_min(1e-30)
        styled = torch.fft.ifftn(spectrum * gain, dim=axes, norm=self.spectrum_norm).real
        y: Tensor = weight * (normed * styled + original * x) + bias
        return y


class Banded(nn.Module):
    """Adaptive gates for each of several bands of radial frequency: no published method, and not linear in x.

    The bands are equally wide from 0 to the corner of the spectrum. The constant frequency belongs to the first.
    """

    def __init__(self, channels: int, bands: int, power: float) -> None:
        super().__init__()
        self.gates = PooledGates(channels, bands)
        self.bands = bands
        self.power = power

    def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """(B, C, H, W[, D]) -> the same."""
        centred, mean, scale = moments(x)
        size, axes = list(x.shape[2:]), list(range(2, x.dim()))
        band, times = radial_bands(size, self.bands, x)
        spectrum = torch.fft.rfftn(centred, dim=axes)
        varying, constant = self.pooled(spectrum, mean, band, times)
        deviation = scale.flatten(1)[..., None]
        gates = self.gates((varying * deviation).transpose(1, 2), (varying + constant).transpose(1, 2))
        normed, original = gates[:, None, :, 0], gates[:, None, :, 1]
        gain = normed * deviation + original
        filtered = torch.fft.irfftn(spectrum * gain[:, :, band], s=size, dim=axes)
        y: Tensor = weight * (filtered + _spread(original[:, :, 0], x) * mean) + bias
        return y

    def pooled(self, spectrum: Tensor, mean: Tensor, band: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
        """Mean amplitude of each channel in each band (B, C, bands): without the constant frequency, and its part."""
        # Not `index_add`: onnxruntime adds with several threads at once, and loses some.
        times_within = [times * (band == index) for index in range(self.bands)]
        count = torch.stack([within.sum() for within in times_within]).clamp_min(1)
        pixels = times.expand_as(band).sum()
        amplitude = spectrum.abs()
        total = torch.stack([(amplitude * within).flatten(2).sum(dim=2) for within in times_within], dim=2)
        first = (torch.arange(self.bands, device=mean.device) == 0).to(mean.dtype)
        shrink = pixels**-self.power / count
        return total * shrink, mean.abs().flatten(1)[..., None] * first * pixels * shrink


class ScalarGate(nn.Module):
    """Two learnt numbers for all samples, softmax(logits / temperature): the authors' code."""

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2))
        self.temperature = temperature

    def forward(self, centred: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Two gates (1, 1, 1, 1[, 1])."""
        return _columns(torch.softmax(self.logits / self.temperature, dim=0)[None], mean)


class ChannelGate(nn.Module):
    """Two learnt numbers for each channel, softmax(logits / temperature): no published method."""

    def __init__(self, channels: int, temperature: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(2, channels))
        self.temperature = temperature

    def forward(self, centred: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Two gates (1, C, 1, 1[, 1])."""
        gates = torch.softmax(self.logits / self.temperature, dim=0)
        return _spread(gates[:1], mean), _spread(gates[1:], mean)


class AdaptiveGate(nn.Module):
    """Two numbers for each sample, from the mean amplitudes of its channels (eq. 6)."""

    def __init__(self, channels: int, power: float) -> None:
        super().__init__()
        self.gates = PooledGates(channels)
        self.power = power

    def forward(self, centred: Tensor, mean: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Two gates (B, 1, 1, 1[, 1])."""
        shrink = centred[0, 0].numel() ** -self.power
        varying = mean_amplitude(centred) * shrink
        # Of the constant frequency the instance norm leaves nothing; the other amplitudes it scales.
        original = varying + mean.abs().flatten(1) * shrink
        gates = self.gates((varying * scale.flatten(1))[:, None], original[:, None])
        return _columns(gates[:, 0], mean)


class PooledGates(nn.Module):
    """sigmoid(W [GAP(chi_norm); GAP(chi)]) of eq. 6, W zero at the start, one for each band."""

    def __init__(self, channels: int, bands: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(bands, 2, 2 * channels))
        self.bias = nn.Parameter(torch.zeros(bands, 2))

    def forward(self, normed: Tensor, original: Tensor) -> Tensor:
        """Two times (B, bands, C) -> (B, bands, 2), the gates l_norm and l_org."""
        pooled = torch.cat([normed, original], dim=2)[:, :, None]
        # Not a matrix product, which autocast would round.
        return torch.sigmoid((pooled * self.weight).sum(dim=3) + self.bias)


def moments(x: Tensor, epsilon: float = 1e-5) -> tuple[Tensor, Tensor, Tensor]:
    """Of each sample and channel: x less its mean, the mean, 1 / standard deviation. IN(x) = centred * scale.

    In two passes: `torch.var_mean` takes ten times as long on a CPU, and a norm needs no map of squares.
    """
    axes = list(range(2, x.dim()))
    mean = x.mean(dim=axes, keepdim=True)
    centred = x - mean
    variance = torch.linalg.vector_norm(centred, dim=axes, keepdim=True).square() / centred[0, 0].numel()
    return centred, mean, torch.rsqrt(variance + epsilon)


def mean_amplitude(x: Tensor) -> Tensor:
    """The mean of |FFT(x)| over all frequencies, (B, C, H, W[, D]) -> (B, C).

    sum |F| = Re <F, F/|F|> = <x, FFT* (F/|F|)>, and the derivative of |F| by F is F/|F|. So with the phase-only image
    FFT* (F/|F|) held constant, value and gradient are those of the mean amplitude, for half the time of
    differentiating the transform. (A second derivative is not.)
    """
    axes = list(range(2, x.dim()))
    spectrum = torch.fft.rfftn(x.detach(), dim=axes)
    # A real gain, not `sgn`, which ONNX does not know; a clamp, because exporters take "+ 1e-30" for nothing to add.
    # In place, because the maps are large and nothing here is differentiated.
    gain = spectrum.real.square().addcmul_(spectrum.imag, spectrum.imag).clamp_min_(1e-30).rsqrt_()
    phase_only: Tensor = torch.fft.irfftn(spectrum.mul_(gain), s=x.shape[2:], dim=axes)
    return (x * phase_only).sum(dim=axes)


def radial_bands(size: list[int], bands: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The band of every frequency of `rfftn`, and how often each of its columns stands in the full spectrum.

    Args:
        size: H, W[, D].
        bands: their number, equally wide in |frequency| from 0 to the corner of the spectrum.
        like: gives device and type.

    Returns:
        bands (H, W // 2 + 1) or (H, W, D // 2 + 1) of integers; 1 or 2 for each index on the last axis
    """
    last = len(size) - 1
    square = torch.zeros([1] * len(size), dtype=like.dtype, device=like.device)
    for axis, n in enumerate(size):
        index = torch.arange(n // 2 + 1 if axis == last else n, device=like.device)
        frequency = torch.minimum(index, n - index).to(like.dtype) / n
        square = square + frequency.square().view([-1] + [1] * (last - axis))
    # A frequency on an edge goes up, whatever its rounding: an exporter's is another one.
    band = ((square * (4 * bands**2 / len(size))).sqrt() + 1e-4).long().clamp_max(bands - 1)
    column = torch.arange(size[last] // 2 + 1, device=like.device)
    alone = (column == 0).to(like.dtype) + (2 * column == size[last]).to(like.dtype)
    return band, 2 - alone


def _spread(values: Tensor, like: Tensor) -> Tensor:
    """(B, C) -> (B, C, 1, 1[, 1]), to stand beside (B, C, H, W[, D])."""
    return values.reshape(values.shape + (1,) * (like.dim() - 2))


def _columns(gates: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """(B, 2) -> the gates l_norm and l_org, each (B, 1, 1, 1[, 1])."""
    return _spread(gates[:, :1], like), _spread(gates[:, 1:], like)
