"""Simulator: runs a federation in NVFlare's simulator, with separate processes for each site."""

import shutil
from pathlib import Path
from typing import Any

from nvflare.recipe import SimEnv

from fedbcs_monai.backends.nvflare.layout import STATISTICS, keep_tracked
from fedbcs_monai.backends.nvflare.recipe import FedBCSRecipe, JobRecipe, StatisticsRecipe
from fedbcs_monai.data import read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.writer import check_folder, clear_run, copy_run
from fedbcs_monai.settings import Settings, require

SIMULATION = "simulation"
"""In the run folder: what NVFlare itself leaves."""


def simulate(settings: Settings, *, overwrite: bool = False, log: str = "concise", **options: Any) -> Path:
    """Run a federation in NVFlare's simulator.

    Args:
        settings: of `load_config`, with ``sites`` and ``output``.
        overwrite: replace a run that the folder holds.
        log: NVFlare's verbosity, ``concise``, ``full``, ``verbose`` or a level such as ``error``.
        options: of `FedBCSRecipe`.

    Returns:
        The run folder, of the same shape as that of `train`.

    Raises:
        UserError: what the user can correct.
    """
    folder = _folder(settings, overwrite)
    recipe = FedBCSRecipe(settings, **options)
    root = _simulated(settings, recipe, folder, log)
    copy_run(root / "fedbcs" / "runs" / recipe.run_id, folder)
    keep_tracked(root, folder)
    return folder


def simulate_statistics(settings: Settings, *, overwrite: bool = False, log: str = "concise", **options: Any) -> Path:
    """Compute federated statistics in NVFlare's simulator; the file is returned.

    Args:
        settings: as for `simulate`.
        overwrite: as for `simulate`.
        log: as for `simulate`.
        options: of `StatisticsRecipe`.
    """
    folder = _folder(settings, overwrite)
    root = _simulated(settings, StatisticsRecipe(settings, **options), folder, log)
    shutil.copyfile(next(root.rglob(STATISTICS)), folder / STATISTICS)
    return folder / STATISTICS


def _folder(settings: Settings, overwrite: bool) -> Path:
    require(settings, ("sites",), "`fedbcs sites FOLDER` writes a site list; name it with --sites")
    require(settings, ("output",), "name a run folder")
    folder = Path(settings.output).absolute()
    check_folder(folder, overwrite)
    return folder


def _simulated(settings: Settings, recipe: JobRecipe, folder: Path, log: str) -> Path:
    clear_run(folder)
    root = folder / SIMULATION
    env = SimEnv(clients=sorted(read_sites(Path(settings.sites))), workspace_root=str(root), log_config=log)
    try:
        recipe.run(env)
    except RuntimeError as error:
        raise UserError(f"{root}: the simulation failed ({error})") from None
    return root
