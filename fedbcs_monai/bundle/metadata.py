"""Metadata: ``metadata.json`` of a bundle, from the configuration and the record of its run."""

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from torch import nn

from fedbcs_monai.bundle.record import Record
from fedbcs_monai.networks import Segmenter, VolumeSegmenter
from fedbcs_monai.predict.class_names import classes_of
from fedbcs_monai.predict.intended_input import ANY_INPUT, IntendedInput
from fedbcs_monai.runs.setup import uses_skimage
from fedbcs_monai.settings import Settings

REQUIRED = ("fedbcs-monai", "nibabel", "itk", "pytorch-ignite")
"""Packages that a bundle needs besides MONAI's own."""


def metadata(
    shipped: Mapping[str, Any],
    settings: Settings,
    network: nn.Module,
    record: Record,
    of_task: IntendedInput = ANY_INPUT,
) -> dict[str, Any]:
    """What hosts and readers learn about a trained network.

    Args:
        shipped: the shipped ``metadata.json``, for what is the same of every bundle.
        settings: of the run.
        network: of the bundle, which takes whole images.
        record: of the run.
        of_task: what images of this task are known to be, where the sites do not state it.
    """
    structures = " and ".join(classes_of(settings)[1:])
    method = str(record.method.get("_target_", record.name)).rpartition(".")[2]
    trained = [site for site in record.cases if site not in record.unseen]
    kind = kind_of(record, of_task)
    return {
        **shipped,
        "changelog": {shipped["version"]: f"Round {record.round} of {record.rounds} of the run {record.name!r}."},
        "monai_version": record.versions["monai"],
        "pytorch_version": record.versions["torch"].partition("+")[0],
        "numpy_version": record.versions["numpy"],
        "required_packages_version": required_packages(settings),
        "name": f"{record.name}, {record.task}" if record.task else record.name,
        "task": f"Segmentation of {structures}" + (f" in {kind.modality} images" if kind.modality else ""),
        "description": f"{settings.network_def.get('backbone', 'BasicUNet')} trained with {method} at "
        f"{', '.join(trained)}, without sharing an image.",
        "data_source": "Images of the sites named here, which have not left them; the bundle holds none.",
        **descriptions(settings),
        "eval_metrics": {
            "mean_dice": record.mean_dice,
            "test_cases": record.test_cases,
            "seeds": 1,
            "sd_over_seeds": None,  # unknown from one training
            "sites": dict(record.scores),
        },
        "federation": {
            "method": dict(record.method),
            "rounds": record.rounds,
            "round_of_weights": record.round,
            "cases": dict(record.cases),
            "unseen_sites": list(record.unseen),
            "data_sha256": dict(record.data_sha256),
            "versions": dict(record.versions),
        },
        "network_data_format": data_format(settings, network, kind),
    }


def required_packages(settings: Settings) -> dict[str, str]:
    """The installed versions of `REQUIRED`, and of what the postprocessing needs."""
    found = {}
    for package in (*REQUIRED, *(["scikit-image"] if uses_skimage(settings.postprocessing) else [])):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def descriptions(settings: Settings) -> dict[str, str]:
    """What the numbers in images, labels and predictions mean."""
    named = ", ".join(f"{number} is {name}" for number, name in enumerate(classes_of(settings)))
    pictures = settings.reads == "pictures"
    return {
        "data_type": "PIL" if pictures else "nibabel",
        "image_classes": "a grey or RGB picture" if pictures else "a volume of one channel",
        "label_classes": f"one channel: {named}",
        "pred_classes": f"logits of {len(classes_of(settings))} classes: {named}",
    }


def data_format(settings: Settings, network: nn.Module, kind: IntendedInput) -> dict[str, Any]:
    """``network_data_format``: what goes into the network and what comes out.

    Args:
        settings: of the run.
        network: `Segmenter` or `VolumeSegmenter`.
        kind: modality and plane of the images.
    """
    segmenter = network.network if isinstance(network, VolumeSegmenter) else network
    assert isinstance(segmenter, Segmenter)
    # The smallest size that leaves the bottleneck two pixels a side.
    shape = [f"{2 ** (len(segmenter.encoder_levels) + 1)}*n"] * settings.network_def.get("spatial_dims", 2)
    channels = int(settings.network_def.get("in_channels", 3))
    if isinstance(network, VolumeSegmenter):
        shape, channels = [*shape, "*"], 1
    tensor = {
        "type": "image",
        "spatial_shape": shape,
        "dtype": "float32",
        "is_patch_data": "SlidingWindow" in settings.inferer["_target_"],
    }
    pictures = settings.reads == "pictures"
    names = ["red", "green", "blue"] if pictures else ["image"] if channels == 1 else [f"{n}" for n in range(channels)]
    return {
        "inputs": {
            "image": {
                **tensor,
                "format": "rgb" if pictures else "magnitude",
                "modality": kind.modality,
                **({"orientation": kind.plane} if kind.plane else {}),
                "num_channels": channels,
                "value_range": _value_range(settings),
                "channel_def": {str(number): name for number, name in enumerate(names)},
            }
        },
        "outputs": {
            "pred": {
                **tensor,
                "format": "segmentation",
                "num_channels": len(classes_of(settings)),
                "value_range": [],  # logits
                "channel_def": {str(number): name for number, name in enumerate(classes_of(settings))},
            }
        },
    }


def kind_of(record: Record, of_task: IntendedInput) -> IntendedInput:
    """Modality and plane that all sites agree on, empty where they differ; those of the task where they say nothing."""
    said = (record.modalities or {of_task.modality}, record.planes or {of_task.plane})
    return IntendedInput(*(next(iter(each)) if len(each) == 1 else "" for each in said))


def _value_range(settings: Settings) -> list[float]:
    """To which range intensities are brought; empty where unknown."""
    for step in reversed([*settings.reading["transforms"], *settings.preprocessing["transforms"]]):
        if isinstance(step, Mapping) and {"b_min", "b_max"} <= step.keys():
            return [step["b_min"], step["b_max"]]
        if isinstance(step, Mapping) and step["_target_"] == "fedbcs_monai.data.RGBd":
            return [0, 1]
    return []
