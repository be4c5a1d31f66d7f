"""Federated medical image segmentation on MONAI."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from fedbcs_monai.version import __version__

if TYPE_CHECKING:
    from fedbcs_monai.backends.evaluate import evaluate
    from fedbcs_monai.config import load_config
    from fedbcs_monai.federated.method import Method
    from fedbcs_monai.networks import Segmenter, build_segmenter
    from fedbcs_monai.networks.frequency import StyleRecalibration
    from fedbcs_monai.predict import Predictor
    from fedbcs_monai.report import write_report
    from fedbcs_monai.training import train

_HOMES = {
    "Method": "federated.method",
    "Predictor": "predict",
    "Segmenter": "networks",
    "StyleRecalibration": "networks.frequency",
    "build_segmenter": "networks",
    "evaluate": "backends.evaluate",
    "load_config": "config",
    "train": "training",
    "write_report": "report",
}
"""Public names and where they live; each is imported when it is first asked for, because torch takes seconds."""

__all__ = [
    "Method",
    "Predictor",
    "Segmenter",
    "StyleRecalibration",
    "__version__",
    "build_segmenter",
    "evaluate",
    "load_config",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
