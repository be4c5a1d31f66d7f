"""Site file: a site's own settings in ``local/fedbcs.yaml``, which never travel in a job."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from fedbcs_monai.config import NAMES, read_yaml, renamed
from fedbcs_monai.errors import UserError
from fedbcs_monai.settings import keys_that

NAME = "fedbcs.yaml"
ENVIRONMENT = "FEDBCS_SITE_FILE"
"""Names a site file elsewhere, for several sites on one machine."""

TEXT = """\
# What fedbcs_monai may use at this site. Nothing of this file leaves it.
# sites: /data/fedbcs/sites.json   # site list, written here by `fedbcs sites`
# name: Alder                      # this site's name in the list; without it, the client's name
# folder: /data/fedbcs/runs        # what runs keep here from round to round; without it, fedbcs/ in this kit
case_scores: false                 # send the scores of single test cases, without names, besides their means
# ood: true                        # tell, when asked, mean and covariance of how the cases look; no case's own
# device: auto                     # auto, cpu, cuda, cuda:1
# threads: 0                       # threads of torch on the CPU; 0: torch's own choice
# workers: 0                       # processes that read and augment
# cache: true                      # keep decoded cases in memory
# allow: []                        # classes, or packages of them, that jobs may use here besides the allow-list
# python: /opt/fedbcs/bin/python   # interpreter of the trainer; without it, that of the client
"""
"""A site file with everything that it may say."""


@dataclass(frozen=True)
class SiteFile:
    """A site's own settings.

    Args:
        folder: where the states of runs lie.
        overrides: of a job's configuration.
        name: in the site list; empty: the client's name.
        case_scores: whether scores of single test cases may leave, without names.
        allow: classes, or packages of them, that jobs may use besides those of the allow-list.
        python: interpreter of the trainer.
    """

    folder: Path
    overrides: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    case_scores: bool = False
    allow: tuple[str, ...] = ()
    python: str = sys.executable


def read_site_file(kit: Path) -> SiteFile:
    """Read a site file.

    Args:
        kit: the startup kit; the file is ``local/fedbcs.yaml`` in it, or what ``FEDBCS_SITE_FILE`` names.

    Raises:
        UserError: it says something that is not understood.
    """
    path = Path(os.environ.get(ENVIRONMENT) or kit / "local" / NAME)
    content = renamed(_read(path), str(path)) if path.is_file() else {}
    own = keys_that("site")
    known = {*own, "name", "folder", "case_scores", "allow", "python"}
    if unknown := content.keys() - known:
        raise UserError(f"{path}: unknown {', '.join(sorted(unknown))}; it may have {', '.join(sorted(known))}")
    if "sites" in content:
        content["sites"] = str((path.parent / content["sites"]).absolute())
    return SiteFile(
        folder=(path.parent / content["folder"]).absolute() if "folder" in content else kit / "fedbcs",
        overrides={key: content[key] for key in own if key in content},
        name=str(content.get("name", "")),
        case_scores=bool(content.get("case_scores", False)),
        allow=tuple(map(str, content.get("allow") or ())),
        python=str(content.get("python", sys.executable)),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), NAMES | {"folder", "python", "allow"}) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: must be lines of the form `key: value`, got {type(content).__name__}")
    return content


def checked_run_id(run_id: str) -> str:
    """A run id as it is, if it can be the name of a folder.

    Raises:
        UserError: it is something else.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", run_id):
        raise UserError(f"{run_id!r} is not a valid run id: use letters, digits, '.', '_' and '-'")
    return run_id
