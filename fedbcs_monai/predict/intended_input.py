"""IntendedInput: the modality and kind of image that a model was trained for.

A bundle states it in ``configs/metadata.json`` under ``network_data_format``: ``inputs.image.modality`` (``MR``) and
``inputs.image.orientation`` (``axial``, ``coronal`` or ``sagittal``). A run folder states nothing.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.model_io import TrainedModel

_MODALITIES = {**{code: code for code in ("CT", "MR", "NM", "PT", "US")}, "MRI": "MR", "PET": "PT"}
"""To DICOM's names of volumes; any other word says nothing that a series could be compared with."""


class IntendedInput(NamedTuple):
    """Of images: DICOM's modality, and the plane of the slices; empty where unknown."""

    modality: str = ""
    plane: str = ""

    def __str__(self) -> str:
        return " ".join(part for part in self if part)

    def fits(self, image: "IntendedInput") -> bool:
        """Whether an image is of the kind stated here."""
        return all(stated in ("", said) for stated, said in zip(self, image, strict=True))


ANY_INPUT = IntendedInput()
"""Of a model that states nothing: every image fits."""


def stated(metadata: Mapping[str, Any]) -> IntendedInput:
    """What the metadata of a bundle state; nothing where a word is none that a series could be compared with."""
    image = metadata["network_data_format"]["inputs"]["image"]
    modality, plane = (str(image.get(key, "")) for key in ("modality", "orientation"))
    return IntendedInput(_MODALITIES.get(modality.upper(), ""), plane.lower())


def intended_input_of(trained: TrainedModel) -> IntendedInput:
    """What a model was made for.

    Raises:
        UserError: metadata that cannot be read.
    """
    path = trained.weights.resolve().parent.parent / "configs" / "metadata.json"
    if not path.is_file():
        return ANY_INPUT
    try:
        return stated(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: not readable metadata of a bundle ({reason}); export the bundle again") from None
