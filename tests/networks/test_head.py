"""The head: what the last 1x1 convolution reads is what it makes the logits of."""

import pytest
import torch
from torch.nn import functional as F

from fedbcs_monai.errors import UserError
from fedbcs_monai.networks import build_segmenter
from fedbcs_monai.networks.head import through_head

SMALL = {"in_channels": 1, "out_channels": 3, "features": (8, 16, 32, 64, 128)}


@pytest.mark.parametrize(("dims", "side"), [(2, 32), (3, 32), (2, 27)])
@pytest.mark.parametrize("backbone", ["BasicUNet", "DynUNet", "SegResNet"])
def test_logits_are_linear_in_what_the_head_reads(backbone, dims, side):
    network = build_segmenter(backbone, dims, recalibrate=[2], recalibrate_decoder=[1], **SMALL).eval()
    image = torch.randn(1, 1, *[side] * dims)
    at = through_head(network, image)
    assert torch.equal(at.logits, network(image))
    weight, bias = (network.state_dict()[f"{at.name}.{name}"] for name in ("weight", "bias"))
    linear = F.linear(at.feature.movedim(1, -1), weight.flatten(1), bias).movedim(-1, 1)
    torch.testing.assert_close(at.logits, linear, rtol=1e-4, atol=1e-4)


def test_a_network_that_ends_in_something_else_is_refused():
    with pytest.raises(UserError, match="ends in a 1x1 convolution: BasicUNet"):
        through_head(build_segmenter("UNet", **SMALL), torch.zeros(1, 1, 32, 32))
