"""``fedbcs bundle``: a finished run to a MONAI bundle."""

from argparse import Namespace

from fedbcs_monai.bundle import write_bundle
from fedbcs_monai.cli.console import voice
from fedbcs_monai.config import read_config


def run(options: Namespace) -> None:
    """Write the bundle, and say where it is and how well its exports agree."""
    say = voice(options)
    say.note("writing the bundle; its exports are computed beside the network, which takes a minute")
    path, differences = write_bundle(
        options.run,
        options.output,
        which=options.which,
        site=options.site,
        trust=options.trust,
        about=read_config(options.about) if options.about else None,
        overwrite=options.overwrite,
        zipped=options.zip,
    )
    for name, difference in differences._asdict().items():
        say.result(f"{name} differs from the network by at most", difference=f"{difference:.1e}")
    say.result("bundle", path=path)
