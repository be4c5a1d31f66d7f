"""Synthetic sites: five synthetic hospitals, for demos and tests.

No pixel comes from a patient. Four hospitals make a federation, the fifth is for testing on a site never trained on.
They differ as real ones do, by dyes and scanners for nuclei, by coils, fields and sequences for prostates.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fedbcs_monai.demo.synthetic_nuclei import LABORATORIES, make_tile
from fedbcs_monai.demo.synthetic_prostate import SCANNERS, make_volume

TASKS = ("nuclei", "prostate")
SITES = ("Alder", "Birch", "Cedar", "Dogwood", "Elm")
UNSEEN = "Elm"
SMALLEST = 32


class Sample(NamedTuple):
    """One synthetic case in memory.

    Attributes:
        image: Nuclei (H, W, 3) uint8, red, green, blue. Prostate (W, H, D) int16.
        label: Nuclei (H, W) uint8, 0 or 255. Prostate (W, H, D) uint8, 0 or 1.
        affine: (4, 4) voxel indices to millimetres, RAS+. The identity for nuclei, which have no place in a body.
    """

    image: NDArray[Any]
    label: NDArray[np.uint8]
    affine: NDArray[np.float64]


def synthesise(
    folder: Path,
    task: str,
    cases: int = 12,
    seed: int = 0,
    size: int | None = None,
    progress: Callable[[str], None] | None = None,
) -> Path:
    """Write the synthetic images and labels of all `SITES`, and a table of them.

    Nuclei are ``<site>/images/case_000.png`` and ``<site>/masks/case_000.png``, prostates
    ``<site>/images/case_000.nii.gz`` and ``<site>/labels/case_000.nii.gz``. The table ``cases.csv`` has the columns
    site, image, label and patient, with paths relative to ``folder``. Every fourth nuclei case is a second tile of the
    patient before it, so split by patient.

    The same arguments give the same bytes. A case depends on its site, its number and the seed only: asking for more
    cases leaves the first ones as they were.

    Args:
        folder: Where to write; made if missing. Files of the same name are overwritten.
        task: One of `TASKS`.
        cases: Number of cases per site, at least 1.
        seed: Seed of all randomness, at least 0.
        size: Pixels along each in-plane axis, at least 32. By default 256 for nuclei, and 128 to 160 for prostates,
            each site its own.
        progress: Called with a line of text after each site.

    Returns:
        The path of ``cases.csv``.

    Raises:
        ValueError: If the task is unknown, or there are fewer than 1 case or 32 pixels.
    """
    _check(task, size)
    if cases < 1:
        raise ValueError(f"cases must be at least 1 per site, got {cases}")
    rows = []
    for index, site in enumerate(SITES):
        for case in range(cases):
            rng = np.random.default_rng([seed, TASKS.index(task), index, case])
            image, label = _save(make_case(task, index, rng, size), Path(folder), site, f"case_{case:03d}")
            owner = case - 1 if task == "nuclei" and case % 4 == 3 else case
            rows.append((site, image, label, f"{site.lower()}_{owner:03d}"))
        if progress:
            progress(f"{site}: {cases} {task} cases")
    return _tabulate(Path(folder) / "cases.csv", rows)


def make_case(task: str, site_index: int, rng: np.random.Generator, size: int | None = None) -> Sample:
    """Make up one case of one site.

    Args:
        task: One of `TASKS`.
        site_index: Position in `SITES`.
        rng: Source of randomness.
        size: Pixels along each in-plane axis, at least 32; the site's own by default.

    Raises:
        ValueError: If the task is unknown or the size below 32.

    >>> sample = make_case("nuclei", 0, np.random.default_rng(0), size=64)
    >>> sample.image.shape, sample.label.shape
    ((64, 64, 3), (64, 64))
    """
    _check(task, size)
    if task == "nuclei":
        return Sample(*make_tile(LABORATORIES[site_index], rng, size or 256), np.eye(4))
    return Sample(*make_volume(SCANNERS[site_index], rng, size))


def _check(task: str, size: int | None) -> None:
    if task not in TASKS:
        raise ValueError(f"unknown task {task!r}; the tasks are {', '.join(TASKS)}")
    if size is not None and size < SMALLEST:
        raise ValueError(f"size must be at least {SMALLEST} pixels, got {size}")


def _save(sample: Sample, folder: Path, site: str, name: str) -> tuple[str, str]:
    """Write image and label; return their paths relative to the folder. Colour images are PNG, volumes NIfTI."""
    flat = sample.label.ndim == 2
    suffix = "png" if flat else "nii.gz"
    image = f"{site}/images/{name}.{suffix}"
    label = f"{site}/{'masks' if flat else 'labels'}/{name}.{suffix}"
    for path, array in ((folder / image, sample.image), (folder / label, sample.label)):
        path.parent.mkdir(parents=True, exist_ok=True)
        if flat:
            Image.fromarray(array).save(path)
        else:
            nibabel.save(_nifti(array, sample.affine), path)
    return image, label


def _nifti(array: NDArray[Any], affine: NDArray[np.float64]) -> Any:
    volume = nibabel.Nifti1Image(array, affine)
    volume.set_sform(affine, code=1)
    volume.set_qform(affine, code=1)
    volume.header.set_xyzt_units("mm")
    return volume


def _tabulate(path: Path, rows: list[tuple[str, str, str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("site", "image", "label", "patient"))
        writer.writerows(rows)
    return path
