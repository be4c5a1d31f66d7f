"""Patients: find file names that look like several images of one patient."""

import re
from collections.abc import Iterable

_NAMED = (
    re.compile(r"(TCGA-\w\w-\w{4})(?:-.+)?"),  # a barcode of The Cancer Genome Atlas
    re.compile(r"(sub-[a-z0-9]+)(?:_.+)?", re.IGNORECASE),  # BIDS
    re.compile(r"(.*\d.*)[\s_.-]+[a-z]*\d*", re.IGNORECASE),  # patient001_frame01, P1_a
    re.compile(r"([a-z]+[_-]?\d+)[a-z]+\d*", re.IGNORECASE),  # patient001frame01, P1a
)
"""What names a patient, who has a number, and behind it what distinguishes the patient's images."""


def alike(stems: Iterable[str]) -> dict[str, list[str]]:
    """Those of a site's file names, without suffix, that look like several images of one patient.

    >>> alike(["patient001_frame01", "patient001_frame12", "patient002_frame01"])
    {'patient001': ['patient001_frame01', 'patient001_frame12']}
    >>> alike(["case_000", "case_001"])
    {}

    Returns:
        From what looks like a patient's name to the names of the files, two or more. Empty if all files look like those
        of one patient: then their common beginning names something else, such as a year.
    """
    found: dict[str, list[str]] = {}
    for stem in sorted(stems):
        matches = (pattern.fullmatch(stem) for pattern in _NAMED)
        found.setdefault(next((match[1] for match in matches if match), stem), []).append(stem)
    return {name: files for name, files in found.items() if len(files) > 1} if len(found) > 1 else {}
