"""Task: what a configuration says of its images and structures."""

from collections.abc import Mapping
from typing import Any

from fedbcs_monai.components import components

PLANES = {"L": "sagittal", "R": "sagittal", "P": "coronal", "A": "coronal", "I": "axial", "S": "axial"}
"""Of slices, by the side of the patient that they follow each other towards."""


def classes_of(config: Mapping[str, Any]) -> list[str]:
    """The names of the classes, background first."""
    count = int(config["network_def"].get("out_channels", 2))
    named = config.get("classes")
    if named and len(named) == count:
        return [str(name) for name in named]
    structures = [config.get("task") or "foreground"] if count == 2 else [f"class {n}" for n in range(1, count)]
    return ["background", *structures]


def reads_pictures(config: Mapping[str, Any]) -> bool:
    """Whether images are pictures; otherwise they are volumes."""
    return any(str(step["_target_"]).endswith(".PictureReader") for _, step in components(config["reading"]))


def cut_plane(config: Mapping[str, Any]) -> str:
    """The plane in which a model cuts every volume; empty where it goes along the last axis of each file.

    A configuration that turns volumes to one orientation (`Orientationd`) cuts them all alike.
    """
    codes = [str(step.get("axcodes") or "") for _, step in components(config["preprocessing"]) if _turns(step)]
    return PLANES.get(codes[-1][-1:], "") if codes else ""


def _turns(step: Mapping[str, Any]) -> bool:
    return str(step["_target_"]).rpartition(".")[2] == "Orientationd"
