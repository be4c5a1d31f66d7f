"""Datalist: read the cases of one site from a site list or from a MONAI/Decathlon datalist."""

import json
from pathlib import Path
from typing import Any

from fedbcs_monai.data.sites import FORMAT, PARTS, read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import check_case, sha256

KEYS = dict(zip(PARTS, ("training", "validation", "test"), strict=True))
"""What MONAI's datalists call the parts."""


def datalist(path: str | Path, part: str, site: str = "", fold: int = 0) -> list[dict[str, Any]]:
    """The cases of one part as MONAI dictionaries, as `SiteData.items` gives them but for their SHA-256.

    The files of a site list are checked against these here, because MONAI's readers do not know them.

    Args:
        path: a site list, or a JSON file whose `training`, `validation` and `test` list an `image` and a `label` each,
            relative to the file.
        part: ``train``, ``val`` or ``test``.
        site: of a site list; "" where it lists only one.
        fold: of the site list.

    Raises:
        UserError: the file is neither, lists no such site, or has no cases in this part.
    """
    path = Path(path)
    if part not in PARTS:
        raise UserError(f"unknown part {part!r}: use one of {', '.join(PARTS)}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(f"{path}: not a readable list of cases ({error}); `fedbcs sites FOLDER` writes one") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a list of cases is a mapping, got {type(content).__name__}")
    listed = _of_a_site(path, part, site, fold) if content.get("format") == FORMAT else _listed(path, content, part)
    if not listed:
        raise UserError(f"{path}: no {part} cases; list some")
    return listed


def _of_a_site(path: Path, part: str, site: str, fold: int) -> list[dict[str, Any]]:
    sites = read_sites(path)
    if site not in sites and (site or len(sites) > 1):
        raise UserError(f"{path}: which site? It lists {', '.join(sorted(sites))}; name one as `site`")
    items = sites[site or next(iter(sites))].items(part, fold)
    for item in items:
        check_case(item)
    return [{key: value for key, value in item.items() if key != "sha256"} for item in items]


def _listed(path: Path, content: dict[str, Any], part: str) -> list[dict[str, Any]]:
    key = KEYS[part]
    if key not in content:
        raise UserError(f"{path}: has no {key!r}; a MONAI datalist has {', '.join(KEYS.values())}")
    items = []
    for number, entry in enumerate(content[key]):
        if not isinstance(entry, dict) or not isinstance(entry.get("image"), str):
            raise UserError(f"{path}: {key} {number} is {entry!r}; expected a mapping with an image and a label")
        files = {kind: path.parent.absolute() / entry[kind] for kind in ("image", "label") if kind in entry}
        for file in files.values():
            if not file.is_file():
                raise UserError(f"{path}: {file} is missing; restore it or correct the list")
        items.append({**{kind: str(file) for kind, file in files.items()}, "case": sha256(files["image"])[:8]})
    return items
