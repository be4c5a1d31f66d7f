"""``fedbcs report``: compare runs on one page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fedbcs_monai.cli.options import NORMAL, OUTPUT, Verbosity


def report(
    runs: Sequence[Path],
    /,
    *,
    output: Annotated[Path | None, OUTPUT] = None,
    title: str | None = None,
    figures: Path | None = None,
    verbosity: Verbosity = NORMAL,
) -> None:
    """Write one self-contained page of a run, or of several runs side by side.

    Args:
        runs: run folders of the same sites
        output: page (default: report.html in the first run)
        title: heading of the page
        figures: also write every figure into this folder, as PDF, SVG and PNG
    """
    from fedbcs_monai.files import check_file_can_be
    from fedbcs_monai.report import write_report

    console = verbosity.console()
    if output is not None:
        check_file_can_be(output)
    page = write_report(runs, output or runs[0] / "report.html", title=title, figures=figures)
    console.result("report", path=page)
