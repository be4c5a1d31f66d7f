"""VolumeSegmenter: the numbers of the inferer, the weights of the network, in a form that scripts."""

from io import BytesIO

import pytest
import torch

from fedbcs_monai.data import NeighbouringSlicesInferer
from fedbcs_monai.networks import VolumeSegmenter, build_segmenter, over_volumes

SHAPES = [(2, 1, 32, 32, 7), (1, 1, 48, 32, 1), (3, 1, 32, 48, 4)]


def segmenter(**options):
    torch.manual_seed(0)
    return build_segmenter(features=[8, 8, 8, 8, 8], **options).eval()


def volume(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("norm", ["group", "batch_statistics"])
def test_a_volume_is_segmented_as_the_inferer_does_it(shape, norm):
    network = segmenter(norm=norm)
    with torch.inference_mode():
        expected = NeighbouringSlicesInferer(count=3, sw_batch_size=4)(volume(shape), network)
        assert torch.equal(VolumeSegmenter(network, slices=3, at_once=4)(volume(shape)), expected)


def test_each_channel_is_the_neighbour_that_it_should_be():
    class Channels(torch.nn.Module):
        def forward(self, image):
            return image

    stack = torch.arange(4.0).expand(1, 1, 2, 2, 4)
    seen = VolumeSegmenter(Channels(), slices=5)(stack)[0, :, 0, 0]
    assert seen.T.tolist() == [[0, 0, 0, 1, 2], [0, 0, 1, 2, 3], [0, 1, 2, 3, 3], [1, 2, 3, 3, 3]]


def test_weights_have_the_names_of_the_network_both_ways():
    network, other = segmenter(context={"width": 4}), segmenter(context={"width": 4})
    for parameter in other.parameters():
        parameter.data += 1
    wrapped = VolumeSegmenter(network)
    assert list(wrapped.state_dict()) == list(network.state_dict())
    assert wrapped.load_state_dict(other.state_dict()) == ([], [])
    assert all(torch.equal(tensor, network.state_dict()[name]) for name, tensor in other.state_dict().items())


@pytest.mark.parametrize("style", [None, {"gate": "adaptive"}, {"gate": "literal"}])
def test_it_scripts_with_any_size_depth_and_batch(style):
    network = VolumeSegmenter(segmenter(recalibrate=[2] if style else [], style=style), at_once=3)
    file = BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    script = torch.jit.load(BytesIO(file.getvalue()))
    for shape in SHAPES:
        with torch.inference_mode():
            torch.testing.assert_close(script(volume(shape)), network(volume(shape)))


def test_a_network_of_whole_images_stays_as_it_is():
    network = segmenter()
    assert over_volumes(network) is network
    assert isinstance(over_volumes(network, slices=3), VolumeSegmenter)
