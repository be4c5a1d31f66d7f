"""``fedbcs report``: runs to one page."""

from argparse import Namespace

from fedbcs_monai.cli.console import voice
from fedbcs_monai.files import check_file_can_be
from fedbcs_monai.report import write_report


def run(options: Namespace) -> None:
    """Write the page and say where it is."""
    output = options.output or options.runs[0] / "report.html"
    if options.output is not None:
        check_file_can_be(output)
    voice(options).result(
        "report", path=write_report(options.runs, output, title=options.title, figures=options.figures)
    )
