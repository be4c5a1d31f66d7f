"""OOD file: the site styles of a model, stored beside its weights."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from fedbcs_monai.errors import UserError
from fedbcs_monai.files import DamagedError, sha256
from fedbcs_monai.ood.distance import SiteStyle
from fedbcs_monai.runs.model_io import keeping_sites
from fedbcs_monai.tensors import Tensors, prefixed, read_tensors, under, write_tensors

OF = "weights_sha256"
"""The tensor, 32 bytes, that says of which weights a file is; an older version had it as metadata."""


def site_styles_file(weights: Path) -> Path:
    """The file of the site styles: ``model.ood.safetensors`` beside ``model.safetensors``."""
    return weights.with_name(f"{weights.stem}.ood.safetensors")


def find_site_styles(weights: Path) -> Path:
    """The file of the site styles under its present name, or under that of earlier versions where only this exists."""
    path, earlier = site_styles_file(weights), weights.with_name(f"{weights.stem}.familiarity.safetensors")
    return earlier if earlier.is_file() and not path.is_file() else path


def write_site_styles(weights: Path, sites: Mapping[str, SiteStyle]) -> None:
    """Write what is known of the sites, as cases look to these weights; without any site, remove what was there."""
    path = site_styles_file(weights)
    if not sites:
        while (there := find_site_styles(weights)).is_file():
            there.unlink()
        return
    tensors = {OF: torch.tensor(list(bytes.fromhex(sha256(weights))), dtype=torch.uint8)}
    for name, site in sites.items():
        usual = torch.tensor([site.usual, site.spread], dtype=torch.float64)
        tensors |= prefixed(name, {"mean": site.mean, "covariance": site.covariance.clone(), "usual": usual})
    write_tensors(path, tensors)


def read_site_styles(weights: Path, site: str | None = None, digest: str = "") -> dict[str, SiteStyle]:
    """What is known of the sites; empty for a run that was trained before it was asked for, and for other weights.

    Args:
        weights: as it was written with.
        site: whose network it is, where sites keep parts of it to themselves: the others see their cases with others.
        digest: SHA-256 of the weights, if it is known.

    Raises:
        UserError: the file is damaged.
    """
    path = find_site_styles(weights)
    if not path.is_file() or (site is None and keeping_sites(weights)):
        return {}
    try:
        tensors = read_tensors(path)
        if _weights_of(path, tensors) != (digest or sha256(weights)):
            return {}
        names = sorted({name.rpartition("/")[0] for name in tensors.keys() - {OF}})
        return {name: _known(under(name, tensors)) for name in names if site in (None, name)}
    except (DamagedError, KeyError, ValueError) as error:
        said = str(error) if isinstance(error, DamagedError) else f"{path}: cannot be read ({error})"
        raise UserError(f"{said}, or replace it with `fedbcs ood --overwrite`") from None


def _weights_of(path: Path, tensors: Tensors) -> str:
    """SHA-256 of the weights that a file is of; empty where it does not say."""
    if OF in tensors:
        return bytes(tensors[OF].tolist()).hex()
    with safe_open(path, framework="pt") as file:
        return str((file.metadata() or {}).get(OF, ""))


def _known(tensors: Tensors) -> SiteStyle:
    usual, spread = tensors["usual"].tolist()
    return SiteStyle(tensors["mean"], tensors["covariance"], usual, spread)
