"""Wheel and sdist: built as for a release, checked, and installed into an empty environment."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

from fedbcs_monai.version import __version__

ROOT = Path(__file__).parents[1]
ALONE = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}

pytestmark = pytest.mark.slow


def run(*command, cwd):
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=ALONE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the sdist, and the wheel that was made from the sdist."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, cwd=folder)
    return folder


@pytest.fixture
def wheel(built):
    (path,) = built.glob("*.whl")
    return path


def test_both_pass_the_check_of_an_upload(built):
    pytest.importorskip("twine")
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir(), cwd=built)


def test_the_wheel_holds_the_package_with_its_configurations_and_nothing_else(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {"fedbcs_monai", f"fedbcs_monai-{__version__}.dist-info"}
    package = ROOT / "fedbcs_monai"
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert {path.relative_to(ROOT).as_posix() for path in files} <= names
    shipped = [
        path for folder in ("configs", "bundle/configs") for path in (ROOT / folder).rglob("*") if path.is_file()
    ]
    assert {f"fedbcs_monai/_shipped/{path.relative_to(ROOT).as_posix()}" for path in shipped} <= names
    assert f"fedbcs_monai-{__version__}.dist-info/licenses/LICENSE" in names


def test_the_sdist_holds_what_a_clone_needs_for_tests_and_pages(built):
    (path,) = built.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = "README.md CHANGELOG.md CITATION.cff LICENSE constraints.txt mkdocs.yml docs/demo.png tests/conftest.py"
    assert set(wanted.split()) <= names
    assert not [name for name in names if name.startswith(("runs/", "bundle/models", ".venv"))]


def test_no_link_of_the_description_leads_into_the_repository(wheel):
    archive = zipfile.ZipFile(wheel)
    text = message_from_bytes(archive.read(f"fedbcs_monai-{__version__}.dist-info/METADATA")).get_payload()
    links = re.findall(r"\]\(([^)]*)\)", text)
    assert links
    assert [link for link in links if not link.startswith("https://")] == []


@pytest.fixture
def empty(wheel, tmp_path):
    """The Python of an empty environment with the wheel alone."""
    venv.create(tmp_path / "empty", with_pip=True)
    python = tmp_path / "empty" / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    run(python, "-m", "pip", "install", "-q", "--no-index", "--no-deps", wheel, cwd=tmp_path)
    return python


def test_the_wheel_alone_says_its_version_in_an_empty_environment(empty, tmp_path):
    assert run(empty, "-c", "import fedbcs_monai as it; print(it.__version__)", cwd=tmp_path) == f"{__version__}\n"


def test_the_wheel_with_what_it_requires_runs_its_commands(empty, tmp_path):
    """Its own files come first, and then the packages of this environment."""
    home = Path(run(empty, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip())
    behind = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (home / "behind.pth").write_text("\n".join(sorted(behind)) + "\n")
    file = run(empty, "-c", "import fedbcs_monai as it; print(it.__file__)", cwd=tmp_path).strip()
    assert Path(file).is_relative_to(home)
    assert run(empty, "-m", "fedbcs_monai", "--version", cwd=tmp_path) == f"fedbcs {__version__}\n"
    assert "fedbcs demo" in run(empty, "-m", "fedbcs_monai", cwd=tmp_path)
    listed = run(empty, "-m", "fedbcs_monai", "list", cwd=tmp_path)
    assert all(name in listed for name in ("prostate --size small", "FedBCS", "authors"))  # from the shipped files
