"""Predictor: a trained model and an image to a mask on the image's own grid."""

import hashlib
import json
import platform
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from fedbcs_monai.clinical.images import Source, find_images, read_source
from fedbcs_monai.clinical.measures import measures, warnings
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.setup import build_segmentation
from fedbcs_monai.federated.trained import load_trained
from fedbcs_monai.version import __version__


class Prediction(NamedTuple):
    """What a model says of an image.

    Fields:
        mask: class numbers on the image's own grid, (X, Y, Z) or (H, W).
        image: its path, as it was given.
        spacing_mm: along each axis; None for pictures.
        statistics: of `measures`.
        warnings: what should make a reader look twice.
    """

    mask: NDArray[np.uint8]
    image: Path
    spacing_mm: tuple[float, float, float] | None
    statistics: dict[str, Any]
    warnings: list[str]


class Predictor:
    """A trained model, ready for images. Research software: not a medical device.

    See `load_trained` for what it trusts.

    Args:
        model: a run folder, or a file of weights beside its ``config.json``.
        device: as in `Compute`.
        which: of a run folder, the ``selected`` or the ``last`` model.

    Raises:
        UserError: there is no such model, or its weights do not fit its configuration.
    """

    def __init__(self, model: str | Path, device: str = "auto", which: str = "selected") -> None:
        self.config, self.network, self._compute, weights = load_trained(Path(model), which, device)
        self.sha256 = hashlib.sha256(weights.read_bytes()).hexdigest()
        self.pictures = "PictureReader" in json.dumps(self.config["reading"])  # else volumes
        self._classes = int(self.config["network_def"].get("out_channels", 2))
        self._segmentation = build_segmentation(self.config, self._compute)

    def __call__(self, path: str | Path) -> Prediction:
        """Segment one image.

        Raises:
            UserError: it is not sound, or not of the kind that the model reads.
        """
        return self.segment(read_source(find_images(Path(path), self.pictures).images[0]))

    def segment(self, source: Source) -> Prediction:
        """Segment an image that has been read and found sound."""
        try:
            with self._compute.inference():
                case = self._segmentation.prepare({"image": source.path})
                mask = self._segmentation.mask(self.network, case).numpy()
        except torch.OutOfMemoryError:
            raise UserError(f"{source.path}: does not fit into the device's memory; try --device cpu") from None
        if mask.shape != source.shape:
            raise UserError(f"{source.path}: mask {mask.shape} on image {source.shape}; mend `postprocessing`")
        statistics = measures(mask, source, self._classes)
        return Prediction(mask, source.path, source.spacing_mm, statistics, warnings(mask, source))

    def provenance(self) -> dict[str, Any]:
        """Which model, which versions, where and when."""
        return {
            "model": {"task": self.config.get("task", ""), "name": self.config.get("name", ""), "sha256": self.sha256},
            "versions": {
                "fedbcs_monai": __version__,
                **{package: version(package) for package in ("monai", "torch", "numpy", "nibabel", "itk", "pillow")},
                "python": platform.python_version(),
            },
            "device": self._compute.torch_device.type,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
