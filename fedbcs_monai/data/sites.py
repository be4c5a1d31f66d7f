"""Site list: `Case`, `SiteData`, and the JSON file that lists cases, patients and splits of every site."""

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedbcs_monai.errors import UserError
from fedbcs_monai.files import sha256, write_whole
from fedbcs_monai.names import WAY_OUT, is_site_name, shortened

FORMAT = "fedbcs-sites-1"
PARTS = ("train", "val", "test")

_FILE_KEYS = {"format", "task", "root", "sites"}
_SITE_KEYS = {"name", "modality", "cases"}
_CASE_KEYS = {"patient", "image", "label", "split", "sha256"}
_PREPARE_AGAIN = "write the list again with `fedbcs sites`"


@dataclass(frozen=True)
class Case:
    """One image of one patient, with its label.

    Args:
        patient: the patient, or whatever must stay in one part of a split.
        image: path below the root of the site list.
        label: path below the root; None where nobody has drawn one.
        split: `train`, `val` or `test`, or `fold0`, `fold1`, ... for cross-validation.
        sha256: the SHA-256 of `image` and, if there is one, of `label`.
    """

    patient: str
    image: str
    label: str | None
    split: str
    sha256: Mapping[str, str]

    @property
    def id(self) -> str:
        """A name without patient data: the first 8 digits of the image's SHA-256."""
        return self.sha256["image"][:8]

    @property
    def fold(self) -> int | None:
        """The number of the fold, or None if the part is fixed."""
        number = self.split.removeprefix("fold")
        return int(number) if number != self.split and number.isascii() and number.isdigit() else None


@dataclass(frozen=True)
class SiteData:
    """The cases of one hospital; their paths are relative to `root`."""

    name: str
    modality: str
    root: Path
    cases: tuple[Case, ...]

    @property
    def folds(self) -> int:
        """How many folds the cases are in; 0 if their parts are fixed."""
        return 1 + max((-1 if case.fold is None else case.fold for case in self.cases), default=-1)

    @property
    def unseen(self) -> bool:
        """Whether the site is for testing only, and no model was trained on it."""
        return all(case.split == "test" for case in self.cases)

    def split(self, part: str, fold: int = 0) -> tuple[Case, ...]:
        """The cases of one part.

        With cases in n folds, fold k is tested, fold (k + 1) % n validates and the rest trains. A site whose parts are
        fixed has one division only and is the same for fold 0; an unseen site is the same for every fold.

        Args:
            part: `train`, `val` or `test`.
            fold: which fold is tested.
        """
        if part not in PARTS:
            raise UserError(f"unknown part {part!r}: use one of {', '.join(PARTS)}")
        folds = self.folds
        if not folds:
            if fold and not self.unseen:
                raise UserError(
                    f"site {self.name!r} has no folds, fold {fold} was asked: `fedbcs sites --folds` makes them"
                )
            return tuple(case for case in self.cases if case.split == part)
        if not 0 <= fold < folds:
            raise UserError(f"site {self.name!r} has folds 0 to {folds - 1}, fold {fold} was asked")
        test, val = fold, (fold + 1) % folds
        wanted = {"test": {test}, "val": {val}, "train": set(range(folds)) - {test, val}}[part]
        return tuple(case for case in self.cases if case.fold in wanted)

    def items(self, part: str, fold: int = 0) -> list[dict[str, Any]]:
        """The cases of one part as MONAI dictionaries.

        Returns:
            For each case `image` and, if there is one, `label`: absolute paths; `case`: the case's `id`; `sha256`: of
            both files, for `check_listed`.
        """
        root = self.root.absolute()
        items = []
        for case in self.split(part, fold):
            item = {"image": str(root / case.image), "case": case.id, "sha256": dict(case.sha256)}
            if case.label is not None:
                item["label"] = str(root / case.label)
            items.append(item)
        return items


def read_sites(path: Path) -> dict[str, SiteData]:
    """Read a site list and check that it is sound and that its files are there.

    Raises:
        UserError: in one line, what is wrong and how to correct it.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such site list; write one with `fedbcs sites FOLDER`") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable site list ({error}); {_PREPARE_AGAIN}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f'{path}: not a site list, expected "format": "{FORMAT}"; {_PREPARE_AGAIN}')
    _expect_keys(content, _FILE_KEYS, str(path))
    root = path.parent / _text(content, "root", str(path))
    sites = [_site(entry, root, f"{path}: site {number}") for number, entry in enumerate(_list(content, "sites", path))]
    problems = [*_inconsistencies(sites), *verify(sites, checksums=False)]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{path}: {problems[0]}{more}")
    return {site.name: site for site in sites}


def digest_sites(path: Path) -> str | None:
    """Digest of a site list: the same if the same cases are in the same parts of the same sites.

    Returns:
        16 hexadecimal digits of a SHA-256, whatever the files are called and wherever they lie; None if the list is not
        there or not one.
    """
    try:
        sites = json.loads(path.read_text(encoding="utf-8"))["sites"]
        cases = [[site["name"], case["split"], case["sha256"]] for site in sites for case in site["cases"]]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    listed = sorted(json.dumps(case, sort_keys=True) for case in cases)
    return hashlib.sha256("\n".join(listed).encode()).hexdigest()[:16]


def write_sites(path: Path, sites: Sequence[SiteData], task: str) -> None:
    """Write a site list, whole or not at all.

    The root is written relative to the list if it lies at or below the list's folder, so that both can move together.
    """
    path = Path(path)
    roots = {site.root.absolute() for site in sites}
    if len(roots) != 1:
        raise UserError(f"{path}: the sites of one list share one root folder, got {len(roots)}")
    problems = _inconsistencies(sites)
    if problems:
        raise UserError(f"{path}: {problems[0]}")
    root, folder = roots.pop().resolve(), path.absolute().parent.resolve()
    content = {
        "format": FORMAT,
        "task": task,
        "root": (root.relative_to(folder) if root.is_relative_to(folder) else root).as_posix(),
        "sites": [_as_json(site) for site in sites],
    }
    write_whole(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


def verify(sites: Iterable[SiteData], checksums: bool = True) -> list[str]:
    """What is missing on disk or, with `checksums`, has changed since the list was written: one line for each file."""
    problems = []
    for site in sites:
        for case in site.cases:
            for kind, name in (("image", case.image), ("label", case.label)):
                if name is None:
                    continue
                file = site.root / name
                if not file.is_file():
                    problems.append(f"site {site.name!r}: {kind} {file} is missing; restore it or {_PREPARE_AGAIN}")
                elif checksums and sha256(file) != case.sha256[kind]:
                    problems.append(f"site {site.name!r}: {kind} {file} has changed; restore it or {_PREPARE_AGAIN}")
    return problems


def name_problems(names: Iterable[str]) -> list[str]:
    """What is wrong with the names of sites; two that differ in case alone are one file on some disks."""
    names = list(names)
    problems = [f"site {shortened(name)}: its name is not one; {WAY_OUT}" for name in names if not is_site_name(name)]
    problems += [f"site {name!r} is listed twice" for name, n in Counter(names).items() if n > 1]
    folded = Counter(unicodedata.normalize("NFKC", name).casefold() for name in dict.fromkeys(names))
    alike = [name for name in names if folded[unicodedata.normalize("NFKC", name).casefold()] > 1]
    return [*problems, f"sites {', '.join(map(repr, alike))} differ in case alone; rename one"] if alike else problems


def _inconsistencies(sites: Sequence[SiteData]) -> list[str]:
    """Contradictions within a list, without looking at the disk."""
    problems = [] if sites else ["no sites"]
    problems += name_problems(site.name for site in sites)
    holder: dict[str, str] = {}
    for site in sites:
        where = f"site {site.name!r}"
        if not site.cases:
            problems.append(f"{where} has no cases")
        if any(case.fold is not None for case in site.cases):
            present = {case.fold for case in site.cases}
            if present != set(range(site.folds)) or site.folds < 3:
                splits = ", ".join(sorted({case.split for case in site.cases}))
                problems.append(f"{where} has splits {splits}: use fold0, fold1, ... without gaps, three or more")
        split_of: dict[str, str] = {}
        for case in site.cases:
            if case.split not in PARTS and case.fold is None:
                problems.append(f"{where}: {case.image} has split {case.split!r}: use train, val, test or fold0, ...")
            if case.label is None and case.split != "test":
                problems.append(f"{where}: {case.image} has no label; add one or move the case to split 'test'")
            if split_of.setdefault(case.patient, case.split) != case.split:
                both = f"{split_of[case.patient]} and {case.split}"
                problems.append(f"{where}: the patient of {case.image} is in {both}; give them one split")
            digest = case.sha256["image"]
            if digest in holder:
                problems.append(f"{where}: {case.image} is the same image as {holder[digest]}; remove one of them")
            holder.setdefault(digest, f"{case.image} of {where}")
    return problems


def _site(entry: Any, root: Path, where: str) -> SiteData:
    _expect_keys(entry, _SITE_KEYS, where)
    name = _text(entry, "name", where)
    cases = [_case(case, f"{where} ({name}), case {n}") for n, case in enumerate(_list(entry, "cases", where))]
    return SiteData(name, _text(entry, "modality", where), root, tuple(cases))


def _case(entry: Any, where: str) -> Case:
    _expect_keys(entry, _CASE_KEYS, where)
    label = None if entry["label"] is None else _text(entry, "label", where)
    digests = entry["sha256"]
    _expect_keys(digests, {"image"} if label is None else {"image", "label"}, f"{where}, sha256")
    for kind in digests:
        digest = _text(digests, kind, where)
        if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
            raise UserError(f"{where}: the sha256 of the {kind} is not 64 hexadecimal digits; {_PREPARE_AGAIN}")
    return Case(
        _text(entry, "patient", where), _text(entry, "image", where), label, _text(entry, "split", where), digests
    )


def _as_json(site: SiteData) -> dict[str, Any]:
    cases = [{key: getattr(case, key) for key in ("patient", "image", "label", "split")} for case in site.cases]
    for entry, case in zip(cases, site.cases, strict=True):
        entry["sha256"] = dict(case.sha256)
    return {"name": site.name, "modality": site.modality, "cases": cases}


def _expect_keys(entry: Any, keys: set[str], where: str) -> None:
    if not isinstance(entry, dict) or set(entry) != keys:
        came = ", ".join(sorted(entry)) if isinstance(entry, dict) else type(entry).__name__
        raise UserError(f"{where}: expected the keys {', '.join(sorted(keys))}, got {came}; {_PREPARE_AGAIN}")


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(entry[key], str):
        raise UserError(f"{where}: {key} must be text, got {entry[key]!r}; {_PREPARE_AGAIN}")
    return str(entry[key])


def _list(entry: Mapping[str, Any], key: str, where: str | Path) -> list[Any]:
    if not isinstance(entry[key], list):
        raise UserError(f"{where}: {key} must be a list, got {type(entry[key]).__name__}; {_PREPARE_AGAIN}")
    return list(entry[key])
