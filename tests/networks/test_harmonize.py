"""Amplitude normalization: the published code's images, worked ones, and any size."""

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks import AmplitudeNormalization, build_segmenter, features_under
from fedbcs_monai.networks.harmonize import low_frequencies, waves

VECTORS = np.load(Path(__file__).parents[1] / "vectors" / "harmofl.npz")


def vector(name):
    return torch.from_numpy(VECTORS[name])


def close(mine, theirs):
    """The tolerance of the reference numbers: 1e-4 of the largest."""
    assert (mine - theirs).abs().max() <= 1e-4 * theirs.abs().max()


def random_image(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_the_first_batch_is_the_target_of_the_published_code():
    layer = AmplitudeNormalization(3, 2)
    layer.collect(vector("in_x1"), 1)
    close(layer.amplitude[:, 0, 0] * 120, vector("out_amp1")[:, 0, 0])  # theirs is a sum over 12 x 10 pixels
    for number in (1, 2):
        close(layer(vector(f"in_x{number}")), vector(f"out_y{number}"))


@pytest.mark.parametrize(("window", "half_width"), [(0.0, 0), (0.1, 1), (0.25, 2)])
def test_windows_are_those_of_the_published_code(window, half_width):
    layer = AmplitudeNormalization(3, 2, half_width)
    rows, columns = (slice(middle - half_width, middle + half_width + 1) for middle in (6, 5))
    layer.amplitude.copy_(torch.fft.fftshift(vector("in_trg"), dim=(1, 2))[:, rows, columns] / 120)
    close(layer(vector("in_x1")[:1])[0], vector(f"out_mutate_L{window}"))


def test_a_constant_frequency_worked_by_hand():
    layer = AmplitudeNormalization(1, 2)
    layer.collect(torch.tensor([[[[1.0, 3.0]]], [[[-5.0, -1.0]]]]), 1)  # means 2 and -3: amplitude 2.5
    assert layer.amplitude.tolist() == [[[2.5]]]
    assert layer(torch.tensor([[[[0.0, 2.0]]], [[[-3.0, -1.0]]]])).flatten().tolist() == [1.5, 3.5, -3.5, -1.5]


def test_later_batches_take_a_share():
    layer = AmplitudeNormalization(1, 2)
    layer.collect(torch.full((2, 1, 4, 4), 10.0), 1)
    layer.collect(torch.full((2, 1, 8, 2), 20.0), 0.1)
    assert layer.amplitude.item() == pytest.approx(0.9 * 10 + 0.1 * 20)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("half_width", [0, 1, 2])
def test_low_frequencies_are_those_of_the_fourier_transform(dims, half_width):
    image = random_image(2, 3, 7, 10, *[8] * (dims - 2))
    axes = tuple(range(2, 2 + dims))
    spectrum = torch.fft.fftshift(torch.fft.fftn(image, dim=axes, norm="forward"), dim=axes)
    for axis in axes:
        spectrum = spectrum.narrow(axis, image.shape[axis] // 2 - half_width, 2 * half_width + 1)
    torch.testing.assert_close(torch.complex(*low_frequencies(image, half_width)), spectrum, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("half_width", [0, 1, 2])
def test_waves_are_the_inverse_of_low_frequencies(half_width):
    low = low_frequencies(random_image(2, 3, 7, 10), half_width)
    again = low_frequencies(waves(*low, [7, 10]), half_width)
    for mine, theirs in zip(again, low, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("half_width", [0, 2])
def test_amplitudes_become_those_collected_and_other_frequencies_stay(half_width):
    layer = AmplitudeNormalization(3, 2, half_width)
    layer.collect(random_image(4, 3, 9, 12), 1)
    image = random_image(2, 3, 16, 11, seed=1) ** 3
    changed = layer(image)
    real, imaginary = low_frequencies(changed, half_width)
    torch.testing.assert_close(torch.hypot(real, imaginary), layer.amplitude.expand_as(real), atol=1e-6, rtol=1e-5)
    before, after = (x - waves(*low_frequencies(x, half_width), [16, 11]) for x in (image, changed))
    torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-5)


def test_the_amplitude_does_not_depend_on_the_size_of_an_image():
    amplitudes = []
    for size in (32, 64):
        layer = AmplitudeNormalization(1, 2, 1)
        place = torch.arange(size) * (2 * math.pi / size)
        layer.collect((3 + place.cos()[:, None] + 0.5 * place.sin())[None, None], 1)
        amplitudes.append(layer.amplitude)
    torch.testing.assert_close(amplitudes[0], amplitudes[1], atol=1e-6, rtol=1e-5)
    expected = torch.tensor([[[0, 0.5, 0], [0.25, 3, 0.25], [0, 0.5, 0]]])
    torch.testing.assert_close(amplitudes[0], expected, atol=1e-6, rtol=1e-5)


def test_nothing_is_changed_before_amplitudes_are_collected():
    image = random_image(2, 3, 8, 8)
    assert torch.equal(AmplitudeNormalization(3, 2, 1)(image), image)


def test_an_empty_image_stays_empty_and_its_gradient_finite():
    layer = AmplitudeNormalization(1, 2)
    layer.collect(torch.ones(1, 1, 4, 4), 1)
    image = torch.zeros(1, 1, 4, 4, requires_grad=True)
    changed = layer(image)
    changed.sum().backward()
    assert bool((changed == 0).all())
    assert bool(image.grad.isfinite().all())


def test_half_precision_is_computed_in_single():
    layer = AmplitudeNormalization(1, 2)
    layer.collect(random_image(2, 1, 8, 8), 1)
    image = random_image(2, 1, 64, 64, seed=1).half()
    torch.testing.assert_close(layer(image), layer(image.float()).half())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(image), layer(image.float()).half())


def test_a_negative_half_width_is_refused():
    with pytest.raises(UserError, match="half_width is -1"):
        AmplitudeNormalization(1, 2, -1)


# In a network.


def harmonized(dims=2, half_width=1):
    torch.manual_seed(0)
    network = build_segmenter("BasicUNet", dims, 1, 2, [8] * 5, harmonize={"half_width": half_width}).eval()
    network.harmonize.collect(random_image(3, 1, *[32] * dims), 1)
    return network


def test_every_pass_of_a_network_normalizes():
    network, image = harmonized(), 0.2 + 0.1 * random_image(2, 1, 32, 32, seed=1)
    expected = network.backbone(network.harmonize(image))
    assert torch.equal(network(image), expected)
    assert torch.equal(network.features(image).logits, expected)
    assert torch.equal(features_under(network.state_dict(), network, image).logits, expected)
    assert not torch.equal(network.backbone(image), expected)


def test_features_under_other_weights_have_the_other_amplitude():
    network, image = harmonized(), random_image(2, 1, 32, 32, seed=1)
    brighter = {"harmonize.amplitude": 2 * network.harmonize.amplitude}
    other = features_under(brighter, network, image)
    network.harmonize.amplitude *= 2
    assert torch.equal(other.logits, network(image))


def test_the_amplitude_is_one_more_tensor_of_the_state():
    plain = build_segmenter("BasicUNet", 2, 1, 2, [8] * 5).state_dict().keys()
    assert harmonized().state_dict().keys() - plain == {"harmonize.amplitude"}
    assert plain - harmonized().state_dict().keys() == set()


@pytest.mark.filterwarnings("ignore:.*torch.jit.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("dims", [2, 3])
def test_a_saved_script_normalizes(dims):
    network, image, file = harmonized(dims), random_image(1, 1, *[32] * dims, seed=1), BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    torch.testing.assert_close(torch.jit.load(BytesIO(file.getvalue()))(image), network(image))


def test_an_exported_network_normalizes_images_of_any_size():
    network = harmonized()
    free = {0: torch.export.Dim("batch"), **{axis: 16 * torch.export.Dim(f"size{axis}", min=2) for axis in (2, 3)}}
    program = torch.export.export(network, (random_image(2, 1, 32, 32),), dynamic_shapes=(free,)).module()
    other = random_image(3, 1, 48, 64, seed=1)
    torch.testing.assert_close(program(other), network(other))
