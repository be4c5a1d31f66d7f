"""``fedbcs evaluate``: score a run on the cases of a site list."""

import csv
from io import StringIO
from pathlib import Path
from typing import Annotated, Literal

from fedbcs_monai.cli.options import NORMAL, OUTPUT, Device, Model, Trust, Verbosity
from fedbcs_monai.errors import UserError


def evaluate(
    run: Path,
    /,
    *,
    sites: Path | None = None,
    part: Literal["train", "val", "test"] = "test",
    fold: int | None = None,
    model: Model = "selected",
    site: str | None = None,
    output: Annotated[Path | None, OUTPUT] = None,
    device: Device = "auto",
    overwrite: bool = False,
    trust: Trust = (),
    verbosity: Verbosity = NORMAL,
) -> None:
    """Score a trained run on the cases of a site list, on their own grids.

    Args:
        run: run folder
        sites: site list (default: the run's own)
        part: which cases
        fold: fold of the site list (default: the run's own)
        model: selected on validation cases, or the last round's
        site: score every site with the private layers of site NAME, as with FedBN or LocalOnly
            (default: each site with what it keeps itself, others with the global network)
        output: also write every case's scores to this CSV
        overwrite: replace the CSV
    """
    from fedbcs_monai.backends.evaluate import evaluate
    from fedbcs_monai.cli.scores import COLUMNS, COVERED, summary
    from fedbcs_monai.files import check_file_can_be, write_whole
    from fedbcs_monai.metrics.cases import CaseScore

    console = verbosity.console()
    if output is not None:
        check_file_can_be(output)
        if output.exists() and not overwrite:
            raise UserError(f"{output}: already exists; replace it with --overwrite, or name another -o")
    scores = evaluate(
        run, sites=sites, part=part, fold=fold, model=model, device=device, at=site, callbacks=console, trust=trust
    )
    console.note(COVERED)
    rows = [summary(name, found) for name, found in scores.items()]
    console.table("scores", f"{part} scores", COLUMNS, rows)
    if output is not None:
        content = StringIO()
        writer = csv.writer(content)
        writer.writerow(["site", *CaseScore._fields])
        writer.writerows([name, *score] for name, found in scores.items() for score in found)
        write_whole(output, content.getvalue().encode())
        console.result("written", path=output)
