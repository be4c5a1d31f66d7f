"""Task: what a configuration says of its images and structures."""

from collections.abc import Mapping
from typing import Any

from fedbcs_monai.components import components
from fedbcs_monai.settings import Component, Settings

PLANES = {"L": "sagittal", "R": "sagittal", "P": "coronal", "A": "coronal", "I": "axial", "S": "axial"}
"""Of slices, by the side of the patient that they follow each other towards."""


def classes_of(settings: Settings) -> list[str]:
    """The names of the classes, background first."""
    count = int(settings.network_def.get("out_channels", 2))
    named = settings.classes
    if len(named) == count:
        return list(named)
    structures = [settings.task or "foreground"] if count == 2 else [f"class {n}" for n in range(1, count)]
    return ["background", *structures]


def reads_pictures(reading: Component) -> bool:
    """Whether `reading` reads pictures; otherwise images are volumes."""
    return any(str(step["_target_"]).endswith(".PictureReader") for _, step in components(reading))


def cut_plane(preprocessing: Component) -> str:
    """The plane in which a model cuts every volume; empty where it goes along the last axis of each file.

    A configuration that turns volumes to one orientation (`Orientationd`) cuts them all alike.
    """
    codes = [str(step.get("axcodes") or "") for _, step in components(preprocessing) if _turns(step)]
    return PLANES.get(codes[-1][-1:], "") if codes else ""


def _turns(step: Mapping[str, Any]) -> bool:
    return str(step["_target_"]).rpartition(".")[2] == "Orientationd"
