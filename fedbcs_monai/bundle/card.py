"""Model card: the README of a bundle, from its metadata and the record of its run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from fedbcs_monai.bundle.record import Record
from fedbcs_monai.networks import Segmenter, VolumeSegmenter
from fedbcs_monai.settings import Settings

_VERSIONS = {"monai_version": "monai", "pytorch_version": "torch", "numpy_version": "numpy"}


def card(
    metadata: Mapping[str, Any], settings: Settings, network: Segmenter | VolumeSegmenter, record: Record | None
) -> str:
    """The model card as Markdown.

    Args:
        metadata: of the bundle.
        settings: of the run; of the bundle, where there was none.
        network: of the bundle, which takes whole images.
        record: of the run; None: the bundle has no weights.
    """
    volumes = isinstance(network, VolumeSegmenter)
    image = metadata["network_data_format"]["inputs"]["image"]
    axes = ["batch", *("height", "width", "depth")[: len(image["spatial_shape"])]]
    size = [32] * len(image["spatial_shape"])
    template = Path(__file__).with_name("card.md").read_text(encoding="utf-8")
    return (
        Environment(undefined=StrictUndefined, keep_trailing_newline=True)
        .from_string(template)
        .render(
            metadata=metadata,
            config=settings,
            record=record,
            image=image,
            network_def=dict(settings.network_def),
            step=int(image["spatial_shape"][0].removesuffix("*n")) // 2,
            volumes=volumes,
            slices=network.slices if isinstance(network, VolumeSegmenter) else 0,
            sample=[2, image["num_channels"], *size],
            axes={axis and axis + 1: name for axis, name in enumerate(axes)},
            method=str(record.method.get("_target_", record.name)).rpartition(".")[2] if record else "",
            settings=", ".join(f"{k} {v}" for k, v in settings.optimizer.items() if k not in ("_target_", "params")),
            versions={
                **{name: metadata[key] for key, name in _VERSIONS.items()},
                **metadata["required_packages_version"],
            },
        )
    )
