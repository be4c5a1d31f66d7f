"""File names: several images of one patient are noticed, mere numbering is not."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fedbcs_monai.data.patients import alike
from fedbcs_monai.data.prepare import list_sites


@pytest.mark.parametrize(
    ("files", "patients"),
    [
        ("patient001_frame01 patient001_frame12 patient002_frame01", ["patient001"]),
        ("Case05_slice3 Case05_slice4 Case06_slice3 Case06_slice4", ["Case05", "Case06"]),
        ("P1_a P1_b P2_a", ["P1"]),
        ("P1a P1b P2a", ["P1"]),
        ("patient001frame01 patient001frame02 patient002frame01", ["patient001"]),
        ("TCGA-18-5592-01Z-00-DX1 TCGA-18-5592-01A-01-TS1 TCGA-38-6178-01Z-00-DX1", ["TCGA-18-5592"]),
        ("sub-01_ses-1_T2w sub-01_ses-2_T2w sub-02_ses-1_T2w", ["sub-01"]),
    ],
)
def test_several_images_of_one_patient_are_noticed(files, patients):
    found = alike(files.split())
    assert list(found) == patients
    assert all(len(of_patient) == 2 for of_patient in found.values())


@pytest.mark.parametrize(
    "files",
    [
        "case_000 case_001 case_002",
        "Case00 Case01 Case02",
        "n0 n1 n2",
        "prostate_00 prostate_01",
        "patient001 patient002",
        "sub-01_T2w sub-02_T2w",
        "TCGA-18-5592-01Z TCGA-38-6178-01Z",
        "Human_AdrenalGland_01 Human_AdrenalGland_02",
        "scan_2020_001 scan_2020_002",  # all of one year, not of one patient
        "",
    ],
)
def test_numbering_is_not_taken_for_patients(files):
    assert alike(files.split()) == {}


TUTORIAL = Path(__file__).parents[2] / "docs" / "how-to" / "nvflare.md"


@pytest.mark.skipif(sys.platform == "win32", reason="its commands are for a shell")
def test_the_tutorial_of_nvflare_splits_no_patient(tmp_path):
    """Its folders are copied as it says; its patients have several pictures each, all in one part."""
    text = TUTORIAL.read_text(encoding="utf-8")
    (block,) = (part for part in re.findall(r"```\n(.*?)```", text, re.DOTALL) if "cp -r synthetic" in part)
    copying = block.replace("fedbcs sites", "true").replace("python -c", f"'{sys.executable}' -c")
    subprocess.run(["bash", "-euc", copying], cwd=tmp_path, check=True)
    lines = (tmp_path / "synthetic" / "cases.csv").read_text().splitlines()
    for name in ("Alder", "Birch", "Cedar"):
        rows = [line.split(",") for line in lines if line.startswith(f"{name},")]
        (site,) = list_sites(tmp_path / "hospitals" / name)
        assert {(Path(case.image).stem, case.patient) for case in site.cases} == {
            (Path(image).stem, patient) for _, image, _, patient in rows
        }
        parts = {(case.patient, case.split) for case in site.cases}
        assert len(parts) == len({patient for patient, _ in parts}) < len(site.cases)
