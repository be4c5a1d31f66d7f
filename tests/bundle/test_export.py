"""Export: every gate of style recalibration, script, trace and ONNX, at sizes and batches that no exporter saw."""

import numpy as np
import onnxruntime
import pytest
import torch

from fedbcs_monai.bundle.export import to_onnx
from fedbcs_monai.networks import build_segmenter

# With its default norm the literal gate makes logits of some hundreds, where float32 itself does not hold to 1e-4.
STYLES = {gate: {"gate": gate} for gate in ("adaptive", "scalar", "channel", "banded")}
STYLES["literal"] = {"gate": "literal", "spectrum_norm": "ortho"}
# Exporters warn of their own insides, which is ignored here.
SHAPES = {2: [(1, 3, 64, 64), (3, 3, 48, 80)], 3: [(1, 3, 64, 32, 32), (2, 3, 32, 48, 32)]}
SAMPLE = {2: (2, 3, 32, 32), 3: (2, 3, 32, 32, 32)}


def image(shape):
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def network(gate, dims):
    """A small network whose gates have moved from where they start."""
    torch.manual_seed(0)
    made = build_segmenter(
        spatial_dims=dims, features=[8, 8, 8, 8, 8], recalibrate=[1, 2], recalibrate_decoder=[1], style=STYLES[gate]
    ).eval()
    for name, parameter in made.named_parameters():
        if ".mix." in name:
            parameter.data += 0.05 * torch.randn_like(parameter)
    return made


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("gate", STYLES)
def test_a_trace_is_the_network_at_other_sizes(network, dims):
    traced = torch.jit.trace(network, image(SAMPLE[dims]), check_trace=False)
    for shape in SHAPES[dims]:
        torch.testing.assert_close(traced(image(shape)), network(image(shape)), atol=1e-4, rtol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("gate", STYLES)
def test_onnx_is_the_network_at_other_sizes(network, dims, tmp_path):
    to_onnx(network, tmp_path / "model.onnx", image(SAMPLE[dims]))
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for shape in SHAPES[dims]:
        with torch.inference_mode():
            logits = network(image(shape)).numpy()
        computed = session.run(None, {"image": image(shape).numpy()})[0]
        np.testing.assert_allclose(computed, logits, atol=1e-4, rtol=0)
