"""``fedbcs predict``: new images to masks."""

from argparse import Namespace

from rich.progress import Progress

from fedbcs_monai.cli.voice import Bars, voice
from fedbcs_monai.clinical import predict


def run(options: Namespace) -> None:
    """Segment, and say where the masks are."""
    say = voice(options)
    with Progress(console=say.console if isinstance(say, Bars) else None, disable=not isinstance(say, Bars)) as bar:
        task = bar.add_task("segmenting", total=None)
        written = predict(
            options.model,
            options.input,
            options.output,
            overwrite=options.overwrite,
            device=options.device,
            which=options.which,
            overlay=not options.no_overlay,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for path in written:
        say.result("wrote", path=path)
