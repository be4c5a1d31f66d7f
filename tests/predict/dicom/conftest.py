"""A synthetic series in memory, and the programs that check DICOM."""

import shutil
import subprocess

import pytest

from fedbcs_monai.predict.dicom.series import find_series
from fedbcs_monai.predict.dicom.volume import read_series


@pytest.fixture
def source(tmp_path, made):
    """A series with a bright L, as it is read."""
    folder = made.save(made.slices(made.voxels()), tmp_path / "series")
    return read_series(find_series(folder.iterdir())[0], folder)


@pytest.fixture
def program():
    """The path of a program of the extra `test`; skips where it is missing."""

    def find(name):
        found = shutil.which(name)
        if found is None:
            pytest.skip(f"{name} is not installed: pip install 'fedbcs-monai[test]'")
        return found

    return find


@pytest.fixture
def errors(program):
    """What dciodvfy, the checker by the standard's editor, calls an error."""

    def check(path):
        checked = subprocess.run([program("dciodvfy"), str(path)], capture_output=True, text=True, check=False)
        return [line for line in (checked.stdout + checked.stderr).splitlines() if line.startswith("Error")]

    return check
