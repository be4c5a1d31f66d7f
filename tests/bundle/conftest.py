"""The shipped bundle in an empty place, and workflows small enough to run in a second."""

import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import monai.bundle
import pytest
from msgspec.structs import replace

from fedbcs_monai.backends.local import train
from fedbcs_monai.catalog import shipped
from fedbcs_monai.config import load_config
from fedbcs_monai.settings import Settings, plain

WIDTHS = [8, 8, 16, 16, 16]


class Small(NamedTuple):
    """A task made small: which files, what overrides `train.json` and `inference.json`, and its site list."""

    overlay: tuple[str, ...]
    train: dict[str, Any]
    inference: dict[str, Any]
    sites: Path

    def files(self, *names: str) -> list[str]:
        """Configurations as they are named in the folder of a bundle."""
        return [f"configs/{name}.json" for name in (names[0], *self.overlay, *names[1:])]


@pytest.fixture(scope="session")
def small(prostate_sites: Path, nuclei_sites: Path) -> dict[str, Small]:
    """Both tasks of the shipped bundle."""
    return {
        "prostate": Small(
            overlay=(),
            train={
                "network_def::features": WIDTHS,
                "preprocessing::transforms::2::spatial_size": [32, 32, -1],
                "slicing::foreground_only": True,
            },
            inference={
                "network_def::network::features": WIDTHS,
                "preprocessing::transforms::4::spatial_size": [32, 32, -1],
            },
            sites=prostate_sites,
        ),
        "nuclei": Small(
            overlay=("nuclei",),
            train={
                "network_def::features": WIDTHS,
                "preprocessing::transforms::1::spatial_size": [32, 32],
                "augmentation::transforms::0::roi_size": [32, 32],
                "inferer::roi_size": [64, 64],
                "optimizer::lr": 0.1,
            },
            inference={
                "network_def::network::features": WIDTHS,
                "preprocessing::transforms::1::spatial_size": [32, 32],
                "inferer::roi_size": [64, 64],
            },
            sites=nuclei_sites,
        ),
    }


@contextmanager
def _inside(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture(scope="session")
def inside() -> Callable[[Path], AbstractContextManager[None]]:
    """Work in a folder, as whoever runs a bundle does."""
    return _inside


@pytest.fixture(scope="session")
def run() -> Callable[..., None]:
    """``python -m monai.bundle run`` in a bundle, in this process and without its logging."""

    def run_in(folder: Path, config_file: list[str], **overrides: Any) -> None:
        with _inside(folder), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "parsing config_file")  # a configuration is code: it is ours
            monai.bundle.run(config_file=config_file, logging_file=False, device="cpu", **overrides)

    return run_in


@pytest.fixture(scope="session")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the shipped folder, alone."""
    folder = tmp_path_factory.mktemp("elsewhere") / "bundle"
    shutil.copytree(shipped() / "bundle", folder, ignore=shutil.ignore_patterns("models", "eval"))
    return folder


@pytest.fixture(scope="session", params=["prostate", "nuclei"])
def task(request: pytest.FixtureRequest) -> str:
    """Each of the two tasks."""
    return str(request.param)


@pytest.fixture(scope="session")
def trained(
    task: str, small: dict[str, Small], copied: Path, run: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A copy of the bundle, trained for two epochs at one site."""
    folder = tmp_path_factory.mktemp(task) / "bundle"
    shutil.copytree(copied, folder)
    data = {"dataset_dir": str(small[task].sites.parent), "site": "Alder", "train::trainer::max_epochs": 2}
    run(folder, small[task].files("train"), **small[task].train, **data)
    return folder


@pytest.fixture(scope="session")
def as_trained(trained: Path, task: str, small: dict[str, Small], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That bundle with what was overridden in its `train.json`, so that it is as its weights are."""
    folder = tmp_path_factory.mktemp(task) / "bundle"
    shutil.copytree(trained, folder)
    config = load_config([folder / name for name in small[task].files("train")], small[task].train)
    (folder / "configs" / "train.json").write_text(json.dumps(plain(config)))
    return folder


@pytest.fixture(scope="session")
def finished(tiny_prostate: Settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on prostate, with the layers that FedBCS adds to the network."""
    network = {**tiny_prostate.network_def, "recalibrate": [2, 3], "context": {"width": 4}}
    output = str(tmp_path_factory.mktemp("finished") / "run")
    return train(replace(tiny_prostate, network_def=network, rounds=1, output=output))
