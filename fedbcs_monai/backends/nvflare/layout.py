"""Layout: the paths inside a job, inside its results, and in the run folder of the submitter."""

import shutil
from pathlib import Path

EXPERIMENT = "experiment.json"
"""The configuration in a job, beside NVFlare's own."""

RESULTS = "run"
"""The run folder among a job's results."""

STATISTICS = "statistics.json"
"""What a statistics job leaves."""

RECORD = "flare.json"
"""In the run folder: the startup kit, and the jobs of the run, the newest last."""

JOB = "job"
"""In the run folder: the job as it was submitted."""

TRACKED = ("tb_events", "mlflow.db")
"""What NVFlare's trackers leave: a folder for TensorBoard with one in it for each site, a database of MLflow's."""


def keep_tracked(results: Path, folder: Path) -> None:
    """Copy what NVFlare's trackers left among a job's results into ``tracked`` in a run folder."""
    for found in (path for name in TRACKED for path in results.rglob(name)):
        (folder / "tracked").mkdir(exist_ok=True)
        if found.is_dir():
            shutil.copytree(found, folder / "tracked" / found.name, dirs_exist_ok=True)
        else:
            shutil.copyfile(found, folder / "tracked" / found.name)
