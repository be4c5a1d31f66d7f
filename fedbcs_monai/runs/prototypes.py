"""Prototype file: the prototypes of a finished run, the server's and, in one process, every site's."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fedbcs_monai.federated.traffic import class_vectors
from fedbcs_monai.runs.schema import PROTOTYPES
from fedbcs_monai.tensors import Tensors, prefixed, read_tensors, under, write_tensors

SERVER, SITES = "server", "sites"


class KeptPrototypes(NamedTuple):
    """Prototypes after the last round, each by its name in the messages, such as ``decoder/1`` for class 1.

    Args:
        server: what it would broadcast next, {name: (D,) or (S, D)}.
        sites: from a site to what it sent in the last round; none where sites are elsewhere.
    """

    server: Tensors
    sites: Mapping[str, Tensors]


def write_prototypes(folder: Path, server: Tensors, sites: Mapping[str, Tensors]) -> None:
    """Write ``prototypes.safetensors``; nothing where no message holds a vector that describes a class."""
    tensors: dict[str, Tensor] = prefixed(SERVER, class_vectors(server))
    for site, sent in sites.items():
        tensors |= prefixed(f"{SITES}/{site}", sent)
    if tensors:
        write_tensors(folder / PROTOTYPES, {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()})


def read_kept_prototypes(folder: Path) -> KeptPrototypes | None:
    """The file that `write_prototypes` wrote; None if it does not exist.

    Raises:
        DamagedError: it is not the file that was written.
    """
    if not (folder / PROTOTYPES).is_file():
        return None
    tensors = read_tensors(folder / PROTOTYPES)
    of_sites = under(SITES, tensors)
    names = dict.fromkeys(name.partition("/")[0] for name in of_sites)
    return KeptPrototypes(under(SERVER, tensors), {site: under(site, of_sites) for site in names})
