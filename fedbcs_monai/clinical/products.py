"""Products: what is written of one prediction, and where."""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.clinical.images import content_of
from fedbcs_monai.clinical.outputs import Part, ends_with, png, stem
from fedbcs_monai.clinical.overlay import overlay
from fedbcs_monai.clinical.predictor import Prediction, Predictor
from fedbcs_monai.clinical.studies import Study, dicom_module
from fedbcs_monai.data.check import NIFTI_SUFFIXES
from fedbcs_monai.errors import UserError

TYPES = ("own", "nifti", "dicom_seg", "dicom_rtstruct")
"""Of masks: ``own`` is the image's own kind of file, and NIfTI for a DICOM series."""

_ENDINGS = {"dicom_seg": "_seg.dcm", "dicom_rtstruct": "_rtstruct.dcm"}


class Wish(NamedTuple):
    """What to write of every study.

    Fields:
        types: of `TYPES`.
        probability: also a map of the probability that a voxel is not background.
        picture: also the outlines of the mask on the image.
    """

    types: tuple[str, ...] = ("own",)
    probability: bool = False
    picture: bool = True


class Products(NamedTuple):
    """Where the outputs of one study go.

    Fields:
        masks: by type.
        probability, picture: None where not wished for.
        statistics: written last; where it is, the study is done.
    """

    masks: dict[str, Path]
    probability: Path | None
    picture: Path | None
    statistics: Path

    @property
    def files(self) -> dict[str, Path]:
        """All of them, by what they are."""
        more = {"probability": self.probability, "picture": self.picture, "statistics": self.statistics}
        masks = {"mask" if kind == "own" else kind: path for kind, path in self.masks.items()}
        return {**masks, **{what: path for what, path in more.items() if path is not None}}

    @property
    def is_done(self) -> bool:
        """Whether the study is done."""
        return self.statistics.exists()

    def older(self) -> list[Path]:
        """What is there of this study: these files, and those that its statistics name."""
        names = self.done().get("files", {}).values() if self.is_done else ()
        folder = self.statistics.parent
        return [path for path in {*self.files.values(), *(folder / Path(name).name for name in names)} if path.exists()]

    def done(self) -> dict[str, Any]:
        """What the statistics of a study that is done say."""
        try:
            found: dict[str, Any] = json.loads(self.statistics.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{self.statistics}: not readable statistics ({error}); remove it") from None
        return found


def planned(study: Study, folder: Path, wish: Wish, mask: Path | None = None) -> Products:
    """Where the outputs of a study go: ``NAME_mask.nii.gz`` and so on, or around the name of the mask if that is given.

    Raises:
        UserError: a type that the study cannot have.
    """
    base = study.name if mask is None else mask_name(mask)
    wrong = [kind for kind in wish.types if kind in _ENDINGS and study.series is None]
    if wrong:
        raise UserError(f"{study.path}: {wrong[0]} can only be written of a DICOM series; leave it out of -ot")
    if "nifti" in wish.types and study.pictures:
        raise UserError(f"{study.path}: a picture's mask is no NIfTI file; leave it out of -ot")
    suffix = study.mask_suffixes[0]
    endings = {"own": f"_mask{suffix}", "nifti": "_mask.nii.gz", **_ENDINGS}
    masks = {kind: folder / f"{base}{endings[kind]}" for kind in wish.types}
    if mask is not None:
        masks[wish.types[0]] = mask
    return Products(
        masks,
        folder / f"{base}_probability{suffix}" if wish.probability else None,
        folder / f"{base}_{'overlay' if study.pictures else 'preview'}.png" if wish.picture else None,
        folder / f"{base}_statistics.json",
    )


def mask_name(mask: Path) -> str:
    """The name that the other outputs share with a mask."""
    return stem(mask).removesuffix("_mask")


def write_products(study: Study, products: Products, predictor: Predictor, part: Part) -> dict[str, Any]:
    """Segment a study, write its masks, probability and picture, and return its statistics.

    Args:
        study: to be read.
        products: where they will lie.
        predictor: segments it.
        part: of `together`.
    """
    prediction = predictor.segment(study.read())
    for kind, path in products.masks.items():
        _write_mask(kind, part(path), path, prediction, predictor)
    if products.probability is not None:
        content = content_of(prediction.probability, prediction.source, _suffix(products.probability))
        part(products.probability).write_bytes(content)
    if products.picture is not None:
        part(products.picture).write_bytes(png(overlay(prediction.source, prediction.mask)))
    where = {"shape": list(prediction.source.shape), "spacing_mm": prediction.spacing_mm}
    return {**where, **prediction.statistics, "warnings": prediction.warnings}


def write_region(
    study: Study, products: Products, predictor: Predictor, part: Part, progress: Callable[[float], None]
) -> dict[str, Any]:
    """The same of a picture too large for memory; `progress` hears which fraction is done."""
    segment = import_module("fedbcs_monai.clinical.region.segment").segment_region
    likely = None if products.probability is None else part(products.probability)
    region = segment(predictor, study.path, part(products.masks["own"]), likely, progress)
    if products.picture is not None:
        part(products.picture).write_bytes(png(overlay(region.overview, region.mask)))
    return {"shape": list(region.shape), "spacing_mm": None, **region.statistics, "warnings": region.warnings}


def _write_mask(kind: str, part: Path, path: Path, prediction: Prediction, predictor: Predictor) -> None:
    source, stack = prediction.source, prediction.source.series
    if kind not in _ENDINGS:
        part.write_bytes(content_of(prediction.mask, source, _suffix(path)))
        return
    if stack.unfit:
        raise UserError(f"{source.path}: {stack.unfit}; write NIfTI, or have the series sent again")
    writer = dicom_module(kind.removeprefix("dicom_"))
    writer.written(prediction.mask, stack, predictor.structures, predictor.algorithm()).save_as(
        part, enforce_file_format=True
    )


def _suffix(path: Path) -> str:
    return next((suffix for suffix in NIFTI_SUFFIXES if ends_with(path, (suffix,))), path.suffix.lower())
