"""Which sites' prototypes does FINCH put together, and does the odd site stand alone?

    python benchmarks/clusters.py RUN [RUN ...]

Every site of a FedBCS run pools its prototypes with the run's last network, in a pass over its training cases, and the
server's clustering is applied to them. For each run, stream and class: the clusters, the site that lies farthest from
the mean of the others, and how far that is, in cosine distance.

FINCH links every vector with its nearest one, so every cluster has at least two members: a site that is alone among
the others is averaged with the one that is nearest to it.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from conditions import close, conditions, finish, say, script, table
from torch import Tensor
from torch.nn import functional as F

from fedbcs_monai.config import load_config
from fedbcs_monai.federated.messages import Broadcast
from fedbcs_monai.federated.method import ClientContext
from fedbcs_monai.methods import FedBCS
from fedbcs_monai.prototypes.clustering import finch_labels
from fedbcs_monai.runs.model_io import WEIGHTS
from fedbcs_monai.runs.setup import set_up
from fedbcs_monai.tensors import Tensors, read_tensors


@dataclass(frozen=True)
class Untrained(FedBCS):
    """FedBCS whose sites train nothing, and send the prototypes of the network that they received."""

    prototype_pass: str = "fresh"

    def train(self, client: ClientContext) -> Tensors:
        """Pool the prototypes."""
        self.on_round_start(client)
        return self.client_payload(client)


def main() -> None:
    """Pool, cluster, print."""
    options = _options()
    torch.set_num_threads(1)
    found = conditions(torch.device("cpu"), seed=0)
    results = [(run, _clusters(run)) for run in options.runs]
    close(found)
    rows = [
        [run.name, where, c["together"], c["farthest"], f"{c['distance']:.3f}", f"{c['median']:.3f}"]
        for run, clusters in results
        for where, c in clusters.items()
    ]
    text = table(["Run", "Stream / class", "Clusters", "Farthest site", "its distance", "median distance"], rows)
    finish(found, [{"run": str(run), **clusters} for run, clusters in results], text, options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders of FedBCS")
    parser.add_argument("--json", type=Path, default=None, help="also write all that was found to this file")
    return parser.parse_args()


def _clusters(run: Path) -> dict[str, dict[str, Any]]:
    federation = set_up(load_config(run / "config.json", {"device": "cpu", "cache": False}))
    broadcast = Broadcast(1, read_tensors(run / WEIGHTS["last"]), {})
    sent = {site.name: site.answer(Untrained(), broadcast).shared for site in federation.sites}
    say(f"{run.name} is done")
    names = sorted({name for prototypes in sent.values() for name in prototypes})
    return {
        name: _cluster({site: prototypes[name] for site, prototypes in sent.items() if name in prototypes})
        for name in names
    }


def _cluster(prototypes: Mapping[str, Tensor]) -> dict[str, Any]:
    sites, vectors = list(prototypes), torch.stack(list(prototypes.values()))
    labels = finch_labels(vectors).tolist()
    clusters = [[s for s, own in zip(sites, labels, strict=True) if own == label] for label in dict.fromkeys(labels)]
    others = (vectors.sum(0) - vectors) / max(len(vectors) - 1, 1)
    distances = 1 - F.cosine_similarity(vectors.float(), others.float())
    return {
        "together": "; ".join(", ".join(cluster) for cluster in clusters),
        "farthest": sites[int(distances.argmax())],
        "distance": float(distances.max()),
        "median": float(distances.median()),
        "distances": dict(zip(sites, distances.tolist(), strict=True)),
    }


if __name__ == "__main__":
    script(main)
