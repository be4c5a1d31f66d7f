"""Export: weights as TorchScript and ONNX, accepted if they compute what the network computes."""

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from monai.bundle import ckpt_export
from monai.utils import optional_import
from torch import Tensor, nn
from torch.export import Dim

from fedbcs_monai.errors import UserError

TOLERANCE = 1e-4
OPSET = 18
"""The only one in which onnxruntime computes Fourier transforms as torch does."""


class Differences(NamedTuple):
    """The largest difference of an export from the network, over the largest logit if that is above 1."""

    torchscript: float
    onnx: float


def export(folder: Path, network: nn.Module, channels: int, smallest: int, axes: int) -> Differences:
    """Write ``models/model.ts`` and ``models/model.onnx`` of a bundle that is otherwise whole.

    Both take images of any size and batch. ``model.ts`` carries ``metadata.json`` and ``inference.json``.

    Args:
        folder: of the bundle.
        network: of its ``inference.json``, with its weights, in evaluation mode.
        channels: of an image.
        smallest: pixels a side of the smallest image.
        axes: spatial axes of an image.

    Raises:
        UserError: onnx is not installed, or an export computes something else.
    """
    onnxruntime = _needed("onnxruntime")
    _needed("onnxscript")
    script, graph = folder / "models" / "model.ts", folder / "models" / "model.onnx"
    images = list(_images(channels, smallest, axes))
    with warnings.catch_warnings():  # warnings of the exporters
        warnings.simplefilter("ignore")
        ckpt_export(
            net_id="network_def",
            filepath=str(script),
            ckpt_file=str(folder / "models" / "model.pt"),
            meta_file=str(folder / "configs" / "metadata.json"),
            config_file=str(folder / "configs" / "inference.json"),
            bundle_root=str(folder),
        )
        scripted = torch.jit.load(str(script), map_location="cpu").eval()  # type: ignore[no-untyped-call]
        to_onnx(network, graph, images[0])
    session = onnxruntime.InferenceSession(str(graph), providers=["CPUExecutionProvider"])

    def computed(image: Tensor) -> Tensor:
        return torch.as_tensor(session.run(None, {"image": image.numpy()})[0])

    differences = Differences(*(_difference(network, other, images) for other in (scripted, computed)))
    for name, difference in differences._asdict().items():
        if not difference <= TOLERANCE:
            raise UserError(
                f"{folder.name}: {name} differs from the network by {difference:.1e}, more than {TOLERANCE}; "
                "a network whose norm looks at its batch cannot be exported"
            )
    return differences


def to_onnx(network: nn.Module, path: Path, sample: Tensor) -> None:
    """Write a network as ONNX that takes any size and batch; the batch of the sample must be 2 or more."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # of packages that this network does not need
    program = torch.onnx.export(
        network,
        (sample,),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=({axis: Dim.DYNAMIC for axis in range(sample.dim()) if axis != 1},),
        input_names=["image"],
        output_names=["pred"],
        verbose=False,
    )
    assert program is not None
    for node in program.model.graph.all_nodes():  # where in whose files it comes from, which is most of the file
        node.metadata_props.clear()
    program.save(path, external_data=False)


def _needed(package: str) -> Any:
    module, there = optional_import(package)
    if not there:
        raise UserError(f"ONNX needs {package}: pip install 'fedbcs-monai[bundle]'")
    return module


@torch.inference_mode()
def _difference(network: nn.Module, other: Callable[[Tensor], Any], images: list[Tensor]) -> float:
    worst = 0.0
    for image in images:
        logits = network(image)
        difference = (other(image) - logits).abs().max() / logits.abs().max().clamp_min(1)
        worst = max(worst, float(difference.nan_to_num(torch.inf)))
    return worst


def _images(channels: int, smallest: int, axes: int) -> Iterator[Tensor]:
    """Images of two sizes and batches; a depth of slices, which need not be a multiple, is odd."""
    generator = torch.Generator().manual_seed(0)
    yield torch.rand(2, channels, *[smallest] * axes, generator=generator)
    yield torch.rand(1, channels, 2 * smallest, *[smallest] * (axes - 1), generator=generator)
