"""Made-up sites, and configurations small enough to train in a second."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import settings

from fedbcs_monai.config import load_config
from fedbcs_monai.data.prepare import list_sites
from fedbcs_monai.data.sites import write_sites
from fedbcs_monai.demo.synthetic import UNSEEN, synthesise
from fedbcs_monai.settings import Settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")  # a run of the tests depends on nothing but the code

TRAINED = ("Alder", "Birch", "Cedar")

TINY = {
    "rounds": 2,
    "evaluate_every": 1,
    "examples": 1,
    "device": "cpu",
    "network_def::features": [8, 8, 16, 16, 16],
    "batch_size": 2,
}
NUCLEI = {
    "preprocessing::transforms::1::spatial_size": [32, 32],
    "augmentation::transforms::0::roi_size": [32, 32],
    "inferer::roi_size": [64, 64],
    "optimizer::momentum": 0.9,
}
PROSTATE = {
    "preprocessing::transforms::2::spatial_size": [32, 32, -1],
    "slicing::foreground_only": True,
    "batch_size": 8,
}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """The number of threads changes the last bits of a sum."""
    torch.set_num_threads(1)


def _listed(folder: Path, task: str, cases: int, size: int) -> Path:
    synthesise(folder, task, cases=cases, size=size)
    sites = [site for site in list_sites(folder, unseen=[UNSEEN]) if site.name in (*TRAINED, UNSEEN)]
    write_sites(folder / "sites.json", sites, task)
    return folder / "sites.json"


@pytest.fixture(scope="session")
def nuclei_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site list of three sites that train and one that is only tested: 6 pictures of 64 x 64 each."""
    return _listed(tmp_path_factory.mktemp("nuclei"), "nuclei", cases=6, size=64)


@pytest.fixture(scope="session")
def prostate_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 3 volumes of 32 x 32 in plane each."""
    return _listed(tmp_path_factory.mktemp("prostate"), "prostate", cases=3, size=32)


@pytest.fixture(scope="session")
def tiny(nuclei_sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Settings]:
    """The shipped nuclei task made tiny, each run in a folder of its own: ``tiny("FedBCS", rounds=3)``."""

    def load(named: str = "FedAvg", **overrides: Any) -> Settings:
        here = {"sites": str(nuclei_sites), "output": str(tmp_path_factory.mktemp("run") / "run")}
        context = {"network_def::context::width": 4} if "FedBCS" in str(overrides.get("method", named)) else {}
        return load_config("nuclei", {"method": named, **TINY, **NUCLEI, **context, **here, **overrides})

    return load


@pytest.fixture(scope="session")
def tiny_prostate(prostate_sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """The shipped prostate task made tiny."""
    here = {"sites": str(prostate_sites), "output": str(tmp_path_factory.mktemp("run") / "run")}
    return load_config("prostate", {**TINY, **PROSTATE, **here})


@pytest.fixture(scope="session")
def tiny_suite(nuclei_sites: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A benchmark's file of the shipped nuclei task made tiny: ``tiny_suite(methods=["fedavg", "fedbcs"])``."""

    def write(**content: Any) -> Path:
        path = tmp_path_factory.mktemp("suite") / "tiny.yaml"
        task = {"sites": str(nuclei_sites), "overrides": NUCLEI}
        trainings = {
            "fedbcs": {"overrides": {"network_def::context::width": 4}},
            "local": {"method": "LocalOnly", "label": "Local only"},
            "pooled": {"method": "FedAvg", "label": "Pooled", "overrides": {"centralized": True}},
            **content.pop("trainings", {}),
        }
        overrides = {**TINY, "threads": 1, "examples": 0, **content.pop("overrides", {})}
        suite = {"tasks": {"nuclei": task}, "overrides": overrides, "trainings": trainings, **content}
        path.write_text(yaml.safe_dump({"methods": ["fedavg", "fedbcs"], **suite}))
        return path

    return write
