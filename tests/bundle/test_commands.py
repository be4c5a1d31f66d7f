"""Commands: every command of the model card, as it is printed there, in a folder that holds nothing but the bundle."""

import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedbcs_monai.bundle import write_bundle
from fedbcs_monai.data.prepare import list_sites
from fedbcs_monai.data.sites import write_sites
from fedbcs_monai.demo.synthetic import synthesise

PROGRAMS = {
    "fedbcs": [sys.executable, "-m", "fedbcs_monai"],
    "python": [sys.executable],
    "torchrun": [sys.executable, "-m", "torch.distributed.run", "--standalone"],
}
SCORES = ["eval/metrics.csv", "eval/val_mean_dice_raw.csv"]
MADE = [
    ["MASKS/report.html"],
    ["eval/case_000_mask.nii.gz"],
    ["models/model.pt"],
    SCORES,
    ["models/model.pt"],
    SCORES,
    ["models/model.ts"],
    ["models/model.onnx"],
]
"""What each command of the card leaves, in their order."""


def commands(folder: Path) -> list[str]:
    """The commands of the card, but for those that need TensorRT."""
    (block,) = re.findall(r"```\n(.*?)```", (folder / "docs" / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    return [line for line in block.splitlines() if "trt" not in line]


def filled(command: str, sites: Path) -> list[str]:
    """A command with the capital letters filled in, cut short where it trains."""
    images = sites.parent / "Alder" / "images"
    for word, value in {
        "FOLDER_OF_IMAGES": images,
        "IMAGE_OR_FOLDER": images,
        " FOLDER": f" {sites.parent}",
        " NAME": " Alder",
    }.items():
        command = command.replace(word, str(value))
    program, *words = shlex.split(command)
    short = ["--train::trainer::max_epochs", "1"] if "train.json" in command and "evaluate" not in command else []
    return [*PROGRAMS[program], *words, *short]


@pytest.fixture
def sites(tmp_path) -> Path:
    """A site with two cases in every part, one for each process."""
    synthesise(tmp_path / "data", "prostate", cases=12, size=32)
    write_sites(tmp_path / "data" / "sites.json", list_sites(tmp_path / "data")[:1], "prostate")
    return tmp_path / "data" / "sites.json"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch.onnx
def test_every_command_of_the_card_runs_in_a_copy_of_the_folder(finished, sites, tmp_path):
    made = write_bundle(finished, tmp_path / "made").path
    alone = shutil.copytree(made, tmp_path / "elsewhere" / "bundle")
    shutil.rmtree(made)
    for command, files in zip(commands(alone), MADE, strict=True):
        before = time.time_ns()
        done = subprocess.run(filled(command, sites), cwd=alone, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert all((alone / file).stat().st_mtime_ns > before for file in files), command
