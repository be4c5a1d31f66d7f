"""``fedbcs predict``: new images to masks."""

from argparse import Namespace

from fedbcs_monai.cli.voice import voice
from fedbcs_monai.clinical import predict


def run(options: Namespace) -> None:
    """Segment, and say where the masks are."""
    say = voice(options)
    with say.progress("segmenting") as progress:
        written = predict(
            options.model,
            options.input,
            options.output,
            overwrite=options.overwrite,
            device=options.device,
            which=options.which,
            overlay=not options.no_overlay,
            progress=progress,
        )
    for path in written:
        say.result("wrote", path=path)
