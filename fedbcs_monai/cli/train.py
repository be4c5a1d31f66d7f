"""``fedbcs train``: train and test a configuration, and write its report."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from fedbcs_monai.cli.options import NORMAL, OUTPUT, SEVERAL, Size, Trust, Variant, Verbosity
from fedbcs_monai.cli.overrides import Overrides, settings_from
from fedbcs_monai.errors import UserError

if TYPE_CHECKING:
    from fedbcs_monai.backends.local import Plan
    from fedbcs_monai.cli.console import Entry, QuietConsole
    from fedbcs_monai.settings import Settings


def train(
    config: str,
    /,
    *overrides: Overrides,
    size: Size = "",
    variant: Variant = "",
    output: Annotated[Path | None, OUTPUT] = None,
    resume: Annotated[Sequence[int] | None, Parameter(consume_multiple=(0, 1))] = None,
    overwrite: bool = False,
    dry_run: bool = False,
    track: Annotated[Sequence[Literal["mlflow", "wandb"]], SEVERAL] = (),
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Train a federation in this process, test it, and write a report.

    Example: fedbcs train prostate --size small --method FedBCS --sites sites.json --rounds 50

    Args:
        config: name of a task, or a YAML or JSON file
        overrides: keys of the configuration
        output: run folder (default: runs/CONFIG_SIZE_METHOD)
        resume: resume from the newest checkpoint, or with a number from that of this round
        overwrite: replace the run in the folder
        dry_run: build everything, take one step at one site, print what would run, and stop
        track: experiment trackers for the metrics of every round, besides TensorBoard
    """
    from fedbcs_monai.backends.local import plan_training
    from fedbcs_monai.cli.scores import score_table
    from fedbcs_monai.runs.tracking import Tracking
    from fedbcs_monai.training import train

    console, start = verbosity.console(), _start(resume)
    callbacks = Tracking(console, track)
    settings = settings_from(config, overrides, trust, size, variant, output)
    if dry_run:
        _print_plan(plan_training(settings, resume=start, overwrite=overwrite, callbacks=console), settings, console)
        return
    try:
        folder = train(settings, resume=start, overwrite=overwrite, callbacks=callbacks)
    except KeyboardInterrupt:
        console.interrupted(settings.output, "the same command and --resume")
        raise
    score_table(folder, console)
    console.result("report", path=folder / "report.html")
    console.result("model", path=folder / "model.safetensors")


def _start(resume: Sequence[int] | None) -> int | bool:
    """Where ``--resume`` or ``--resume ROUND`` starts: at a round, or True for the newest checkpoint."""
    if resume is None:
        return False
    if len(resume) > 1:
        raise UserError("--resume is given more than once; give it once")
    return resume[0] if resume else True


def _print_plan(plan: "Plan", settings: "Settings", console: "QuietConsole") -> None:
    parts = ("train", "val", "test")
    rows: list[list[Entry]] = [
        [name, *(len(site.split(part, settings.fold)) for part in parts)] for name, site in sorted(plan.data.items())
    ]
    console.table("cases", "cases", {name: name for name in ("site", *parts)}, rows)
    method, network = plan.federation.method, plan.federation.network
    device, parameters = plan.federation.sites[0].compute.torch_device, sum(p.numel() for p in network.parameters())
    console.result("method", str(method), name=type(method).__name__, fields=asdict(method))
    console.result("network", f"{parameters:,} parameters, {device}", parameters=parameters, device=str(device))
    site, (samples, *shape), loss = plan.trial
    text = f"{site}, {samples} samples of {' x '.join(map(str, shape))}, loss {loss:.3f}; not kept"
    console.result("one_step", text, site=site, samples=samples, shape=shape, loss=loss)
    console.result("rounds", rounds=settings.rounds)
    console.result("would_write", folder=settings.output)
