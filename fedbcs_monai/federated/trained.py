"""Trained: a run folder to a network ready for use."""

from pathlib import Path
from typing import NamedTuple

from safetensors import SafetensorError

from fedbcs_monai.config import Config, load_config, require
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.federated.setup import build_network, compute_of
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.tensors import read_tensors

WEIGHTS = {"selected": "model.safetensors", "last": "last.safetensors"}
"""Files of a run folder: the round selected on validation cases, and the last."""

NEEDED = (
    *("seed", "fold", "precision", "channels_last"),
    *("network_def", "reading", "preprocessing", "inferer", "postprocessing"),
)


class Trained(NamedTuple):
    """A trained network in evaluation mode, where it came from, and where it runs."""

    config: Config
    network: Segmenter
    compute: Compute
    weights: Path


def load_trained(model: Path, which: str = "selected", device: str = "auto") -> Trained:
    """Load a trained network.

    The configuration of a run names the classes to be built: take run folders only from those whose code you would run.

    Args:
        model: a run folder, or a file of weights beside its ``config.json``.
        which: of a run folder, the ``selected`` or the ``last`` model.
        device: as in `Compute`; the run's own threads and compilation are not taken over.

    Raises:
        UserError: there is no such model, or its weights do not fit its configuration.
    """
    weights = _weights(model, which)
    config = _config(weights.with_name("config.json"), device)
    compute = compute_of(config)
    try:
        network = build_network(config, compute, read_tensors(weights)).eval()
    except (SafetensorError, UserError) as error:
        raise UserError(f"{weights}: not weights of the network in its config.json ({error})") from None
    return Trained(config, network, compute, weights)


def _weights(model: Path, which: str) -> Path:
    if which not in WEIGHTS:
        raise UserError(f"which model is {which!r}: choose one of {', '.join(WEIGHTS)}")
    if model.is_file() and which != "selected":
        raise UserError(f"{model}: is one model; name its run folder to choose the {which} one")
    weights = model / WEIGHTS[which] if model.is_dir() else model
    for path, what in ((weights, "weights"), (weights.with_name("config.json"), "configuration")):
        if not path.is_file():
            raise UserError(f"{path}: no {what} of a model there; give the folder of a finished run")
    return weights


def _config(path: Path, device: str) -> Config:
    config = load_config(path, {"device": device, "compile": False, "threads": 0})
    require(config, NEEDED, f"give the config.json that the run wrote, not {path}")
    return config
