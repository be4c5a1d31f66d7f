"""``fedbcs sites``: write the site list of a folder of sites."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from fedbcs_monai.cli.options import NORMAL, OUTPUT, SEVERAL, Verbosity
from fedbcs_monai.errors import UserError


def sites(
    folder: Path,
    /,
    *,
    output: Annotated[Path | None, OUTPUT] = None,
    task: str = "",
    cases: Path | None = None,
    folds: int = 0,
    seed: int = 0,
    unseen: Annotated[Sequence[str], SEVERAL] = (),
    train_share: float = 1.0,
    modality: str = "",
    overwrite: bool = False,
    verbosity: Verbosity = NORMAL,
) -> None:
    """Check a folder of sites and write the site list that everything else reads.

    The folder holds SITE/images and SITE/masks (or SITE/labels) with files of the same names: PNG, TIFF, JPEG, BMP,
    NIfTI, NRRD or MHA. A CSV of cases with the columns site, image and patient, given or found as cases.csv or
    manifest.csv, names the images of each patient; otherwise every image is a patient of its own. A patient's images
    are never split.

    Args:
        folder: with a folder for each site
        output: site list (default: FOLDER/sites.json)
        task: name of the task, for reports
        cases: CSV of cases with their patients
        folds: k folds instead of 64/16/20 train/validation/test
        seed: of the split
        unseen: sites that are only tested
        train_share: list this share of each site's training patients alone, as 0.25
        modality: such as MR or H&E, for reports
        overwrite: replace the site list
    """
    from fedbcs_monai.data.prepare import list_sites
    from fedbcs_monai.data.sites import write_sites
    from fedbcs_monai.files import check_file_can_be

    console = verbosity.console()
    path = output or folder / "sites.json"
    if output is not None:
        check_file_can_be(output)
    if path.exists() and not overwrite:
        raise UserError(f"{path}: already exists; replace it with --overwrite, or name another -o")
    with console.progress("checking files") as progress:
        found = list_sites(
            folder,
            cases_csv=cases,
            folds=folds,
            seed=seed,
            unseen=unseen,
            train_share=train_share,
            modality=modality,
            progress=progress,
        )
    write_sites(path, found, task)
    parts = ("train", "val", "test")
    console.table(
        "cases",
        "cases of each site" + (" in fold 0" if folds else ""),
        {name: name for name in ("site", "patients", *parts)},
        [
            [site.name, len({case.patient for case in site.cases}), *(len(site.split(part)) for part in parts)]
            for site in found
        ],
    )
    console.result("site_list", path=path)
