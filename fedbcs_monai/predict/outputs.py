"""Outputs: which files are written for a study, and where."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.data.readers import NIFTI_SUFFIXES
from fedbcs_monai.errors import UserError, discreet_reason
from fedbcs_monai.files import Part
from fedbcs_monai.predict.images import content_of
from fedbcs_monai.predict.output_files import ends_with, fitting, png, stem
from fedbcs_monai.predict.overlay import overlay
from fedbcs_monai.predict.predictor import Prediction, Predictor
from fedbcs_monai.predict.studies import STATISTICS, Study, dicom_module

TYPES = ("own", "nifti", "dicom_seg", "dicom_rtstruct")
"""Of masks: ``own`` is the image's own kind of file, and NIfTI for a DICOM series."""

_OURS = {"image", "shape", "spacing_mm", "classes", "warnings", "files", "models"}
_ENDINGS = {"dicom_seg": "_seg.dcm", "dicom_rtstruct": "_rtstruct.dcm"}


class OutputOptions(NamedTuple):
    """What to write of every study.

    Fields:
        types: of `TYPES`.
        probability: also a map of the probability that a voxel is not background.
        picture: also the outlines of the mask on the image.
    """

    types: tuple[str, ...] = ("own",)
    probability: bool = False
    picture: bool = True


class OutputFiles(NamedTuple):
    """Where the outputs of one study go.

    Fields:
        masks: by type.
        probability, picture: None where not requested.
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

    def older(self) -> list[Path]:
        """The existing files of this study: these files, and those that its statistics name."""
        names = statistics_of(self.statistics).get("files", {}).values()
        folder = self.statistics.parent
        return [path for path in {*self.files.values(), *(folder / Path(name).name for name in names)} if path.exists()]

    def done(self) -> dict[str, Any]:
        """The statistics of a study that is done, with every file that is wanted; otherwise empty."""
        row = statistics_of(self.statistics)
        return row if all(path.exists() for path in self.files.values()) else {}


def statistics_of(path: Path) -> dict[str, Any]:
    """The content of a statistics file; empty unless we wrote one."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    ours = isinstance(found, dict) and found.keys() >= _OURS and isinstance(found["files"], dict)
    if ours and "familiarity" in found:  # what earlier versions called it
        found["ood"] = found.pop("familiarity")
    return found if ours else {}


def planned(study: Study, folder: Path, options: OutputOptions, mask: Path | None = None) -> OutputFiles:
    """Where the outputs of a study go: ``NAME_mask.nii.gz`` and so on, or around the name of the mask if that is given.

    Raises:
        UserError: a type that the study cannot have.
    """
    base = fitting(study.name if mask is None else mask_name(mask))
    wrong = [kind for kind in options.types if kind in _ENDINGS and study.series is None]
    if wrong:
        raise UserError(f"{study.path}: {wrong[0]} can only be written of a DICOM series; leave it out of -ot")
    if "nifti" in options.types and study.pictures:
        raise UserError(f"{study.path}: a picture's mask is no NIfTI file; leave it out of -ot")
    suffix = study.mask_suffixes[0]
    endings = {"own": f"_mask{suffix}", "nifti": "_mask.nii.gz", **_ENDINGS}
    masks = {kind: folder / f"{base}{endings[kind]}" for kind in options.types}
    if mask is not None:
        masks[options.types[0]] = mask
    return OutputFiles(
        masks,
        folder / f"{base}_probability{suffix}" if options.probability else None,
        folder / f"{base}_{'overlay' if study.pictures else 'preview'}.png" if options.picture else None,
        folder / f"{base}{STATISTICS}",
    )


def options_for(mask: Path, study: Study, options: OutputOptions) -> OutputOptions:
    """What is requested where the user names the mask: its ending may say DICOM SEG.

    Raises:
        UserError: the mask of this study cannot have such a name.
    """
    if options.types == ("own",) and study.series is not None and ends_with(mask, (".dcm",)):
        options = options._replace(types=("dicom_seg",))
    kind = options.types[0]
    wanted = (".dcm",) if kind in _ENDINGS else NIFTI_SUFFIXES if kind == "nifti" else study.mask_suffixes
    if not ends_with(mask, wanted):
        raise UserError(f"{mask}: the mask of {study.path.name} is written as {' or '.join(wanted)}")
    return options


def mask_name(mask: Path) -> str:
    """The name that the other outputs share with a mask."""
    return stem(mask).removesuffix("_mask").removesuffix("_seg").removesuffix("_rtstruct")


def write_outputs(study: Study, outputs: OutputFiles, predictor: Predictor, part: Part) -> dict[str, Any]:
    """Segment a study, write its masks, probability and picture, and return its statistics.

    What cannot be made is named under ``missing`` with the reason, and in a warning, and does not cost the rest.

    Args:
        study: to be read.
        outputs: where they will lie.
        predictor: segments it.
        part: of `together`.

    Raises:
        UserError: the study cannot be segmented, or none of its masks be made.
    """
    prediction = predictor.segment(study.read())
    notes: list[str] = []
    makers = {kind: _mask_maker(kind, path, prediction, predictor, notes) for kind, path in outputs.masks.items()}
    missing = _write_each(outputs.masks, makers, part)
    if len(missing) == len(outputs.masks):
        raise UserError(f"{study.path}: {next(iter(missing.values()))}")
    others = {"probability": outputs.probability, "picture": outputs.picture}
    wanted = {what: path for what, path in others.items() if path is not None}
    more = {
        "probability": lambda: content_of(
            prediction.probability, prediction.source, _suffix(outputs.probability or outputs.statistics)
        ),
        "picture": lambda: png(overlay(prediction.source, prediction.mask)),
    }
    missing = {**missing, **_write_each(wanted, more, part)}
    where = {"shape": list(prediction.source.shape), "spacing_mm": prediction.spacing_mm}
    warnings = [*prediction.warnings, *dict.fromkeys(notes)]
    return {**where, **prediction.statistics, **_with_missing(warnings, missing)}


def write_large_image(
    study: Study, outputs: OutputFiles, predictor: Predictor, part: Part, progress: Callable[[float], None]
) -> dict[str, Any]:
    """The same of a picture too large for memory; `progress` receives the fraction that is done."""
    segment = import_module("fedbcs_monai.predict.large_image.segment").segment_large_image
    likely = None if outputs.probability is None else part(outputs.probability)
    region = segment(predictor, study.path, part(outputs.masks["own"]), likely, progress)
    wanted = {} if outputs.picture is None else {"picture": outputs.picture}
    missing = _write_each(wanted, {"picture": lambda: png(overlay(region.overview, region.mask))}, part)
    where = {"shape": list(region.shape), "spacing_mm": None}
    return {**where, **region.statistics, **_with_missing(region.warnings, missing)}


def _write_each(wanted: Mapping[str, Path], makers: Mapping[str, Callable[[], bytes]], part: Part) -> dict[str, str]:
    """Write what can be made; what cannot, and why. What the disk refuses is for `together`."""
    missing = {}
    for what, path in wanted.items():
        try:
            content = makers[what]()
        except OSError:
            raise
        except Exception as error:  # one output never costs another
            missing[what] = discreet_reason(error)
            continue
        part(path).write_bytes(content)
    return missing


def _with_missing(warnings: list[str], missing: Mapping[str, str]) -> dict[str, Any]:
    said = [f"{what} was not written: {why}" for what, why in missing.items()]
    return {"warnings": [*warnings, *said], **({"missing": dict(missing)} if missing else {})}


def _mask_maker(
    kind: str, path: Path, prediction: Prediction, predictor: Predictor, notes: list[str]
) -> Callable[[], bytes]:
    if kind in _ENDINGS:
        return partial(_dicom, kind, prediction, predictor, notes)
    return partial(content_of, prediction.mask, prediction.source, _suffix(path))


def _dicom(kind: str, prediction: Prediction, predictor: Predictor, notes: list[str]) -> bytes:
    """The content of a DICOM object; what was corrected in its images is added to the notes."""
    stack = prediction.source.series
    if stack.unfit:
        raise UserError(f"{stack.unfit}; write NIfTI, or have the series sent again")
    images = dicom_module("referenced_images").referenced_images(stack)
    notes += images.notes
    writer = dicom_module(kind.removeprefix("dicom_"))
    content: bytes = dicom_module("referenced_images").content_of(
        writer.written(prediction.mask, stack, predictor.structures, predictor.algorithm(), images)
    )
    return content


def _suffix(path: Path) -> str:
    return next((suffix for suffix in NIFTI_SUFFIXES if ends_with(path, (suffix,))), path.suffix.lower())
