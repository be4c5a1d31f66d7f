"""Trust: load a configuration that came with a job, a run folder or a bundle."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.config import load_config, read_config, renamed
from fedbcs_monai.errors import UserError
from fedbcs_monai.settings import Settings, keys_that

REMEDY = "add {target} to `allow` in the site's fedbcs.yaml"


def load_travelled(path: Path, here: Mapping[str, Any], trust: Iterable[str] | Trust = ()) -> Settings:
    """Load the configuration of a run folder or a bundle: one resolved file, which names no other.

    Args:
        path: of the file.
        here: from keys to values, over those of the file.
        trust: as in `load_config`.

    Raises:
        UserError: it is none, or what it names is not permitted.
    """
    check_resolved(read_config(path), path)
    return load_config(path, here, trust)


def load_job(path: Path, here: Mapping[str, Any], allow: Iterable[str] = ()) -> Settings:
    """Load the configuration of a job, at a site or at the server.

    Args:
        path: of the file in the job.
        here: the party's own settings of the run.
        allow: components, or packages of them, that this party lets jobs use besides those of the allow-list.

    Raises:
        UserError: as in `check_job`, or what it names is not permitted.
    """
    check_job(path)
    return load_config(path, here, job_trust(allow))


def job_trust(allow: Iterable[str]) -> Trust:
    """What a party lets jobs use besides the allow-list."""
    return Trust(tuple(allow), REMEDY)


def check_job(path: Path) -> None:
    """Refuse a job's file that is not a resolved configuration, or says where a party's data and results lie.

    Raises:
        UserError: which key.
    """
    content = read_config(path)
    check_resolved(content, path)
    for key in renamed(content, path.name, warn=False):
        if key not in keys_that("travels"):
            raise UserError(f"{path.name}: a job may not set {key!r}; export it again with `fedbcs flare export`")


def check_resolved(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a file that has to be put together from others, or from parts of itself.

    Raises:
        UserError: which key.
    """
    for key in content:
        if not isinstance(key, str) or key == "stack" or "::" in key:
            raise UserError(
                f"{path}: {key!r} has no place in the configuration of a run, a bundle or a job, which is resolved; "
                "train or export it again"
            )
