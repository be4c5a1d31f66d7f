"""``fedbcs flare``: a configuration as an NVFlare job, and the job's way through a federation."""

import shutil
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from fedbcs_monai.backends.nvflare.layout import STATISTICS
from fedbcs_monai.cli.console import Quiet, voice
from fedbcs_monai.cli.scores import score_table
from fedbcs_monai.cli.train import overrides_of
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import check_file_can_be, check_folder_can_be
from fedbcs_monai.report import write_report
from fedbcs_monai.runs.reader import is_finished

try:
    from fedbcs_monai.backends.nvflare import submission
    from fedbcs_monai.backends.nvflare.environments import write_project
    from fedbcs_monai.backends.nvflare.policy import write_policy
    from fedbcs_monai.backends.nvflare.recipe import FedBCSRecipe, StatisticsRecipe
    from fedbcs_monai.backends.nvflare.simulator import simulate, simulate_statistics
except ModuleNotFoundError as missing:
    raise UserError(f"NVFlare is not installed ({missing}): pip install 'fedbcs-monai[flare]'") from None


def run(options: Namespace) -> None:
    """Do what the action says."""
    if options.overrides and options.action not in ("simulate", "export"):
        raise UserError(f"unrecognized arguments: {' '.join(options.overrides)}")
    {
        "simulate": _simulate,
        "export": _export,
        "submit": _submit,
        "status": _status,
        "abort": _abort,
        "download": _download,
        "resume": _resume,
        "site-policy": _site_policy,
        "project": _project,
    }[options.action](options, voice(options))


def recipe_options(options: Namespace) -> dict[str, Any]:
    """Arguments of the recipe that were given."""
    names = ("min_responses", "round_timeout_s", "wait_s", "restarts", "cross_site", "offload_mib", "poll_s", "track")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    if options.statistics and given.keys() - {"min_responses", "wait_s"}:
        raise UserError("--statistics trains nothing: of the job's options it has --min-responses and --wait-s")
    return given


def _simulate(options: Namespace, say: Quiet) -> None:
    overrides = overrides_of(options.overrides)
    output = options.output or Path("runs") / Path(options.config).stem
    config = load_config(options.config, {**overrides, "output": str(output)}, options.trust)
    how = {"overwrite": options.overwrite, "log": "error" if options.quiet or options.json else "concise"}
    if options.statistics:
        say.result("statistics", path=simulate_statistics(config, **how, **recipe_options(options)))
    else:
        _results(simulate(config, **how, **recipe_options(options)), say)


def _export(options: Namespace, say: Quiet) -> None:
    if options.output.exists():
        raise UserError(f"{options.output}: is there already; name another -o")
    check_folder_can_be(options.output.parent)
    config = load_config(options.config, overrides_of(options.overrides), options.trust)
    how = recipe_options(options)
    if options.statistics:
        recipe = StatisticsRecipe(config, name=options.job_name, **how)
    else:
        recipe = FedBCSRecipe(config, name=options.job_name, run_id=options.run_id, **how)
        say.result("run", run_id=recipe.run_id)
    with tempfile.TemporaryDirectory() as folder:
        recipe.export(folder)
        shutil.copytree(Path(folder) / options.job_name, options.output)
    say.result("job", path=options.output)


def _submit(options: Namespace, say: Quiet) -> None:
    folder = options.output or Path("runs") / options.job.name
    say.result("submitted", job=submission.submit(options.job, options.startup_kit, folder), folder=folder)


def _status(options: Namespace, say: Quiet) -> None:
    if options.wait:
        try:
            submission.wait(options.run, note=say.note)
        except KeyboardInterrupt:
            say.note("no longer waiting; the job goes on, and `fedbcs flare abort` would end it")
            raise
    say.result("job", **submission.status(options.run))


def _abort(options: Namespace, say: Quiet) -> None:
    say.result("aborted", job=submission.abort(options.run))


def _resume(options: Namespace, say: Quiet) -> None:
    say.result("resumed", job=submission.resume(options.run))


def _download(options: Namespace, say: Quiet) -> None:
    _results(submission.download(options.run), say)


def _site_policy(options: Namespace, say: Quiet) -> None:
    for kit in options.kits:
        for path in write_policy(kit, options.sites):
            say.result("written", path=path)


def _project(options: Namespace, say: Quiet) -> None:
    check_file_can_be(options.output)
    if options.output.exists() and not options.overwrite:
        raise UserError(f"{options.output}: is there already; replace it with --overwrite, or name another -o")
    write_project(options.output, options.clients)
    say.result("project", path=options.output)


def _results(folder: Path, say: Quiet) -> None:
    if (folder / STATISTICS).is_file():
        say.result("statistics", path=folder / STATISTICS)
    elif is_finished(folder):
        score_table(folder, say)
        say.result("report", path=write_report([folder], folder / "report.html"))
        say.result("model", path=folder / "model.safetensors")
    else:
        say.result("unfinished run; `fedbcs flare resume` goes on with it", folder=folder)
