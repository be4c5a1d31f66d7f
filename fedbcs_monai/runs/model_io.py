"""Model files: write and load the weights of a run or a bundle, with the private tensors of its sites."""

import hashlib
from collections.abc import Iterable, Mapping
from io import BytesIO
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, NamedTuple

import torch
from msgspec.structs import replace
from torch import Tensor

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.federated.trust import load_travelled
from fedbcs_monai.files import check_sum
from fedbcs_monai.names import checked_site_name
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.runs.setup import build_network, compute_of
from fedbcs_monai.settings import Settings, keys_that, require
from fedbcs_monai.tensors import Tensors, read_tensors, write_tensors

WEIGHTS = {"selected": "model.safetensors", "last": "last.safetensors"}
"""Files of a run folder: the round selected on validation cases, and the last."""

BUNDLED = Path("models/model.pt"), Path("configs/train.json")
"""Weights and configuration in a bundle."""


class TrainedModel(NamedTuple):
    """A trained network in evaluation mode, where it came from, and where it runs."""

    settings: Settings
    network: Segmenter
    compute: Compute
    weights: Path

    def at(self, site: str) -> Segmenter | None:
        """The network as a site uses it; None where nothing was shared and the site has none of its own."""
        tensors = tensors_at(self.weights, site)
        if tensors:
            self.network.load_state_dict(tensors)
        return self.network if tensors else None


def write_model(folder: Path, which: str, weights: Tensors, private: Mapping[str, Tensors]) -> str:
    """Write a model into a run folder, and beside it what each site keeps to itself: ``sites/model/Alder.safetensors``.

    Args:
        folder: of the run.
        which: ``selected`` or ``last``.
        weights: the global network.
        private: from a site's name to its own tensors; a site without any has no file.

    Returns:
        The digest of all that was written, as `digest_model` gives it.
    """
    path = folder / WEIGHTS[which]
    write_tensors(path, weights)
    for site, tensors in private.items():
        if tensors:
            write_tensors(_private_file(path, site), tensors)
    return digest_model(path)


def digest_model(weights: Path) -> str:
    """SHA-256 of a file of weights and of the sites' own tensors beside it; empty if there is no such file."""
    if not weights.is_file():
        return ""
    digest = hashlib.sha256()
    for file in (weights, *(_private_file(weights, site) for site in keeping_sites(weights))):
        with file.open("rb") as content:
            while block := content.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def keeping_sites(weights: Path) -> list[str]:
    """The sites that keep tensors of a network to themselves, by name."""
    return sorted(file.stem for file in _private_file(weights, "any").parent.glob("*.safetensors"))


def private_at(weights: Path, site: str) -> dict[str, Tensor]:
    """What a site keeps of a network to itself; empty if it keeps nothing."""
    file = _private_file(weights, site)
    return read_tensors(file) if file.is_file() else {}


def tensors_at(weights: Path, site: str | None) -> dict[str, Tensor]:
    """A network as a site uses it: its own tensors over the global ones. None, or a site without any: the global ones.

    Empty where there is no such network: nothing of it was shared, and the site has none of its own.
    """
    shared, keeping = _read(weights), keeping_sites(weights)
    if site in keeping:
        return {**shared, **read_tensors(_private_file(weights, str(site)))}
    private = read_tensors(_private_file(weights, keeping[0])) if keeping else {}
    return {} if private.keys() == shared.keys() else shared


def load_trained(
    model: Path,
    which: str = "selected",
    device: str = "auto",
    site: str | None = None,
    trust: Iterable[str] | Trust = (),
) -> TrainedModel:
    """Load a trained network.

    Its configuration names the components to be built: only those of the allow-list are, and those that are trusted.

    Args:
        model: a run folder, a bundle, or a file of weights beside its ``config.json``.
        which: of a run folder, the ``selected`` or the ``last`` model.
        device: as in `Compute`; the run's own threads and compilation are not taken over.
        site: take the network as this site uses it, with what it keeps to itself; None: the global network.
        trust: as in `load_config`.

    Raises:
        UserError: there is no such model, its configuration names what is not permitted, or its weights do not fit it.
    """
    weights = find_weights(model, which)
    settings = _settings(weights, device, trust)
    compute = compute_of(settings)
    tensors = _tensors(weights, site)
    try:
        network = build_network(settings, compute, tensors).eval()
    except UserError as error:
        raise _unfit(weights, error) from None
    return TrainedModel(settings, network, compute, weights)


def _tensors(weights: Path, site: str | None) -> dict[str, Tensor]:
    """The network as a site uses it, or the global one."""
    keeping = keeping_sites(weights)
    if site is not None and site not in keeping:
        others = f"take one of {', '.join(keeping)}" if keeping else "every site uses the global network; leave it out"
        raise UserError(f"{weights}: site {site!r} keeps nothing of this network to itself; {others}")
    try:
        tensors = tensors_at(weights, site)
    except (UnpicklingError, RuntimeError, EOFError) as error:
        raise _unfit(weights, error) from None
    if not tensors:
        raise UserError(f"{weights}: every site trained a network of its own; choose whose: {', '.join(keeping)}")
    return tensors


def _read(weights: Path) -> dict[str, Tensor]:
    if weights.suffix != ".pt":
        return read_tensors(weights)
    content = weights.read_bytes()
    check_sum(weights, content)
    tensors: dict[str, Tensor] = torch.load(BytesIO(content), map_location="cpu", weights_only=True)
    return tensors


def _unfit(weights: Path, error: Exception) -> UserError:
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return UserError(f"{weights}: not weights of the network in its {_config_file(weights).name} ({line})")


def _private_file(weights: Path, site: str) -> Path:
    return weights.parent / "sites" / weights.stem / f"{checked_site_name(site)}.safetensors"


def find_weights(model: Path, which: str = "selected") -> Path:
    """The file of weights in a run folder or a bundle, or the given one.

    Raises:
        UserError: there is none, or no configuration with it.
    """
    if which not in WEIGHTS:
        raise UserError(f"which model is {which!r}: choose one of {', '.join(WEIGHTS)}")
    bundled, configured = (model / path for path in BUNDLED)
    if which != "selected" and (model.is_file() or configured.is_file()):
        raise UserError(f"{model}: is one model; name its run folder to choose the {which} one")
    weights = bundled if configured.is_file() else model / WEIGHTS[which] if model.is_dir() else model
    for path, what in ((weights, "weights"), (_config_file(weights), "configuration")):
        if not path.is_file():
            raise UserError(f"{path}: no {what} of a model there; give the folder of a finished run or of a bundle")
    return weights


def _config_file(weights: Path) -> Path:
    """The ``config.json`` beside weights, or that of the bundle that they are in."""
    beside, bundled = weights.with_name("config.json"), weights.parent.parent / BUNDLED[1]
    return bundled if bundled.is_file() and not beside.is_file() else beside


def _settings(weights: Path, device: str, trust: Iterable[str] | Trust) -> Settings:
    path = _config_file(weights)
    here: dict[str, Any] = {"device": device, "compile": False, "threads": 0}
    if path.name != "config.json":  # a bundle computes as its exports do
        here |= {"precision": "float32", "channels_last": False}
    check_sum(path, path.read_bytes())
    settings = load_travelled(path, here, trust)
    if path.name != "config.json":  # and its writer cannot know where the data are here
        settings = replace(settings, sites="", output="")
    require(settings, keys_that("needed", "predict"), f"give the config.json that the run wrote, not {path}")
    return settings
