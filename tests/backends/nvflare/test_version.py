"""Another release of NVFlare is one line, wherever it is met."""

import os
import subprocess
import sys

import pytest

from fedbcs_monai.backends.nvflare import check_version
from fedbcs_monai.errors import UserError


@pytest.mark.parametrize("found", ["2.8.3", "2.10.0", "3.0.0", "2.90.0"])
def test_another_release_is_refused_with_the_line_to_type(found):
    with pytest.raises(UserError, match=rf"NVFlare {found} is installed.*pip install 'nvflare==2\.9\.\*'"):
        check_version(found)


@pytest.mark.parametrize("found", ["2.9.0", "2.9.1", "2.9.0rc1"])
def test_the_supported_release_is_taken(found):
    check_version(found)


@pytest.fixture
def with_another(tmp_path):
    """An environment in which the metadata of another NVFlare come first."""
    metadata = tmp_path / "nvflare-2.7.1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nvflare\nVersion: 2.7.1\n")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}


@pytest.mark.parametrize("module", ["executor", "controller", "trainer", "launcher"])
def test_a_process_beside_another_release_says_so(with_another, module):
    command = [sys.executable, "-c", f"import fedbcs_monai.backends.nvflare.{module}"]
    ended = subprocess.run(command, env=with_another, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.strip().splitlines()[-1].startswith("fedbcs_monai.errors.UserError: NVFlare 2.7.1 is installed")


def test_a_command_beside_another_release_is_one_line(with_another, tmp_path):
    command = [sys.executable, "-m", "fedbcs_monai"]
    ended = subprocess.run(
        [*command, "flare", "status", str(tmp_path)], env=with_another, capture_output=True, text=True
    )
    assert ended.returncode == 2
    assert len(ended.stderr.strip().splitlines()) == 1
    assert "NVFlare 2.7.1 is installed" in ended.stderr
