"""Run folders with random weights, and a network that marks what is bright."""

import json
from pathlib import Path

import pytest
import torch

from fedbcs_monai.config import load_config, plain
from fedbcs_monai.federated.setup import build_network, compute_of
from fedbcs_monai.tensors import write_tensors

SMALL = {"network_def::features": [8, 8, 8, 8, 8], "device": "cpu"}
CHANGES = {"prostate": {"preprocessing::transforms::2::spatial_size": [40, 64, -1]}, "nuclei": {}}


class Bright(torch.nn.Module):
    """The middle channel, (N, 3, H, W) to logits (N, 2, H, W): foreground where it is above a half."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = 100 * (images[:, 1] - 0.5)
        return torch.stack([-level, level], dim=1)


@pytest.fixture(scope="session")
def models(tmp_path_factory) -> dict[str, Path]:
    """A run folder for each task."""
    folders = {}
    for task, changes in CHANGES.items():
        config = load_config(f"{task}_fedavg", {**SMALL, **changes})
        folders[task] = tmp_path_factory.mktemp(task)
        (folders[task] / "config.json").write_text(json.dumps(plain(config)))
        weights = build_network(config, compute_of(config)).state_dict()
        write_tensors(folders[task] / "model.safetensors", weights)
        write_tensors(folders[task] / "last.safetensors", {name: tensor * 2 for name, tensor in weights.items()})
    return folders


@pytest.fixture
def bright(monkeypatch):
    """Every predictor marks what is bright, instead of running its network."""
    monkeypatch.setattr("fedbcs_monai.federated.trained.build_network", lambda *_: Bright())
