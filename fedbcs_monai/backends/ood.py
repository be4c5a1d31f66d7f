"""Out-of-distribution statistics added to a finished run that has none."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.backends.local import learn_in_process
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.federated.trust import load_travelled
from fedbcs_monai.files import check_sum
from fedbcs_monai.ood.distance import MIN_CASES
from fedbcs_monai.ood.file import find_site_styles, site_styles_file
from fedbcs_monai.runs.model_io import find_weights
from fedbcs_monai.runs.setup import set_up


def add_site_styles(
    run: Path,
    *,
    sites: Path | None = None,
    device: str = "auto",
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
    trust: Iterable[str] | Trust = (),
) -> Path:
    """Ask every site of a run, in this process, how its cases look, and write that beside the selected weights.

    Args:
        run: its folder.
        sites: site list; None: the run's own.
        device: as in `Compute`.
        overwrite: replace an existing file.
        callbacks: receives the progress.
        trust: as in `load_config`.

    Returns:
        The file.

    Raises:
        UserError: there is no such run, the file exists already, or no site has enough cases.
    """
    weights = find_weights(run)
    file = site_styles_file(weights)
    if find_site_styles(weights).exists() and not overwrite:
        raise UserError(f"{find_site_styles(weights)}: exists already; replace it with --overwrite")
    here: dict[str, Any] = {"device": device, "compile": False, "cache": False, "threads": 0, "ood": True}
    here |= {"sites": str(sites)} if sites else {}
    file_of_config = weights.with_name("config.json")
    check_sum(file_of_config, file_of_config.read_bytes())
    settings = load_travelled(file_of_config, here, trust)
    if not learn_in_process(set_up(settings, callbacks), weights):
        raise UserError(f"{run}: no site has the {MIN_CASES} cases that are needed; nothing was written")
    return file
