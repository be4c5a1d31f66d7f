"""Model: a trained network that maps an image to class probabilities on the image's own grid."""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import AsDiscreted, Compose, LoadImaged
from numpy.typing import NDArray
from torch import Tensor, nn

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.errors import UserError
from fedbcs_monai.metrics.cases import Segmentation
from fedbcs_monai.ood.distance import SiteStyle
from fedbcs_monai.ood.file import read_site_styles
from fedbcs_monai.predict.class_names import classes_of
from fedbcs_monai.runs.model_io import TrainedModel, load_trained
from fedbcs_monai.runs.setup import build_segmentation

_MIRRORS: tuple[tuple[int, ...], ...] = ((), (2,), (3,), (2, 3))  # of (1, C, H, W) or (1, C, H, W, D), in plane


@dataclass(frozen=True)
class Model:
    """A trained network between two ends: an image in memory, and probabilities on its grid.

    Args:
        trained: network and configuration.
        sha256: of the file of weights.
        segmentation: what the configuration says, without reading files and without deciding.
        decision: from probabilities to class numbers: argmax, and what the configuration has behind it.
        sites: what is known of the cases of its training sites; empty where nothing is.
    """

    trained: TrainedModel
    sha256: str
    segmentation: Segmentation
    decision: Compose
    sites: Mapping[str, SiteStyle]

    @property
    def pictures(self) -> bool:
        """Whether it segments pictures; otherwise volumes."""
        return self.trained.settings.reads == "pictures"

    @property
    def classes(self) -> list[str]:
        """The names of the classes, background first."""
        return classes_of(self.trained.settings)

    @property
    def cut(self) -> str:
        """The plane in which it cuts every volume; empty: along the last axis of the file."""
        plane = self.trained.settings.slice_plane
        return "" if plane == "file" else plane

    def probabilities(self, image: MetaTensor) -> Tensor:
        """Probability of every class on the image's own grid, (K, X, Y, Z) or (K, H, W).

        Raises:
            UserError: the image does not fit into the device's memory, or is not what the network was made for.
        """
        device = self.segmentation.device
        try:
            with self.trained.compute.inference():  # transforms too, on CUDA, which would wait for them elsewhere
                case = self.segmentation.prepare({"image": image.to(device) if device.type == "cuda" else image})
                return self.segmentation.predicted(self.trained.network, case)
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise UserError(
                f"{_name(image)}: does not fit into the memory of {device.type}; try another --device"
            ) from None

    def decide(self, probabilities: Tensor) -> NDArray[np.uint8]:
        """Class numbers on the grid of the probabilities."""
        decided = self.decision({"pred": MetaTensor(probabilities)})["pred"][0]
        return np.asarray(decided.cpu()).astype(np.uint8)


def load_model(
    path: Path,
    device: str = "auto",
    which: str = "selected",
    site: str | None = None,
    mirrored: bool = False,
    trust: Iterable[str] | Trust = (),
) -> Model:
    """Load a trained model for prediction.

    Args:
        path: as in `load_trained`.
        device: as in `Compute`.
        which: of a run folder, the ``selected`` or the ``last`` model.
        site: as in `load_trained`.
        mirrored: average over the four mirror images in plane.
        trust: as in `load_config`.

    Raises:
        UserError: there is no such model, or its `postprocessing` has no `AsDiscreted`.
    """
    trained = load_trained(path, which, device, site, trust)
    whole = build_segmentation(trained.settings, trained.compute)
    inferer = Mirrored(whole.inferer) if mirrored else whole.inferer
    before, decision = _cut(steps_of(whole.postprocessing), path)
    segmentation = replace(
        whole, preprocessing=_without_reading(whole.preprocessing), inferer=inferer, postprocessing=before
    )
    sha256 = hashlib.sha256(trained.weights.read_bytes()).hexdigest()
    return Model(trained, sha256, segmentation, decision, read_site_styles(trained.weights, site, sha256))


@dataclass(frozen=True)
class Mirrored:
    """An inferer that averages the probabilities of an image and its three mirror images in plane.

    What it returns are logits again, so that the softmax that follows changes nothing.

    Args:
        inferer: of images (B, C, H, W[, D]) and a network to logits of the same size.
    """

    inferer: Callable[..., Tensor]

    def __call__(self, images: Tensor, network: nn.Module) -> Tensor:
        """Logarithm of the mean probability."""
        plain = images.as_tensor() if isinstance(images, MetaTensor) else images
        each = (self.inferer(plain.flip(axes), network).float().softmax(1).flip(axes) for axes in _MIRRORS)
        mean = sum(each, start=torch.zeros(())) / len(_MIRRORS)
        return mean.clamp_min(torch.finfo(torch.float32).tiny).log()


def steps_of(transform: Any) -> list[Any]:
    """The transforms of a composition, nested ones laid flat."""
    return list(transform.flatten().transforms) if isinstance(transform, Compose) else [transform]


def _without_reading(preprocessing: Any) -> Compose:
    return Compose([step for step in steps_of(preprocessing) if not isinstance(step, LoadImaged)])


def _cut(steps: list[Any], path: Path) -> tuple[Compose, Compose]:
    at = next((n for n, step in enumerate(steps) if isinstance(step, AsDiscreted)), None)
    if at is None:
        raise UserError(f"{path}: its `postprocessing` has no AsDiscreted; it must be softmax, Invertd, AsDiscreted")
    return Compose(steps[:at]), Compose(steps[at:])


def _out_of_memory(error: Exception) -> bool:
    """Whether memory is short; on the CPU torch says so in words only."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _name(image: MetaTensor) -> str:
    return str(image.meta.get("filename_or_obj", "image"))
