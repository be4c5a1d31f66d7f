"""Predict: images to masks, pictures and statistics in files, and one page about them."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedbcs_monai.clinical.outputs import ends_with, made_folder, remove, together
from fedbcs_monai.clinical.page import Entry, write_page
from fedbcs_monai.clinical.predictor import Predictor
from fedbcs_monai.clinical.products import TYPES, Products, Wish, mask_name, planned, write_products, write_region
from fedbcs_monai.clinical.studies import Study, find_studies, requested
from fedbcs_monai.data.check import SUFFIXES
from fedbcs_monai.errors import UserError

PAGE = "report.html"

Progress = Callable[[float, int], None]
Heard = Callable[[str, Mapping[str, Any]], None]


def predict(
    model: str | Path | Sequence[str | Path],
    inputs: str | Path | Sequence[str | Path],
    output: str | Path,
    *,
    types: Sequence[str] = ("own",),
    probability: bool = False,
    overlay: bool = True,
    series: Sequence[str] = (),
    tta: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    which: str = "selected",
    site: str | None = None,
    progress: Progress | None = None,
    heard: Heard | None = None,
) -> list[Path]:
    """Segment images and write masks, outlines, statistics, and one page.

    Of ``case.nii.gz`` come ``case_mask.nii.gz``, ``case_preview.png`` (of a picture ``case_overlay.png``) and
    ``case_statistics.json``, and once for all ``report.html``. The outputs of a study appear together or not at all. Of
    one image `output` may also name the mask itself, ``x.nii.gz``; then the others are ``x_preview.png`` and so on.

    Args:
        model: of `Predictor`; several are an ensemble.
        inputs: of `find_studies`.
        output: a folder, or for one image a file.
        types: of masks, from ``own`` (the image's own kind of file; NIfTI for DICOM), ``nifti``, ``dicom_seg`` and
            ``dicom_rtstruct``.
        probability: also write the probability that a voxel is not background.
        overlay: write the outlines.
        series: which DICOM series; ``all`` for every one that makes a volume.
        tta: of `Predictor`.
        resume: keep studies that are done, and do the others.
        overwrite: replace outputs that are there; without either, one that is there stops all before any work.
        device: as in `Compute`.
        which: ``selected`` or ``last``.
        site: of `Predictor`.
        progress: hears how many studies are done, and of how many.
        heard: hears the name and the statistics of every study as it is done.

    Returns:
        The masks, of each study those of the first type.

    Raises:
        UserError: what the user can mend. A study that cannot be segmented does not keep the others from it: they are
            finished first, and it is named here and on the page.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    wish = Wish(_known(types), probability, overlay)
    requested(listed)  # a slip in a name shows before the model is loaded
    predictor = Predictor(model, device, which, site, tta)
    found = find_studies(listed, predictor.wanted, series)
    plans, page = _planned(listed, found.studies, Path(output), wish)
    done = {name: _done(products, predictor) for name, products in plans.items() if resume and products.is_done}
    new = [products for name, products in plans.items() if name not in done]
    _check_free(new, [] if resume else [page], found.studies, overwrite)
    entries, failed = [], dict(found.failed)
    with made_folder(page.parent):
        for n, study in enumerate(found.studies):
            products, within = plans[study.name], partial(_heard_within, progress, n, len(plans))
            within(0)
            try:
                row = done[study.name] if study.name in done else _carried_out(study, products, predictor, within)
            except UserError as error:
                failed[study.path] = str(error)
                continue
            entries.append(Entry(study.name, row, products.picture))
            if heard and study.name not in done:
                heard(study.name, row)
        _heard_within(progress, len(plans), len(plans), 0)
        if entries:
            write_page(page, entries, _without_folders(failed), found.skipped, predictor.provenance())
    if failed:
        lines, count = list(failed.values()), len(failed) + len(entries)
        raise UserError(lines[0] if count == 1 else "\n".join([f"{len(lines)} of {count} failed:", *lines]))
    return [next(iter(products.masks.values())) for products in plans.values()]


def _heard_within(progress: Progress | None, done: int, total: int, fraction: float) -> None:
    if progress:
        progress(done + fraction, total)


def _without_folders(failed: Mapping[Path, str]) -> dict[str, str]:
    """Names and reasons for a page that may travel farther than the folders that are named on the way to an image."""
    return {path.name: reason.replace(f"{path.parent}{os.sep}", "") for path, reason in failed.items()}


def _known(types: Sequence[str]) -> tuple[str, ...]:
    unknown = [kind for kind in types if kind not in TYPES]
    if unknown or not types:
        raise UserError(f"a mask of type {unknown[0] if unknown else ''!r}: choose from {', '.join(TYPES)}")
    return tuple(dict.fromkeys(types))


def _carried_out(
    study: Study, products: Products, predictor: Predictor, progress: Callable[[float], None]
) -> dict[str, Any]:
    """Segment and write one study; nothing older stays under its names, whatever happens."""
    for path in products.older():
        remove(path)
    with together(products.statistics.parent) as part:
        write = partial(write_region, progress=progress) if study.large else write_products
        row = {
            "image": study.path.name,
            **({"series": study.series.number} if study.series is not None else {}),
            **write(study, products, predictor, part),
            "files": {what: path.name for what, path in products.files.items()},
            **predictor.provenance(),
        }
        content = json.dumps(row, indent=1, ensure_ascii=False) + "\n"
        part(products.statistics).write_text(content, encoding="utf-8")
    return row


def _done(products: Products, predictor: Predictor) -> dict[str, Any]:
    row = products.done()
    same = predictor.provenance()
    if any(row.get(key) != same[key] for key in ("models", "tta")):
        raise UserError(f"{products.statistics}: is of another model; leave out --resume, or choose another output")
    missing = [path.name for path in products.files.values() if not path.exists()]
    if missing:
        raise UserError(f"{products.statistics}: is done without {missing[0]}; leave out --resume")
    return row


def _planned(
    inputs: Sequence[str | Path], studies: Sequence[Study], output: Path, wish: Wish
) -> tuple[dict[str, Products], Path]:
    """Where the outputs of every study go, and the page."""
    if len(studies) == 1 and not output.is_dir() and ends_with(output, SUFFIXES):
        wanted = studies[0].mask_suffixes
        if not ends_with(output, wanted):
            raise UserError(f"{output}: the mask of {studies[0].path.name} is written as {' or '.join(wanted)}")
        products = planned(studies[0], output.parent, wish, output)
        return {studies[0].name: products}, output.with_name(f"{mask_name(output)}_{PAGE}")
    if any(Path(one).is_dir() and output.resolve() == Path(one).resolve() for one in inputs):
        raise UserError(f"{output}: holds the images; name another folder for the masks")
    if output.exists() and not output.is_dir():
        raise UserError(f"{output}: is a file; name a folder for the masks")
    return {study.name: planned(study, output, wish) for study in studies}, output / PAGE


def _check_free(plans: Sequence[Products], pages: Sequence[Path], studies: Sequence[Study], overwrite: bool) -> None:
    """Refuse to write over an image, and over what is there unless the user wants it."""
    images = {study.path.resolve() for study in studies}
    outputs = [*pages, *(path for products in plans for path in products.files.values())]
    own = [path for path in outputs if path.resolve() in images]
    if own:
        raise UserError(f"{own[0]}: is the image itself; choose another output")
    there = [path for path in outputs if path.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}{more}: already there; replace with --overwrite, or choose another output")
