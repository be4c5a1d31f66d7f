"""Known: what a federation knows of its sites' cases, in a file beside the weights that see them so."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fedbcs_monai.data.sites import sha256
from fedbcs_monai.errors import UserError
from fedbcs_monai.evaluation.familiarity import Known
from fedbcs_monai.federated.trained import keeping_sites
from fedbcs_monai.tensors import Tensors, prefixed, under, write_tensors


def familiarity_file(weights: Path) -> Path:
    """Where what is known of the sites lies: ``model.familiarity.safetensors`` beside ``model.safetensors``."""
    return weights.with_name(f"{weights.stem}.familiarity.safetensors")


def write_familiarity(weights: Path, sites: Mapping[str, Known]) -> None:
    """Write what is known of the sites, as cases look to these weights; without any site, remove what was there."""
    path = familiarity_file(weights)
    if not sites:
        path.unlink(missing_ok=True)
        return
    tensors: dict[str, Tensor] = {}
    for name, site in sites.items():
        usual = torch.tensor([site.usual, site.spread], dtype=torch.float64)
        tensors |= prefixed(name, {"mean": site.mean, "covariance": site.covariance.clone(), "usual": usual})
    write_tensors(path, tensors, {"weights_sha256": sha256(weights)})


def read_familiarity(weights: Path, site: str | None = None, digest: str = "") -> dict[str, Known]:
    """What is known of the sites; empty for a run that was trained before it was asked for, and for other weights.

    Args:
        weights: as it was written with.
        site: whose network it is, where sites keep parts of it to themselves: the others see their cases with others.
        digest: SHA-256 of the weights, if it is known.

    Raises:
        UserError: the file cannot be read.
    """
    path = familiarity_file(weights)
    if not path.is_file() or (site is None and keeping_sites(weights)):
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get("weights_sha256") != (digest or sha256(weights)):
                return {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        names = sorted({name.rpartition("/")[0] for name in tensors})
        return {name: _known(under(name, tensors)) for name in names if site in (None, name)}
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({error}); `fedbcs familiarity` makes it anew") from None


def _known(tensors: Tensors) -> Known:
    usual, spread = tensors["usual"].tolist()
    return Known(tensors["mean"], tensors["covariance"], usual, spread)
