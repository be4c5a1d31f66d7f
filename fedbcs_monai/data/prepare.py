"""Preparation: write the site list of a folder of images and labels, and report all its faults at once.

folder/
  cases.csv                 optional: site, image, patient
  north/images/a.nii.gz     north/labels/a.nii.gz
  south/images/b.png        south/masks/b.png
"""

import csv
import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fedbcs_monai.data.check import SUFFIXES, check_pair
from fedbcs_monai.data.patients import alike
from fedbcs_monai.data.sites import Case, SiteData, name_problems
from fedbcs_monai.errors import UserError

_LOG = logging.getLogger(__name__)

_LABEL_FOLDERS = ("labels", "masks")
_CSV_NAMES = ("cases.csv", "manifest.csv")
_SITE_COLUMNS = ("site", "domain", "hospital", "centre", "center")
_IMAGE_COLUMNS = ("image", "name", "file", "filename", "case")
_PATIENT_COLUMNS = ("patient", "patient_id", "subject", "case")
_CLUTTER = {"thumbs.db", "desktop.ini"}
_MOST_LINES = 20


class _Pair(NamedTuple):
    site: str
    stem: str
    image: Path
    label: Path


def list_sites(
    folder: Path,
    *,
    cases_csv: Path | None = None,
    folds: int = 0,
    seed: int = 0,
    unseen: Sequence[str] = (),
    train_share: float = 1.0,
    modality: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> list[SiteData]:
    """List and check the cases of every site of a folder and split them by patient.

    Warns of folders that are not taken for sites, and of file names that look like several images of one patient where
    no table says who the patients are.

    Every file is read once. A patient's part depends on the seed, the site's name and the patients of that site alone,
    neither on the order of the files nor on other sites. Without folds 64 % of a site's patients train, 16 % validate
    and 20 % test, and no part is empty.

    Args:
        folder: one folder for each site with `images/` and `labels/` or `masks/`, files paired by stem.
        cases_csv: who the patients are, by columns site, image (the file's stem) and patient; `cases.csv` or
            `manifest.csv` of the folder if there is one. Without, every file is a patient of its own.
        folds: 0 for fixed parts, or the number of cross-validation folds, three or more.
        seed: another seed, another split.
        unseen: sites kept whole for testing.
        train_share: share of each site's training patients that is listed, above 0 to 1, rounded, one at least; for
            experiments with few labels. Validation and test cases stay, and a smaller share is part of a larger one.
        modality: written into every site, for the reader.
        progress: called with the cases checked and their total.

    Raises:
        UserError: what is wrong with the folder, up to twenty lines.
    """
    folder = Path(folder)
    if folds and folds < 3:
        raise UserError(f"{folds} folds leave nothing to train on: use 3 or more, or 0 for fixed parts")
    if not 0 < train_share <= 1:
        raise UserError(f"train share {train_share}: it must be above 0, and 1 at most")
    if folds and train_share < 1:
        raise UserError(f"train share {train_share}: goes with fixed parts, not with {folds} folds")
    problems: list[str] = []
    pairs = _pairs(folder, problems)
    sites = sorted({pair.site for pair in pairs})
    problems += name_problems(sites)
    if missing := [name for name in unseen if name not in sites]:
        raise UserError(f"no site {missing[0]!r} in {folder}; it has {', '.join(sites)}")
    table = _csv(folder, cases_csv)
    patients = _patients(pairs, table, problems)
    if table is None:
        _warn_of_alike(folder, [pair for pair in pairs if pair.site not in unseen])
    cases = _cases(folder, patients, problems, progress)
    listed = []
    for site in sites:
        names = {patient for pair, patient in patients.items() if pair.site == site}
        try:
            parts = dict.fromkeys(names, "test") if site in unseen else split_patients(names, site, folds, seed)
        except UserError as error:
            problems.append(str(error))
        else:
            parts = _thinned(parts, train_share)
            kept = [case for name, case in cases if name == site and case.patient in parts]
            split = tuple(replace(case, split=parts[case.patient]) for case in kept)
            listed.append(SiteData(site, modality, folder.absolute(), split))
    _raise(folder, problems)
    return listed


def split_patients(patients: Iterable[str], site: str, folds: int = 0, seed: int = 0) -> dict[str, str]:
    """The split of each patient of one site.

    Patients are ordered by a hash of seed, site and name, and the order is cut.

    Args:
        patients: their names, in any order.
        site: the site's name.
        folds: 0 for `train`, `val` and `test` (64, 16 and 20 %, each at least one patient), or the number of folds.
        seed: another seed, another order.

    Raises:
        UserError: fewer patients than parts.
    """
    ordered = sorted(set(patients), key=lambda patient: hashlib.sha256(f"{seed}/{site}/{patient}".encode()).digest())
    parts = folds or 3
    if len(ordered) < parts:
        raise UserError(
            f"site {site!r} has {len(ordered)} patients for {parts} {'folds' if folds else 'parts'}: "
            "add patients, keep the site for testing (unseen), or leave it out"
        )
    if folds:
        return {patient: f"fold{number % folds}" for number, patient in enumerate(ordered)}
    test, val = max(1, round(0.20 * len(ordered))), max(1, round(0.16 * len(ordered)))
    splits = ["test"] * test + ["val"] * val + ["train"] * (len(ordered) - test - val)
    return dict(zip(ordered, splits, strict=True))


def _thinned(parts: dict[str, str], share: float) -> dict[str, str]:
    """The parts with the first of the training patients alone."""
    train = [patient for patient, part in parts.items() if part == "train"]
    dropped = set(train[max(1, round(share * len(train))) :])
    return {patient: part for patient, part in parts.items() if patient not in dropped}


def _pairs(folder: Path, problems: list[str]) -> list[_Pair]:
    """Images and labels of every site, paired by stem."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    pairs = []
    passed: list[str] = []
    for site in sorted(path for path in folder.iterdir() if path.is_dir()):
        label_folders = [site / name for name in _LABEL_FOLDERS if (site / name).is_dir()]
        if site.name.startswith(".") or (not (site / "images").is_dir() and not label_folders):
            passed.append(_why_passed(site))
            continue
        if not (site / "images").is_dir() or len(label_folders) != 1:
            problems.append(f"{site}: expected images/ and either labels/ or masks/")
            continue
        images, labels = _by_stem(site / "images", problems), _by_stem(label_folders[0], problems)
        alone = [(images[stem], "label", label_folders[0]) for stem in sorted(images.keys() - labels.keys())]
        alone += [(labels[stem], "image", site / "images") for stem in sorted(labels.keys() - images.keys())]
        problems += [f"{path}: no {kind} of that name in {where}; add it or remove this" for path, kind, where in alone]
        pairs += [_Pair(site.name, stem, images[stem], labels[stem]) for stem in sorted(images.keys() & labels.keys())]
        if not images and not labels:
            problems.append(f"{site}: no images; add some or remove the folder")
    if not pairs:
        _raise(
            folder,
            [*problems, *passed]
            or [f"{folder}: no cases; expected <site>/images/ with <site>/labels/ or <site>/masks/"],
        )
    for reason in passed:
        _LOG.warning("%s", reason)
    return pairs


def _why_passed(folder: Path) -> str:
    """Why a folder is not taken for a site."""
    if folder.name.startswith("."):
        return f"{folder}: not taken for a site, its name begins with a dot"
    inside = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    folders = [f"{path.name}/" for path in inside if path.is_dir()]
    files = sum(path.is_file() for path in inside)
    held = ", ".join([*folders[:5], *(["..."] if len(folders) > 5 else []), *([f"files: {files}"] if files else [])])
    return f"{folder}: not taken for a site, expected images/ and labels/ or masks/ in it, got {held or 'nothing'}"


def _warn_of_alike(folder: Path, pairs: Sequence[_Pair]) -> None:
    """Warn of sites whose patients may be on both sides of a split."""
    for site in sorted({pair.site for pair in pairs}):
        found = alike(pair.stem for pair in pairs if pair.site == site)
        if found:
            first, second, *_ = next(iter(found.values()))
            _LOG.warning(
                "%s: %d files look like several images of one patient, such as %s and %s, and may be on both sides of "
                "the split; name the patients in %s, with the columns site,image,patient",
                folder / site,
                sum(map(len, found.values())),
                first,
                second,
                folder / _CSV_NAMES[0],
            )


def _by_stem(folder: Path, problems: list[str]) -> dict[str, Path]:
    """The files of a folder by their name without suffix."""
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name.lower() in _CLUTTER:
            continue
        stem = _stem(path.name)
        if stem == path.name:
            problems.append(f"{path}: not one of {' '.join(SUFFIXES)}; convert it or move it away")
        elif stem in files:
            problems.append(f"{path}: same name as {files[stem].name}; keep one of them")
        else:
            files[stem] = path
    return files


def _stem(name: str) -> str:
    suffix = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), "")
    return name[: len(name) - len(suffix)]


def _csv(folder: Path, given: Path | None) -> Path | None:
    return given or next((folder / name for name in _CSV_NAMES if (folder / name).is_file()), None)


def _patients(pairs: Sequence[_Pair], table: Path | None, problems: list[str]) -> dict[_Pair, str]:
    """The patient of each pair; a pair that the table does not name is a problem and left out."""
    if table is None:
        return {pair: pair.stem for pair in pairs}
    sites = {pair.site for pair in pairs}
    named = {key: patient for key, patient in _read_csv(table, problems).items() if key[0] in sites}
    present = {(pair.site, pair.stem): pair for pair in pairs}
    for site, stem in sorted(named.keys() - present.keys()):
        problems.append(
            f"{table}: names image {stem!r} of site {site!r}, which has no such pair; correct or remove the row"
        )
    for key in sorted(present.keys() - named.keys()):
        problems.append(f"{present[key].image}: not in {table}; add a row with its patient or remove the file")
    return {pair: named[key] for key, pair in present.items() if key in named}


def _read_csv(table: Path, problems: list[str]) -> dict[tuple[str, str], str]:
    """Patients by site and stem. Comma or semicolon; columns by any of their usual names."""
    try:
        text = table.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{table}: not a readable table ({error}); save it as CSV in UTF-8") from None
    lines = text.splitlines()
    header = lines[0] if lines else ""
    rows = csv.DictReader(lines, delimiter=";" if header.count(";") > header.count(",") else ",")
    columns = {str(name).strip().lower(): name for name in rows.fieldnames or ()}
    site, image, patient = (
        _column(table, columns, names) for names in (_SITE_COLUMNS, _IMAGE_COLUMNS, _PATIENT_COLUMNS)
    )
    patients: dict[tuple[str, str], str] = {}
    for row in rows:
        values = [(row[column] or "").strip() for column in (site, image, patient)]
        if not all(values):
            problems.append(f"{table}: line {rows.line_num} lacks its {site}, {image} or {patient}; fill it in")
            continue
        key = values[0], _stem(Path(values[1]).name)
        if patients.setdefault(key, values[2]) != values[2]:
            problems.append(f"{table}: line {rows.line_num} gives its image a second patient; correct one of the rows")
    return patients


def _column(table: Path, columns: Mapping[str, str], names: Sequence[str]) -> str:
    found = next((columns[name] for name in names if name in columns), None)
    if found is None:
        raise UserError(f"{table}: no column {' or '.join(names)}; it has {', '.join(columns) or 'no header'}")
    return found


def _cases(
    folder: Path,
    patients: Mapping[_Pair, str],
    problems: list[str],
    progress: Callable[[int, int], None] | None,
) -> list[tuple[str, Case]]:
    """Check every pair; the site and the case, without a split yet, of each that can be read."""
    cases: list[tuple[str, Case]] = []
    holder: dict[str, Path] = {}
    foreground: dict[str, list[bool]] = {}
    for done, (pair, patient) in enumerate(patients.items(), start=1):
        report = check_pair(pair.image, pair.label)
        problems += report.problems
        if not report.problems:
            foreground.setdefault(pair.site, []).append(report.foreground)
        if len(report.sha256) == 2:
            first = holder.setdefault(report.sha256["image"], pair.image)
            if first != pair.image:
                problems.append(f"{pair.image}: the same image as {first}; remove one of them")
            image, label = (path.relative_to(folder).as_posix() for path in (pair.image, pair.label))
            cases.append((pair.site, Case(patient, image, label, "", report.sha256)))
        if progress is not None:
            progress(done, len(patients))
    for site, found in foreground.items():
        if not any(found):
            problems.append(f"{folder / site}: no label has any foreground; check that these are the right labels")
        elif not all(found):
            _LOG.warning("site %s: %d of %d labels are empty", site, found.count(False), len(found))
    return cases


def _raise(folder: Path, problems: Sequence[str]) -> None:
    if not problems:
        return
    if len(problems) == 1:
        raise UserError(problems[0])
    shown = problems if len(problems) <= _MOST_LINES else problems[: _MOST_LINES - 2]
    more = [f"... and {len(problems) - len(shown)} more"] if len(shown) < len(problems) else []
    raise UserError("\n".join([f"{folder}: {len(problems)} problems", *shown, *more]))
