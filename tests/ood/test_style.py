"""Style: the statistics of whole cases, however they are cut into passes."""

import torch

from fedbcs_monai.networks import build_segmenter
from fedbcs_monai.ood.style import Style, style_of


def network(dims: int = 2):
    torch.manual_seed(0)
    return build_segmenter(spatial_dims=dims, in_channels=3, out_channels=2, features=(8, 8, 8, 8, 8)).eval()


def images(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_mean_and_deviation_are_those_of_the_values():
    style = Style()
    style.add("a", torch.tensor([[[[1.0, 3.0]], [[0.0, 0.0]]]]))
    style.add("b", torch.tensor([[[[2.0, 2.0, 5.0]]]]))
    torch.testing.assert_close(style.vector(), torch.tensor([2, 0, 3, 1, 0, 2**0.5]))


def test_in_one_pass_or_in_several_it_is_the_same():
    maps = images(4, 3, 6, 5)
    whole, parts = Style(), Style()
    whole.add("a", maps)
    for part in maps.split([1, 3]):
        parts.add("a", part)
    torch.testing.assert_close(whole.vector(), parts.vector())
    flat = maps.double().movedim(1, 0).flatten(1)
    torch.testing.assert_close(whole.vector(), torch.cat([flat.mean(1), flat.std(1, correction=0)]).float())


def test_it_listens_to_image_and_shallow_levels_and_changes_nothing():
    segmenter, image = network(), images(2, 3, 32, 32)
    with torch.no_grad(), style_of(segmenter) as style:
        logits = segmenter(image)
    with torch.no_grad():
        assert torch.equal(logits, segmenter(image))
        features = segmenter.features(image)
    heard = [maps.movedim(1, 0).flatten(1) for maps in (*features.encoder[:2], image)]  # by name: conv, down, image
    wanted = [maps.mean(1) for maps in heard] + [maps.std(1, correction=0) for maps in heard]
    torch.testing.assert_close(style.vector(), torch.cat(wanted), rtol=1e-4, atol=1e-5)
    assert not any(module._forward_hooks for module in segmenter.modules())


def test_volumes_have_a_style_too():
    segmenter = network(dims=3)
    with torch.no_grad(), style_of(segmenter) as style:
        segmenter(images(1, 3, 32, 32, 32))
    assert bool(style.vector().isfinite().all())
