"""Bundle configurations: the workflows of a bundle, filled in with the settings of its run.

Hosts read ``inference.json`` without the others, so it repeats what prediction needs of ``train.json``.
`inference_config` writes that part; nobody else does.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from fedbcs_monai.config import Content
from fedbcs_monai.predict.class_names import classes_of
from fedbcs_monai.settings import KEYS, SLOTS, Settings

SLICES = "fedbcs_monai.data.NeighbouringSlicesInferer"

_OF_EACH_KEY = ("mode", "padding_mode", "align_corners", "anti_aliasing", "dtype")
"""Arguments of MONAI's transforms that may be lists, one entry a key."""


def train_config(workflow: Mapping[str, Any], run: Settings) -> Content:
    """``train.json``: a workflow of local training, with the network, the transforms and the optimizer of a run.

    Args:
        workflow: the shipped ``train.json``.
        run: the settings of a run.
    """
    owned = {key: deepcopy(getattr(run, key)) for key in workflow if key in KEYS and key != "device"}
    owned |= {key: None for key in owned if key in SLOTS and not owned[key]}
    optimizer = {"_target_": run.optimizer["_target_"], "params": workflow["optimizer"]["params"]}
    return {**workflow, **owned, "classes": classes_of(run), "optimizer": {**optimizer, **run.optimizer}}


def inference_config(workflow: Mapping[str, Any], train: Mapping[str, Any], pictures: Mapping[str, Any]) -> Content:
    """``inference.json``: a workflow of prediction, with what it needs of ``train.json``.

    Its network takes whole cases (`over_volumes`). Its preprocessing is flat and of images alone, so that hosts which
    read images themselves find the transform to leave out, and no label is asked of them.

    Args:
        workflow: the shipped ``inference.json``.
        train: of `train_config`.
        pictures: what is otherwise where images are pictures, as in the shipped ``nuclei.json``.
    """
    inferer = train["inferer"]
    over_volumes = inferer["_target_"] == SLICES
    network = {**workflow["network_def"], "network": train["network_def"]}
    if over_volumes and "sw_batch_size" in inferer:
        network["at_once"] = inferer["sw_batch_size"]
    files = {key: pictures[key] for key in ("suffixes", "saving")} if train["reads"] == "pictures" else {}
    return {
        **workflow,
        **files,
        "slicing": train["slicing"] if over_volumes else None,
        "network_def": network,
        "preprocessing": _with(train["preprocessing"], _of_images(_flat(train["preprocessing"], train))),
        "inferer": {"_target_": "SimpleInferer"} if over_volumes else inferer,
        "postprocessing": _with(train["postprocessing"], [*train["postprocessing"]["transforms"], "@saving"]),
    }


def _flat(compose: Mapping[str, Any], config: Mapping[str, Any]) -> list[Any]:
    """Transforms one after the other, with those of `reading` in its place and those of nested compositions."""
    steps: list[Any] = []
    for step in compose["transforms"]:
        inner = config["reading"] if step == "@reading" else step
        steps += _flat(inner, config) if isinstance(inner, Mapping) and "transforms" in inner else [inner]
    return steps


def _of_images(steps: list[Any]) -> list[Any]:
    """Transforms without what they do to labels."""
    kept: list[Any] = []
    for step in steps:
        if not isinstance(step, Mapping) or "keys" not in step:
            kept.append(step)
            continue
        keys = [step["keys"]] if isinstance(step["keys"], str) else step["keys"]
        if "image" in keys:
            each = {name: step[name] for name in _OF_EACH_KEY if isinstance(step.get(name), list)}
            kept.append({**step, "keys": "image", **{k: values[keys.index("image")] for k, values in each.items()}})
    return kept


def _with(compose: Mapping[str, Any], transforms: list[Any]) -> Content:
    return {**compose, "transforms": transforms}
