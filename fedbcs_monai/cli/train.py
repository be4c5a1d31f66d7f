"""``fedbcs train``: a configuration to a tested model and its report."""

from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedbcs_monai.backends.local import Plan, plan_training, train
from fedbcs_monai.cli.console import Entry, Quiet, voice
from fedbcs_monai.cli.scores import score_table
from fedbcs_monai.config import load_config, value_of
from fedbcs_monai.errors import UserError
from fedbcs_monai.report import write_report
from fedbcs_monai.settings import Settings


def run(options: Namespace) -> None:
    """Train, test, report; or with --dry-run only say what would run."""
    say = voice(options)
    overrides = overrides_of(options.overrides)
    if options.output is not None:
        overrides["output"] = str(options.output)
    overrides.setdefault("output", str(Path("runs") / Path(options.config).stem))
    settings = load_config(options.config, overrides, options.trust)
    if options.dry_run:
        _say_plan(plan_training(settings, resume=options.resume, overwrite=options.overwrite, watch=say), settings, say)
        return
    try:
        folder = train(settings, resume=options.resume, overwrite=options.overwrite, watch=say)
    except KeyboardInterrupt:
        say.result("interrupted; go on with the same command and --resume", folder=settings.output)
        raise
    score_table(folder, say)
    say.result("report", path=write_report([folder], folder / "report.html"))
    say.result("model", path=folder / "model.safetensors")


def overrides_of(rest: Sequence[str]) -> dict[str, Any]:
    """``--key value`` and ``--key=value`` pairs.

    >>> overrides_of(["--rounds", "5", "--method::tau=1e-1", "--leave_out", "001"])
    {'rounds': 5, 'method::tau': 0.1, 'leave_out': '001'}

    Raises:
        UserError: a word that is no key, a key without a value, or one that is given twice.
    """
    overrides: dict[str, Any] = {}
    words = list(rest)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            raise UserError(f"unexpected {word!r}: an override is --key value")
        key, equals, value = word.removeprefix("--").partition("=")
        if not equals:
            if not words:
                raise UserError(f"--{key} has no value: an override is --key value")
            value = words.pop(0)
        if key in overrides:
            raise UserError(f"--{key} is given more than once; give it once")
        overrides[key] = value_of(value, key)
    return overrides


def _say_plan(plan: Plan, settings: Settings, say: Quiet) -> None:
    parts = ("train", "val", "test")
    rows: list[list[Entry]] = [
        [name, *(len(site.split(part, settings.fold)) for part in parts)] for name, site in sorted(plan.data.items())
    ]
    say.table("cases", ["site", *parts], rows)
    network, compute = plan.federation.network, plan.federation.sites[0].compute
    parameters = sum(p.numel() for p in network.parameters())
    say.result("method", method=plan.federation.method)
    say.result("network", parameters=f"{parameters:,} parameters", device=compute.torch_device)
    site, (count, *shape), loss = plan.rehearsed
    batch = f"{count} samples of {' x '.join(map(str, shape))}"
    say.result("one step, not kept", site=site, batch=batch, loss=f"loss {loss:.3f}")
    say.result("rounds", rounds=settings.rounds)
    say.result("would write", folder=settings.output)
