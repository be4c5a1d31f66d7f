"""``fedbcs evaluate``: score a run on a site list."""

import csv
from argparse import Namespace
from io import StringIO

from fedbcs_monai.backends.evaluate import evaluate
from fedbcs_monai.cli.console import voice
from fedbcs_monai.cli.scores import COLUMNS, COVERED, summary
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import check_file_can_be, write_whole
from fedbcs_monai.metrics.cases import CaseScore


def run(options: Namespace) -> None:
    """Score, say a table, and write every case's scores where asked."""
    say = voice(options)
    if options.output is not None:
        check_file_can_be(options.output)
        if options.output.exists() and not options.overwrite:
            raise UserError(f"{options.output}: is there already; replace it with --overwrite, or name another -o")
    scores = evaluate(
        options.run,
        sites=options.sites,
        part=options.part,
        fold=options.fold,
        model=options.model,
        device=options.device,
        at=options.site,
        watch=say,
        trust=options.trust,
    )
    say.note(COVERED)
    say.table(f"{options.part} scores", COLUMNS, [summary(name, found) for name, found in scores.items()])
    if options.output is not None:
        content = StringIO()
        writer = csv.writer(content)
        writer.writerow(["site", *CaseScore._fields])
        writer.writerows([name, *score] for name, found in scores.items() for score in found)
        write_whole(options.output, content.getvalue().encode())
        say.result("scores", path=options.output)
