"""``fedbcs sites``: a folder of sites to a site list."""

from argparse import Namespace

from fedbcs_monai.cli.console import voice
from fedbcs_monai.data.prepare import list_sites
from fedbcs_monai.data.sites import write_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import check_file_can_be


def run(options: Namespace) -> None:
    """Check the folder, split by patient, write the list."""
    say = voice(options)
    output = options.output or options.folder / "sites.json"
    if options.output is not None:
        check_file_can_be(output)
    if output.exists() and not options.overwrite:
        raise UserError(f"{output}: is there already; replace it with --overwrite, or name another -o")
    with say.progress("checking files") as progress:
        sites = list_sites(
            options.folder,
            cases_csv=options.cases,
            folds=options.folds,
            seed=options.seed,
            unseen=options.unseen,
            train_share=options.train_share,
            modality=options.modality,
            progress=progress,
        )
    write_sites(output, sites, options.task)
    columns = ["site", "patients", "train", "val", "test"]
    say.table(
        "cases of each site" + (" in fold 0" if options.folds else ""),
        columns,
        [
            [site.name, len({case.patient for case in site.cases}), *(len(site.split(part)) for part in columns[2:])]
            for site in sites
        ],
    )
    say.result("site list", path=output)
