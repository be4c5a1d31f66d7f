"""Federated medical image segmentation on MONAI."""

from importlib import import_module
from typing import Any

from fedbcs_monai.version import __version__

_HOMES = {
    "Predictor": "clinical",
    "build_segmenter": "networks",
    "load_config": "config",
    "predict": "clinical",
    "train": "drivers.simulate",
    "write_report": "report",
}
"""Public names and where they live; each is imported when it is first asked for, because torch takes seconds."""

__all__ = ["Predictor", "__version__", "build_segmenter", "load_config", "predict", "train", "write_report"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
