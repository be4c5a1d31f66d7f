"""``fedbcs familiarity``: what a run knows of how cases look at its sites."""

from argparse import Namespace

from fedbcs_monai.cli.voice import voice
from fedbcs_monai.drivers.familiarity import add_familiarity


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
