"""Style recalibration against its Fourier definition and the authors' numbers."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks.frequency import GATES, ClosedForm, StyleRecalibration, mean_amplitude, radial_bands

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "fedbcs_fsr.npz")
SIZES = [(2, 3, 8, 6), (1, 3, 9, 7), (2, 3, 4, 6, 5)]


def learnt(gate: str, channels: int = 3, **options) -> StyleRecalibration:
    """A recalibration in float64 that has left its start."""
    torch.manual_seed(0)
    block = StyleRecalibration(channels, gate, **options).double()
    for parameter in block.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return block


def feature(*size: int) -> Tensor:
    return torch.randn(*size, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5


def axes_of(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.dim()))


def instance_norm(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, axes_of(x), correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(*values.shape, *[1] * (like.dim() - values.dim()))


def eq_6(block: StyleRecalibration, normed: Tensor, original: Tensor, band: int = 0) -> Tensor:
    """sigmoid(W [GAP(chi_norm); GAP(chi)]), (B, 2)."""
    gates = block.mix.gates if hasattr(block.mix, "gates") else block.mix.gate.gates
    return torch.sigmoid(torch.cat([normed, original], 1) @ gates.weight[band].T + gates.bias[band])


def recalibrate_by_definition(block: StyleRecalibration, gate: str, x: Tensor, norm: str) -> Tensor:
    """Eq. 4-7 on the full spectrum, with amplitude and angle."""
    axes = axes_of(x)
    spectrum = torch.fft.fftn(x, dim=axes, norm=norm)
    amplitude, phase = spectrum.abs(), spectrum.angle()
    normed = torch.fft.fftn(instance_norm(x), dim=axes, norm=norm).abs()
    if gate == "literal":
        normed = instance_norm(amplitude).clamp_min(0)
    if gate == "scalar":
        gates = torch.softmax(block.mix.gate.logits / 0.1, 0).expand(len(x), 2).split(1, dim=1)
    elif gate == "channel":
        gates = torch.softmax(block.mix.gate.logits / 0.1, 0).split(1)
    else:
        gates = eq_6(block, normed.mean(axes), amplitude.mean(axes)).split(1, dim=1)
    mixed = column(gates[0], x) * normed + column(gates[1], x) * amplitude
    y = torch.fft.ifftn(torch.polar(mixed, phase), dim=axes, norm=norm).real
    return y * column(block.weight[None], x) + column(block.bias[None], x)


def banded_by_definition(block: StyleRecalibration, x: Tensor, norm: str, bands: int) -> Tensor:
    axes = axes_of(x)
    spectrum = torch.fft.fftn(x, dim=axes, norm=norm)
    normed = torch.fft.fftn(instance_norm(x), dim=axes, norm=norm)
    grid = torch.meshgrid(*[torch.fft.fftfreq(n, dtype=x.dtype) for n in x.shape[2:]], indexing="ij")
    radius = 2 * (sum(f**2 for f in grid) / len(grid)).sqrt()
    y = torch.zeros_like(x)
    for band in range(bands):
        inside = ((bands * radius + 1e-9).long().clamp_max(bands - 1) == band).to(x)
        count = inside.sum().clamp_min(1)
        gates = eq_6(
            block, (normed.abs() * inside).sum(axes) / count, (spectrum.abs() * inside).sum(axes) / count, band
        )
        mixed = column(gates[:, :1], x) * normed + column(gates[:, 1:], x) * spectrum
        y = y + torch.fft.ifftn(mixed * inside, dim=axes, norm=norm).real
    return y * column(block.weight[None], x) + column(block.bias[None], x)


def gradients(y: Tensor, of: list[Tensor]) -> tuple[Tensor, ...]:
    return torch.autograd.grad((y * torch.arange(y.numel(), dtype=y.dtype).cos().view_as(y)).sum(), of)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("norm", ["forward", "ortho", "backward"])
@pytest.mark.parametrize("gate", GATES)
def test_equals_its_fourier_definition_in_value_and_gradient(gate, norm, size):
    block, x = learnt(gate, spectrum_norm=norm), feature(*size).requires_grad_()
    y = block(x)
    expected = (
        banded_by_definition(block, x, norm, 4) if gate == "banded" else recalibrate_by_definition(block, gate, x, norm)
    )
    torch.testing.assert_close(y, expected, rtol=1e-9, atol=1e-9)
    of = [x, *block.parameters()]
    for ours, theirs in zip(gradients(y, of), gradients(expected, of), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("options", [{}, {"floor": 1e-5}], ids=["closed", "floored"])
@pytest.mark.parametrize("h", ["h0", "h1"])
@pytest.mark.parametrize("t", ["gauss", "relu", "odd"])
def test_scalar_gate_equals_the_authors_code(t, h, options):
    x = torch.from_numpy(VECTORS[f"in_{t}_x"]).double().requires_grad_()
    block = StyleRecalibration(x.shape[1], "scalar", **options).double()
    block.weight.data, block.bias.data = (torch.from_numpy(VECTORS[f"in_{t}_{k}"]).double() for k in ("weight", "bias"))
    block.mix.gate.logits.data = torch.from_numpy(VECTORS[f"in_{h}"])
    y = block(x)
    live = (x.detach().flatten(2).std(2) > 0)[..., None, None].expand_as(x)
    for name, ours in zip(["y", "gx"], [y, *gradients(y, [x])], strict=True):
        expected = torch.from_numpy(VECTORS[f"out_{t}_{h}_{name}"]).double()
        torch.testing.assert_close(ours[live], expected[live], rtol=0, atol=1e-4)


@pytest.mark.parametrize("h", ["h0", "h1"])
@pytest.mark.parametrize("t", ["gauss", "relu", "odd"])
def test_gradients_of_gate_weight_and_bias_equal_the_authors(t, h):
    x = torch.from_numpy(VECTORS[f"in_{t}_x"]).double()
    block = StyleRecalibration(x.shape[1], "scalar").double()
    block.weight.data, block.bias.data = (torch.from_numpy(VECTORS[f"in_{t}_{k}"]).double() for k in ("weight", "bias"))
    block.mix.gate.logits.data = torch.from_numpy(VECTORS[f"in_{h}"])
    ours = gradients(block(x), [block.mix.gate.logits, block.weight, block.bias])
    for name, gradient, atol in zip(["gh", "gw", "gb"], ours, [5e-4, 1e-3, 1e-5], strict=True):
        expected = torch.from_numpy(VECTORS[f"out_{t}_{h}_{name}"]).double()
        torch.testing.assert_close(gradient, expected, rtol=0, atol=atol)


def test_the_floor_leaves_the_authors_spike_on_a_constant_channel():
    x = torch.from_numpy(VECTORS["in_relu_x"])
    block = StyleRecalibration(4, "scalar", floor=1e-5)
    block.weight.data, block.bias.data = (torch.from_numpy(VECTORS[f"in_relu_{k}"]) for k in ("weight", "bias"))
    torch.testing.assert_close(block(x).detach(), torch.from_numpy(VECTORS["out_relu_h0_y"]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gate", ["scalar", "channel", "adaptive", "banded"])
def test_starts_halfway_between_the_map_and_its_instance_norm(gate, size):
    x = feature(*size)
    torch.testing.assert_close(StyleRecalibration(3, gate).double()(x), 0.5 * instance_norm(x) + 0.5 * x)


def test_one_band_is_the_adaptive_gate():
    banded, adaptive = learnt("banded", bands=1), learnt("adaptive")
    state = {name.replace("mix.", "mix.gate."): value for name, value in banded.state_dict().items()}
    adaptive.load_state_dict({name.replace("gate.gate.", "gate."): value for name, value in state.items()})
    x = feature(2, 3, 8, 6)
    torch.testing.assert_close(banded(x), adaptive(x))


def test_the_same_gates_in_every_channel_are_the_scalar_gate():
    channel, scalar = learnt("channel"), learnt("scalar")
    state = scalar.state_dict()
    channel.load_state_dict(state | {"mix.gate.logits": state["mix.gate.logits"][:, None].expand(2, 3)})
    x = feature(2, 3, 8, 6)
    torch.testing.assert_close(channel(x), scalar(x))


def test_adaptive_gates_differ_between_samples_and_not_with_their_company():
    block, x = learnt("adaptive"), feature(2, 3, 8, 6)
    together = block(x * torch.tensor([1.0, 9.0], dtype=x.dtype).view(2, 1, 1, 1))
    torch.testing.assert_close(together[:1], block(x[:1]))
    centred = x[:1] - x[:1].mean((2, 3), keepdim=True)
    gates = [block.mix.gate(s * centred, centred[..., :1, :1], torch.ones(1, 3, 1, 1).double())[0] for s in (1, 9)]
    assert not torch.allclose(*gates)


@pytest.mark.parametrize("size", SIZES)
def test_mean_amplitude_has_the_value_and_gradient_of_the_transform(size):
    x = feature(*size).requires_grad_()
    expected = torch.fft.fftn(x, dim=axes_of(x)).abs().mean(axes_of(x))
    torch.testing.assert_close(mean_amplitude(x), expected)
    torch.testing.assert_close(gradients(mean_amplitude(x), [x]), gradients(expected, [x]))


def test_bands_of_a_four_by_four_spectrum():
    # |frequency| relative to the corner: 0, 0.35, 0.71 along an axis; 0.5 and 0.79 off it; 1 in the corner.
    band, times = radial_bands([4, 4], 4, torch.zeros(1))
    assert band.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 3], [1, 2, 3]]
    assert times.tolist() == [1, 2, 1]


@pytest.mark.parametrize("size, bands", [([80, 80], 8), ([50, 100], 5), ([64, 32, 32], 4)])
def test_a_frequency_on_an_edge_of_bands_goes_up_in_every_precision(size, bands):
    single, double = (radial_bands(size, bands, torch.zeros(1, dtype=kind))[0] for kind in (torch.float, torch.double))
    assert torch.equal(single, double)
    assert single[tuple(3 * n // (2 * bands) for n in size)] == 3  # on the diagonal, whose end is the corner


@pytest.mark.parametrize("gate", GATES)
def test_half_precision_is_computed_in_single_and_given_back_in_half(gate):
    block, x = learnt(gate).float(), feature(2, 3, 8, 6).half()
    assert torch.equal(block(x), block(x.float()).half())


@pytest.mark.parametrize("gate", GATES)
def test_autocast_changes_nothing(gate):
    block, x = learnt(gate).float(), feature(2, 3, 8, 6).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = block(x)
    assert torch.equal(inside, block(x))


@pytest.mark.parametrize("value", [0.0, 3.0])
@pytest.mark.parametrize("gate", GATES)
def test_a_constant_channel_has_finite_gradients(gate, value):
    block, x = learnt(gate).float(), feature(2, 3, 8, 6).float()
    x[:, 1] = value
    x.requires_grad_()
    y = block(x)
    assert y.isfinite().all()
    assert all(g.isfinite().all() and g.abs().max() < 1e4 for g in gradients(y, [x, *block.parameters()]))


@pytest.mark.parametrize("gate", ["scalar", "channel"])
@pytest.mark.parametrize("size", SIZES)
def test_the_written_backward_pass_is_that_of_autograd(gate, size):
    block, x = learnt(gate), feature(*size).requires_grad_()
    derived = copy.deepcopy(block)
    derived.mix = ClosedForm(derived.mix.gate)
    y, expected = block(x), derived(x)
    assert torch.equal(y, expected)
    found = gradients(y, [x, *block.parameters()])
    wanted = gradients(expected, [x, *derived.parameters()])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)


def test_training_keeps_the_map_once_and_numbers_per_channel():
    block, x, kept = learnt("scalar"), feature(2, 3, 32, 32).requires_grad_(), {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x)
    assert [number for number in kept.values() if number > 100] == [x.numel()]


def test_without_affine_there_is_nothing_but_the_gate_to_send():
    assert list(StyleRecalibration(3, "scalar", affine=False).state_dict()) == ["mix.gate.logits"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("options", [{"gate": gate} for gate in GATES] + [{"gate": "scalar", "floor": 1e-5}], ids=str)
def test_scripts_exports_and_compiles(options):
    block, x, other = learnt(**options).float(), feature(2, 3, 8, 6).float(), feature(3, 3, 10, 9).float()
    script = torch.jit.script(block)
    moving = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    program = torch.export.export(block, (x,), dynamic_shapes=(moving,)).module()
    compiled = torch.compile(block, backend="aot_eager")
    for form in (script, program, compiled):
        torch.testing.assert_close(form(other), block(other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gate": "scaler"}, "did you mean 'scalar'"),
        ({"spectrum_norm": "orthogonal"}, "did you mean 'ortho'"),
        ({"gate": "banded", "floor": 1e-5}, "scalar, channel and adaptive"),
    ],
)
def test_an_impossible_setting_says_what_would_work(options, message):
    with pytest.raises(UserError, match=message):
        StyleRecalibration(3, **options)
