"""``fedbcs familiarity``: what a run knows of how cases look at its sites."""

from pathlib import Path

from fedbcs_monai.cli.options import NORMAL, Device, Trust, Verbosity


def familiarity(
    run: Path,
    /,
    *,
    sites: Path | None = None,
    device: Device = "auto",
    overwrite: bool = False,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Let a finished run learn how cases look at its sites, so that it can warn of images unlike them.

    A training does so by itself. Needs the images of all sites on this machine.

    Args:
        run: run folder
        sites: site list (default: the run's own)
        overwrite: learn it anew
    """
    from fedbcs_monai.backends.ood import add_familiarity

    console = verbosity.console()
    path = add_familiarity(run, sites=sites, device=device, overwrite=overwrite, callbacks=console, trust=trust)
    console.result("familiarity", path=path)
