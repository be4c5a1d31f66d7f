"""Predict: images to masks, outlines and statistics in files."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.clinical.images import (
    ends_with,
    find_images,
    make_folder,
    mask_suffixes,
    png,
    read_source,
    remove,
    stem,
    write,
    write_mask,
)
from fedbcs_monai.clinical.overlay import overlay as outlined
from fedbcs_monai.clinical.predictor import Predictor
from fedbcs_monai.data.check import SUFFIXES
from fedbcs_monai.errors import UserError

SUMMARY = "predictions.json"

Progress = Callable[[int, int], None]


class _Plan(NamedTuple):
    """An image, and where its outputs go."""

    image: Path
    mask: Path
    overlay: Path


def predict(
    model: str | Path,
    inputs: str | Path,
    output: str | Path,
    *,
    overwrite: bool = False,
    device: str = "auto",
    which: str = "selected",
    overlay: bool = True,
    progress: Progress | None = None,
) -> list[Path]:
    """Segment an image, or all in a folder, and write masks, outlines and statistics.

    Of ``case.nii.gz`` come ``case_mask.nii.gz`` and ``case_overlay.png``, and once for all ``predictions.json``. Of one
    image `output` may also name the mask itself, ``x.nii.gz``; then the others are ``x_overlay.png`` and ``x.json``.

    Args:
        model: of `Predictor`.
        inputs: an image, or a folder with images directly in it.
        output: a folder, or for one image a file.
        overwrite: replace outputs that are there; without it one that is there stops all before any work.
        device: as in `Compute`.
        which: ``selected`` or ``last``.
        overlay: write the outlines.
        progress: hears how many images are done, and of how many.

    Returns:
        The masks.

    Raises:
        UserError: what the user can mend. An image that cannot be segmented does not keep the others from it: they are
            finished first, and it is listed here and in ``predictions.json``.
    """
    inputs, output = Path(inputs), Path(output)
    predictor = Predictor(model, device, which)
    found = find_images(inputs, predictor.pictures)
    plans, summary = _planned(inputs, found.images, output)
    _check_free(plans, summary, overwrite)
    make_folder(summary.parent)
    rows, failed = [], {}
    for n, plan in enumerate(plans):
        if progress:
            progress(n, len(plans))
        try:
            rows.append(_carried_out(plan, predictor, overlay))
        except UserError as error:
            failed[plan.image.name] = str(error)
    if progress:
        progress(len(plans), len(plans))
    content = {**predictor.provenance(), "images": rows, "failed": failed, "skipped": found.skipped}
    if rows:
        write(summary, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())
    if failed:
        lines = list(failed.values())
        raise UserError(lines[0] if len(plans) == 1 else "\n".join([f"{len(lines)} of {len(plans)} failed:", *lines]))
    return [plan.mask for plan in plans]


def _carried_out(plan: _Plan, predictor: Predictor, overlay: bool) -> dict[str, Any]:
    """Segment and write one image; nothing older stays under its names, whatever happens."""
    for path in (plan.mask, plan.overlay):
        remove(path)
    source = read_source(plan.image)
    prediction = predictor.segment(source)
    write_mask(plan.mask, prediction.mask, source)
    if overlay:
        write(plan.overlay, png(outlined(source, prediction.mask)))
    return {
        "image": plan.image.name,
        "mask": plan.mask.name,
        "overlay": plan.overlay.name if overlay else None,
        "shape": list(source.shape),
        "spacing_mm": prediction.spacing_mm,
        **prediction.statistics,
        "warnings": prediction.warnings,
    }


def _planned(inputs: Path, images: list[Path], output: Path) -> tuple[list[_Plan], Path]:
    """Where every output goes, and the summary."""
    if inputs.is_file() and not output.is_dir() and ends_with(output, SUFFIXES):
        wanted = mask_suffixes(inputs)
        if not ends_with(output, wanted):
            raise UserError(f"{output}: the mask of {inputs.name} is written as {' or '.join(wanted)}")
        plan = _Plan(inputs, output, output.with_name(f"{stem(output)}_overlay.png"))
        return [plan], output.with_name(f"{stem(output)}.json")
    if inputs.is_dir() and output.resolve() == inputs.resolve():
        raise UserError(f"{output}: holds the images; name another folder for the masks")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; name a folder for the masks")
    plans = [
        _Plan(
            image,
            output / f"{stem(image)}_mask{mask_suffixes(image)[0]}",
            output / f"{stem(image)}_overlay.png",
        )
        for image in images
    ]
    return plans, output / SUMMARY


def _check_free(plans: list[_Plan], summary: Path, overwrite: bool) -> None:
    """Refuse to write over an image, and over what is there unless the user wants it."""
    images = {plan.image.resolve() for plan in plans}
    outputs = [summary, *(path for plan in plans for path in (plan.mask, plan.overlay))]
    own = [path for path in outputs if path.resolve() in images]
    if own:
        raise UserError(f"{own[0]}: is the image itself; choose another output")
    there = [path for path in outputs if path.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}{more}: already there; replace with --overwrite, or choose another output")
