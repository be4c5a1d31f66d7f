"""Predictor: one or more trained models applied to an image; returns a mask on the image's own grid."""

import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.errors import UserError
from fedbcs_monai.predict.intended_input import intended_input_of
from fedbcs_monai.predict.mask_statistics import mask_statistics, warnings
from fedbcs_monai.predict.model import Model, load_model
from fedbcs_monai.predict.ood_warning import listening, statistics_of, warnings_of_distance
from fedbcs_monai.predict.source import Source
from fedbcs_monai.predict.studies import AcceptedImages, find_studies
from fedbcs_monai.settings import name_of
from fedbcs_monai.version import __version__

_PACKAGES = ("monai", "torch", "numpy", "nibabel", "itk", "pillow", "pydicom", "highdicom")


class Prediction(NamedTuple):
    """The result of a model for an image.

    Fields:
        mask: class numbers on the image's own grid, (X, Y, Z) or (H, W).
        affine: of that grid, from voxels to RAS in mm; None for pictures.
        statistics: of `mask_statistics`, and where the sites are known, how far from them the image lies.
        warnings: what a reader should check.
        probability: that a voxel is not background, float32, on the same grid.
        source: the image.
    """

    mask: NDArray[np.uint8]
    affine: NDArray[np.float64] | None
    statistics: dict[str, Any]
    warnings: list[str]
    probability: NDArray[np.float32]
    source: Source

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Along each axis; None for pictures."""
        return self.source.spacing_mm


class Predictor:
    """Trained models, ready for images. Research software: not a medical device.

    Several models are an ensemble: the mean of their probabilities on the image's own grid decides.

    Args:
        model: what `load_trained` takes, or several of them.
        device: as in `Compute`.
        which: of a run folder, the ``selected`` or the ``last`` model.
        site: take the network as this site uses it, with what it keeps to itself; None: the global one.
        tta: average over an image and its three mirror images in plane (test-time augmentation); four times the work.
        trust: as in `load_config`: what a model may build besides the allow-list.

    Raises:
        UserError: there is no such model, its weights do not fit its configuration, or several do not fit each other.
    """

    def __init__(
        self,
        model: str | Path | Sequence[str | Path],
        device: str = "auto",
        which: str = "selected",
        site: str | None = None,
        tta: bool = False,
        trust: Iterable[str] | Trust = (),
    ) -> None:
        paths = [model] if isinstance(model, str | Path) else list(model)
        self.models = [load_model(Path(path), device, which, site, tta, trust) for path in paths]
        self.tta = tta
        first = self.models[0]
        for path, other in zip(paths, self.models, strict=True):
            if (other.pictures, len(other.classes)) != (first.pictures, len(first.classes)):
                raise UserError(
                    f"{path}: segments other images or classes than {paths[0]}; models of one ensemble segment the same"
                )
        self.intended_input = intended_input_of(first.trained)
        self.accepted = AcceptedImages(first.pictures, self.intended_input)
        self.structures = first.classes[1:]

    def __call__(self, path: str | Path, series: str = "") -> Prediction:
        """Segment one image.

        Args:
            path: an image, or a DICOM file or folder.
            series: which DICOM series, where there are several.

        Raises:
            UserError: it is not sound, not of the kind that the model reads, or more than one.
        """
        studies = find_studies([path], self.accepted, [series] if series else []).studies
        if len(studies) > 1:
            raise UserError(f"{path}: holds {len(studies)} images; name one, or use `predict`")
        return self.segment(studies[0].read())

    def segment(self, source: Source) -> Prediction:
        """Segment an image that has been read and found sound."""
        with listening(self.models) as distances_sd:
            probabilities = self.probabilities(source)
        mask = self.models[0].decide(probabilities)
        if mask.shape != source.shape:
            raise UserError(f"{source.path}: mask {mask.shape} on image {source.shape}; correct `postprocessing`")
        each = np.asarray(probabilities.cpu())
        statistics = {**self.named(mask_statistics(mask, each, source)), **statistics_of(distances_sd())}
        probability = each[1] if len(each) == 2 else 1 - each[0]
        found = warnings(mask, source, self.intended_input, self.models[0].cut) + warnings_of_distance(distances_sd())
        return Prediction(mask, source.affine, statistics, found, probability, source)

    def probabilities(self, source: Source) -> Tensor:
        """Mean over the models of the probability of every class, background first, (K, X, Y, Z) or (K, H, W)."""
        image = source.tensor()
        mean = self.models[0].probabilities(image)
        for n, model in enumerate(self.models[1:], start=2):
            mean = mean + (model.probabilities(image) - mean) / n
        return mean

    def named(self, statistics: dict[str, Any]) -> dict[str, Any]:
        """Statistics with the name of every class in it."""
        for name, of_class in zip(self.structures, statistics["classes"].values(), strict=True):
            of_class["name"] = name
        return statistics

    def algorithm(self) -> dict[str, str]:
        """Name and version of the models, as DICOM identifies an algorithm."""
        known = [_identity(model) for model in self.models]
        names = [model["name"] or model["task"] or "model" for model in known]
        return {"name": " + ".join(names), "version": " + ".join(model["sha256"][:12] for model in known)}

    def provenance(self) -> dict[str, Any]:
        """Which models, which versions, where and when."""
        return {
            "models": [_identity(model) for model in self.models],
            "tta": self.tta,
            "versions": {
                "fedbcs_monai": __version__,
                **{package: _version(package) for package in _PACKAGES},
                "python": platform.python_version(),
            },
            "device": self.models[0].trained.compute.torch_device.type,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


def _identity(model: Model) -> dict[str, str]:
    settings = model.trained.settings
    return {"task": settings.task, "name": name_of(settings), "sha256": model.sha256}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
