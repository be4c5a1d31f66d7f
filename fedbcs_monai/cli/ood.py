"""``fedbcs ood``: add the out-of-distribution statistics of its sites to a finished run."""

from pathlib import Path

from fedbcs_monai.cli.options import NORMAL, Device, Trust, Verbosity


def ood(
    run: Path,
    /,
    *,
    sites: Path | None = None,
    device: Device = "auto",
    overwrite: bool = False,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Add the statistics by which a finished run warns of images unlike those of its sites.

    Training does this by itself. The images of all sites must be on this machine.

    Args:
        run: run folder
        sites: site list (default: the run's own)
        overwrite: replace an existing file
    """
    from fedbcs_monai.backends.ood import add_site_styles

    console = verbosity.console()
    path = add_site_styles(run, sites=sites, device=device, overwrite=overwrite, callbacks=console, trust=trust)
    console.result("ood", path=path)
