"""``fedbcs familiarity``: what a run knows of how cases look at its sites."""

from argparse import Namespace

from fedbcs_monai.backends.ood import add_familiarity
from fedbcs_monai.cli.console import voice


def run(options: Namespace) -> None:
    """Learn it, and say where it is."""
    say = voice(options)
    path = add_familiarity(
        options.run,
        sites=options.sites,
        device=options.device,
        overwrite=options.overwrite,
        watch=say,
        trust=options.trust,
    )
    say.result("familiarity", path=path)
