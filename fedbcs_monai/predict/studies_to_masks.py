"""Predict: write masks, pictures, statistics and one page for a list of inputs."""

import json
import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.errors import UserError, discreet_reason
from fedbcs_monai.files import made_folder
from fedbcs_monai.predict.output_files import FILE_SUFFIXES, ends_with, remove, together
from fedbcs_monai.predict.outputs import (
    TYPES,
    OutputFiles,
    OutputOptions,
    mask_name,
    options_for,
    planned,
    statistics_of,
    write_large_image,
    write_outputs,
)
from fedbcs_monai.predict.page import Entry, is_page, is_whole, write_page
from fedbcs_monai.predict.predictor import Predictor
from fedbcs_monai.predict.studies import STATISTICS, Found, Study, find_studies, requested

_LOG = logging.getLogger(__name__)

PAGE = "report.html"

Progress = Callable[[float, int], None]
Heard = Callable[[str, Mapping[str, Any]], None]
Noted = Callable[[str], None]


class PartlyFailed(UserError):
    """Some studies failed; ``written`` are the masks of the others."""

    def __init__(self, message: str, written: Sequence[Path]) -> None:
        super().__init__(message)
        self.written = list(written)


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
    trust: Iterable[str] | Trust = (),
    progress: Progress | None = None,
    on_study: Heard | None = None,
    on_note: Noted | None = None,
) -> list[Path]:
    """Segment images and write masks, outlines, statistics, and one page.

    Of ``case.nii.gz`` come ``case_mask.nii.gz``, ``case_preview.png`` (of a picture ``case_overlay.png``) and
    ``case_statistics.json``, and once for all ``report.html``, which also shows what earlier calls have left in the
    folder. The outputs of a study appear together or not at all. Of one image `output` may also name the mask itself,
    ``x.nii.gz``; then the others are ``x_preview.png`` and so on.

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
        overwrite: replace outputs that are there, each when the new one is complete; without either, one that is there
            stops all before any work.
        device: as in `Compute`.
        which: ``selected`` or ``last``.
        site: of `Predictor`.
        trust: of `Predictor`.
        progress: receives the number of finished studies and of all studies.
        on_study: receives the name and the statistics of every finished study.
        on_note: receives what was left out.

    Returns:
        The masks, of each study those of the first type.

    Raises:
        UserError: what the user can correct, before any work.
        PartlyFailed: a study failed, or one of its outputs. That does not keep the others from being finished first; it
            is named here and on the page.
    """
    listed = [inputs] if isinstance(inputs, str | Path) else list(inputs)
    options = OutputOptions(_known(types), probability, overlay)
    requested(listed)  # a slip in a name shows before the model is loaded
    predictor = Predictor(model, device, which, site, tta, trust)
    found = find_studies(listed, predictor.accepted, series)
    if found.earlier and on_note:
        on_note(f"left out, as outputs of an earlier call: {', '.join(found.earlier)}")
    plans, page = _planned(listed, found.studies, Path(output), options)
    done = _done(plans, predictor) if resume else {}
    new = [outputs for outputs in plans.values() if not (resume and statistics_of(outputs.statistics))]
    _check_free(new, [] if resume or is_page(page) else [page], found.studies, overwrite)
    rows: dict[str, dict[str, Any]] = {}
    failed = {str(path): why for path, why in found.failed.items()}
    with made_folder(page.parent):
        for n, study in enumerate(found.studies):
            within = partial(_heard_within, progress, n, len(plans))
            within(0)
            try:
                row = done.get(study.name) or _carried_out(study, plans[study.name], predictor, within)
            except Exception as error:  # one study never costs another
                failed[study.name] = _naming(study, discreet_reason(error))
                _LOG.info("study %d of %d: failed with %s", n + 1, len(plans), type(error).__name__)
                continue
            rows[study.name] = row
            _LOG.info("study %d of %d: segmented", n + 1, len(plans))  # without its name, which may tell of a patient
            if row.get("missing"):
                failed[study.name] = _naming(
                    study, "; ".join(f"no {what}: {why}" for what, why in row["missing"].items())
                )
            if on_study and study.name not in done:
                on_study(study.name, row)
        _heard_within(progress, len(plans), len(plans), 0)
        try:
            _write_page(page, plans, rows, failed, found, predictor)
        except Exception as error:  # the masks are there all the same
            failed[str(page)] = discreet_reason(error)
    written = [_first_mask(plans[name], row) for name, row in rows.items()]
    if failed:
        lines, count = list(failed.values()), len(found.failed) + len(found.studies)
        raise PartlyFailed(lines[0] if count == 1 else "\n".join([f"{len(lines)} of {count} failed:", *lines]), written)
    return written


def _naming(study: Study, why: str) -> str:
    """One line that names the study."""
    line = " ".join(why.split())
    return line if str(study.path) in line else f"{study.path}: {line}"


def _first_mask(outputs: OutputFiles, row: Mapping[str, Any]) -> Path:
    return next(path for path in outputs.masks.values() if path.name in row["files"].values())


def _write_page(
    page: Path,
    plans: Mapping[str, OutputFiles],
    rows: Mapping[str, Mapping[str, Any]],
    failed: Mapping[str, str],
    found: Found,
    predictor: Predictor,
) -> None:
    """Write the page of a call, and again if another process has added a study to the folder meanwhile."""
    folders = [path.parent for path in found.failed] + [study.path.parent for study in found.studies]
    shown = {Path(name).name: _without(folders, why) for name, why in failed.items()}
    mine = [Entry(name, row, plans[name].picture) for name, row in rows.items()]
    while True:
        there = _statistics_in(page)
        own = {plans[name].statistics for name in rows}
        again = {plans[study.name].statistics for study in found.studies}
        entries = [*mine, *(one for path in there if path not in own for one in _earlier(path, path in again))]
        if entries:
            write_page(page, entries, shown, found.skipped, predictor.provenance(), found.earlier)
        if there == _statistics_in(page):
            return


def _statistics_in(page: Path) -> list[Path]:
    """Of earlier calls too; the page of a mask that was named is about that alone."""
    return sorted(page.parent.glob(f"*{STATISTICS}")) if page.name == PAGE else []


def _earlier(path: Path, failed: bool) -> list[Entry]:
    """A study that an earlier call has left in the folder."""
    row = statistics_of(path)
    if not is_whole(row):
        return []
    picture = row["files"].get("picture")
    note = ["these are outputs of an earlier call; in the last one the study failed"] if failed else []
    name = path.name.removesuffix(STATISTICS)
    return [
        Entry(
            name, {**row, "warnings": [*note, *row["warnings"]]}, path.parent / Path(picture).name if picture else None
        )
    ]


def _without(folders: Sequence[Path], why: str) -> str:
    """A reason for a page that may travel farther than the folders that are named on the way to an image."""
    for folder in sorted({f"{folder}{os.sep}" for folder in folders}, key=len, reverse=True):
        why = why.replace(folder, "") if folder != f".{os.sep}" else why
    return why


def _heard_within(progress: Progress | None, done: int, total: int, fraction: float) -> None:
    if progress:
        progress(done + fraction, total)


def _known(types: Sequence[str]) -> tuple[str, ...]:
    unknown = [kind for kind in types if kind not in TYPES]
    if unknown or not types:
        raise UserError(f"a mask of type {unknown[0] if unknown else ''!r}: choose from {', '.join(TYPES)}")
    return tuple(dict.fromkeys(types))


def _carried_out(
    study: Study, outputs: OutputFiles, predictor: Predictor, progress: Callable[[float], None]
) -> dict[str, Any]:
    """Segment and write one study; what is older stays until all that is new is complete, and then goes."""
    older = outputs.older()
    with together(outputs.statistics.parent) as part:
        write = partial(write_large_image, progress=progress) if study.large else write_outputs
        written = write(study, outputs, predictor, part)
        missing = written.get("missing", {})
        row = {
            "image": study.path.name,
            **({"series": study.series.number} if study.series is not None else {}),
            **written,
            "files": {what: path.name for what, path in outputs.files.items() if what not in missing},
            **predictor.provenance(),
        }
        content = json.dumps(row, indent=1, ensure_ascii=False) + "\n"
        # A name of a file may hold bytes that are no text: written as JSON's own escape, it is read back as it was.
        part(outputs.statistics).write_bytes(content.encode("utf-8", errors="backslashreplace"))
    for path in older:
        if path.name not in row["files"].values():
            remove(path)
    return row


def _done(plans: Mapping[str, OutputFiles], predictor: Predictor) -> dict[str, dict[str, Any]]:
    """The statistics of the studies that are done and whole."""
    rows = {name: outputs.done() for name, outputs in plans.items()}
    same = predictor.provenance()
    for name, row in rows.items():
        if row and any(row.get(key) != same[key] for key in ("models", "tta")):
            statistics = plans[name].statistics
            raise UserError(f"{statistics}: is of another model; leave out --resume, or choose another output")
    return {name: row for name, row in rows.items() if row}


def _planned(
    inputs: Sequence[str | Path], studies: Sequence[Study], output: Path, options: OutputOptions
) -> tuple[dict[str, OutputFiles], Path]:
    """Where the outputs of every study go, and the page."""
    if output.exists() and not output.is_dir() and not ends_with(output, FILE_SUFFIXES):
        raise UserError(f"{output}: is a file; name a folder for the masks")
    if not output.is_dir() and ends_with(output, FILE_SUFFIXES):
        if len(studies) > 1:
            raise UserError(f"{output}: names one file, and there are {len(studies)} studies; name a folder")
        plans = {
            study.name: planned(study, output.parent, options_for(output, study, options), output) for study in studies
        }
        return plans, output.with_name(f"{mask_name(output)}_{PAGE}")
    if any(Path(one).is_dir() and output.resolve() == Path(one).resolve() for one in inputs):
        raise UserError(f"{output}: holds the images; name another folder for the masks")
    return {study.name: planned(study, output, options) for study in studies}, output / PAGE


def _check_free(plans: Sequence[OutputFiles], pages: Sequence[Path], studies: Sequence[Study], overwrite: bool) -> None:
    """Refuse to overwrite an input image, and existing outputs unless the user asks for it."""
    images = {study.path.resolve() for study in studies}
    outputs = [*pages, *(path for outputs in plans for path in outputs.files.values())]
    own = [path for path in outputs if path.resolve() in images]
    if own:
        raise UserError(f"{own[0]}: is the image itself; choose another output")
    there = [path for path in outputs if path.exists()]
    if there and not overwrite:
        more = f" and {len(there) - 1} more" if len(there) > 1 else ""
        raise UserError(f"{there[0]}{more}: already exists; replace it with --overwrite, or choose another output")
