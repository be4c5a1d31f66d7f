"""``fedbcs flare``: export, simulate, submit and follow NVFlare jobs."""

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from fedbcs_monai.cli.options import NORMAL, OUTPUT, SEVERAL, Size, Trust, Variant, Verbosity
from fedbcs_monai.cli.overrides import Overrides, settings_from
from fedbcs_monai.errors import UserError

if TYPE_CHECKING:
    from fedbcs_monai.cli.console import QuietConsole

app = App(
    name="flare",
    help=(
        "Run a federation with NVFlare: simulate it, or export, submit, watch, fetch and resume a job.\n\n"
        "`fedbcs flare ACTION --help` explains an action; docs/how-to/nvflare.md walks through a consortium."
    ),
)


@Parameter(name="*")
@dataclass(frozen=True)
class JobOptions:
    """What a job asks of its sites."""

    statistics: bool = False
    """of the sites' cases, instead of a training"""

    min_responses: int | None = None
    """sites that must answer (default: 2)"""

    round_timeout_s: int | None = None
    """maximum time for an answer, in seconds (default: 7200)"""

    wait_s: int | None = None
    """seconds to wait for the other sites after that (default: 600)"""

    restarts: int | None = None
    """of a killed trainer, per question (default: 3)"""

    cross_site: bool = False
    """sites test each other's networks"""

    offload_mib: int | None = None
    """minimum size of updates that are kept on disk, in MiB (default: 256)"""

    poll_s: float | None = None
    """seconds between a site's requests for work (default: 0.2)"""

    track: Annotated[Sequence[Literal["tensorboard", "mlflow"]] | None, SEVERAL] = None
    """with NVFlare's own trackers"""

    def given(self) -> dict[str, Any]:
        """Arguments of the recipe that were given."""
        unset: tuple[Any, ...] = (None, False)
        given = {name: value for name, value in asdict(self).items() if name != "statistics" and value not in unset}
        if self.statistics and given.keys() - {"min_responses", "wait_s"}:
            raise UserError("--statistics trains nothing: of the job's options it has --min-responses and --wait-s")
        return given


NO_OPTIONS = JobOptions()


@contextmanager
def _nvflare() -> Iterator[None]:
    """Name the extra where NVFlare is missing."""
    try:
        yield
    except ModuleNotFoundError as missing:
        raise UserError(f"NVFlare is not installed ({missing}): pip install 'fedbcs-monai[flare]'") from None


@app.command
def simulate(
    config: str,
    /,
    *overrides: Overrides,
    size: Size = "",
    variant: Variant = "",
    output: Annotated[Path | None, OUTPUT] = None,
    overwrite: bool = False,
    job: JobOptions = NO_OPTIONS,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Train in NVFlare's simulator, every site in processes of its own.

    Args:
        config: as for `fedbcs train`
        overrides: keys of the configuration
        output: run folder (default: runs/CONFIG_SIZE_METHOD)
        overwrite: replace the run in the folder
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare.simulator import simulate, simulate_statistics

    console = verbosity.console()
    loaded = settings_from(config, overrides, trust, size, variant, output)
    how = {"overwrite": overwrite, "log": "error" if verbosity.quiet or verbosity.json else "concise", **job.given()}
    if job.statistics:
        console.result("statistics", path=simulate_statistics(loaded, **how))
    else:
        _results(simulate(loaded, **how), console)


@app.command
def export(
    config: str,
    /,
    *overrides: Overrides,
    size: Size = "",
    variant: Variant = "",
    output: Annotated[Path, OUTPUT],
    job_name: str = "fedbcs",
    run_id: str | None = None,
    job: JobOptions = NO_OPTIONS,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Write a job that contains neither code nor paths.

    Args:
        config: as for `fedbcs train`
        overrides: keys of the configuration
        output: job folder
        job_name: as NVFlare lists it
        run_id: a job resumes where another one with the same id stopped
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare.recipe import FedBCSRecipe, StatisticsRecipe
    from fedbcs_monai.files import check_folder_can_be

    console = verbosity.console()
    if output.exists():
        raise UserError(f"{output}: already exists; name another -o")
    check_folder_can_be(output.parent)
    loaded = settings_from(config, overrides, trust, size, variant, None)
    if job.statistics:
        recipe = StatisticsRecipe(loaded, name=job_name, **job.given())
    else:
        recipe = FedBCSRecipe(loaded, name=job_name, run_id=run_id, **job.given())
        console.result("run", run_id=recipe.run_id)
    with tempfile.TemporaryDirectory() as folder:
        recipe.export(folder)
        shutil.copytree(Path(folder) / job_name, output)
    console.result("job", path=output)


@app.command
def submit(
    job: Path,
    /,
    *,
    startup_kit: Path,
    output: Annotated[Path | None, OUTPUT] = None,
    verbosity: Verbosity = NORMAL,
) -> None:
    """Submit an exported job.

    Args:
        job: job folder
        startup_kit: folder of an admin's startup kit
        output: run folder (default: runs/JOB)
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare import submission

    console = verbosity.console()
    folder = output or Path("runs") / job.name
    console.result("submitted", job=submission.submit(job, startup_kit, folder), folder=folder)


@app.command
def status(run: Path, /, *, wait: bool = False, verbosity: Verbosity = NORMAL) -> None:
    """Print the state of a submitted run.

    Args:
        run: run folder
        wait: until it has ended
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare import submission

    console = verbosity.console()
    if wait:
        try:
            submission.wait(run, note=console.note)
        except KeyboardInterrupt:
            console.note("no longer waiting; the job continues, and `fedbcs flare abort` would end it")
            raise
    found = dict(submission.status(run))
    text = ", ".join(map(str, found.values()))
    duration_s = seconds(found.pop("duration"))
    console.result("job", text, **found, duration_s=duration_s)


@app.command
def abort(run: Path, /, *, verbosity: Verbosity = NORMAL) -> None:
    """Stop a submitted run; the server keeps a checkpoint.

    Args:
        run: run folder
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare import submission

    console = verbosity.console()
    console.result("aborted", job=submission.abort(run))


@app.command
def download(run: Path, /, *, verbosity: Verbosity = NORMAL) -> None:
    """Fetch the results of a submitted run into its folder, and write its page.

    Args:
        run: run folder
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare import submission

    console = verbosity.console()
    _results(submission.download(run), console)


@app.command
def resume(run: Path, /, *, verbosity: Verbosity = NORMAL) -> None:
    """Resume a run that has failed, been stopped, or lost its server.

    Args:
        run: run folder
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare import submission

    console = verbosity.console()
    console.result("resumed", job=submission.resume(run))


@app.command
def site_policy(kits: Sequence[Path], /, *, sites: Path | None = None, verbosity: Verbosity = NORMAL) -> None:
    """Let the party of a startup kit run our jobs.

    Args:
        kits: startup kit of a server or a site
        sites: site list for the site file
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare.policy import write_policy

    console = verbosity.console()
    for kit in kits:
        for path in write_policy(kit, sites):
            console.result("written", path=path)


@app.command
def project(
    *clients: str,
    output: Annotated[Path, OUTPUT] = Path("project.yml"),
    overwrite: bool = False,
    verbosity: Verbosity = NORMAL,
) -> None:
    """Write a project.yml for provisioning a consortium.

    Args:
        clients: names of the sites (default: three hospitals)
        output: the file
        overwrite: replace the file
    """
    with _nvflare():
        from fedbcs_monai.backends.nvflare.environments import write_project
    from fedbcs_monai.files import check_file_can_be

    console = verbosity.console()
    check_file_can_be(output)
    if output.exists() and not overwrite:
        raise UserError(f"{output}: already exists; replace it with --overwrite, or name another -o")
    write_project(output, clients)
    console.result("project", path=output)


def seconds(duration: str) -> float | None:
    """A duration as NVFlare writes it, in seconds; None where there is none yet.

    >>> seconds("0:01:02.5"), seconds("1 day, 0:00:01"), seconds("N/A")
    (62.5, 86401.0, None)
    """
    found = re.fullmatch(r"(?:(\d+) days?, )?(\d+):(\d+):(\d+(?:\.\d*)?)", duration)
    if found is None:
        return None
    days, hours, minutes, rest = (float(part or 0) for part in found.groups())
    return ((days * 24 + hours) * 60 + minutes) * 60 + rest


def _results(folder: Path, console: "QuietConsole") -> None:
    from fedbcs_monai.backends.nvflare.layout import STATISTICS
    from fedbcs_monai.cli.scores import score_table
    from fedbcs_monai.report import write_report
    from fedbcs_monai.runs.reader import is_finished

    if (folder / STATISTICS).is_file():
        console.result("statistics", path=folder / STATISTICS)
    elif is_finished(folder):
        score_table(folder, console)
        console.result("report", path=write_report([folder], folder / "report.html"))
        console.result("model", path=folder / "model.safetensors")
    else:
        console.result("unfinished", f"{folder}; `fedbcs flare resume` resumes it", folder=folder)
