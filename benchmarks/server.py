"""Server: time and memory of aggregation and clustering, for four to ten thousand sites.

    python benchmarks/server.py

The weights are those of the default network, one update at a time as a driver hands them over; the prototypes are four
vectors a site (two streams, two classes). For many sites the updates are cut so that all of them together stay under
`--total-gib`: time grows in proportion to what arrives, and the table says how much that was. Every number of sites is
measured in a process of its own.
"""

import argparse
import json
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from conditions import close, conditions, finish, peak_bytes, resident_bytes, say, script, table
from torch import Tensor

from fedbcs_monai.components import build
from fedbcs_monai.config import load_config
from fedbcs_monai.federated.messages import State, Update
from fedbcs_monai.methods import FedAvg, FedBCS
from fedbcs_monai.prototypes.clustering import finch_labels

NAMES = ("encoder/0", "encoder/1", "decoder/0", "decoder/1")
LENGTH = 768


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", type=int, nargs="+", default=[4, 16, 64, 256, 1000, 4000, 10000])
    parser.add_argument("--total-gib", type=float, default=16.0, help="of all updates of a round together")
    parser.add_argument("--modes", type=int, default=4, help="groups that the synthetic prototypes lie in")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=list(PARTS), help=argparse.SUPPRESS)  # in a process of its own
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.part:
        torch.manual_seed(options.seed)
        print(json.dumps(PARTS[options.part](options.sites[0], options)))
        return
    found = conditions(torch.device("cpu"), options.seed)
    rows = [measured(sites, options) for sites in options.sites]
    close(found)
    finish(found, rows, shown(rows), options.json)


def measured(sites: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both parts, each in a process of its own."""
    row: dict[str, Any] = {"sites": sites}
    for part in PARTS:
        command = [sys.executable, __file__, "--part", part, "--sites", str(sites), "--modes", str(options.modes)]
        command += ["--total-gib", str(options.total_gib), "--threads", str(options.threads)]
        command += ["--seed", str(options.seed)]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        row |= json.loads(answer.splitlines()[-1])
    say(f"{sites} sites: mean {row['mean_seconds']:.2f} s, clustering {row['clustering_seconds']:.2f} s")
    return row


def aggregate(sites: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time and peak memory of the mean of the weights."""
    network = build(load_config("nuclei", {"method": "FedBCS"}), "network_def")
    weights = cut(network.state_dict(), options.total_gib * 2**30 / sites)
    FedAvg().aggregate(State(0, {}, {}), [Update("Alder", 1, {"weight": torch.ones(8)}, {})])
    handed = Handed(weights, sites)
    before = resident_bytes()
    start = time.perf_counter()
    FedAvg().aggregate(State(0, weights, {}), handed)
    return {
        "update_mib": sum(tensor.nbytes for tensor in weights.values()) / 2**20,
        "mean_seconds": time.perf_counter() - start - handed.seconds,
        "mean_peak_mib": (peak_bytes() - before) / 2**20,
    }


def cluster(sites: int, options: argparse.Namespace) -> dict[str, Any]:
    """Time and peak memory of clustering the prototypes."""
    finch_labels(torch.randn(8, 8))  # loads scikit-learn
    updates = make_prototypes(sites, options.modes)
    before = resident_bytes()
    start = time.perf_counter()
    shared = FedBCS().aggregate_payload(State(0, {}, {}), updates)
    return {
        "clustering_seconds": time.perf_counter() - start,
        "clustering_peak_mib": (peak_bytes() - before) / 2**20,
        "prototype_kib_a_site": sum(vector.nbytes for vector in updates[0].shared.values()) / 2**10,
        "clusters": {name: len(clusters) for name, clusters in shared.items()},
        "broadcast_kib": sum(clusters.nbytes for clusters in shared.values()) / 2**10,
    }


PARTS = {"mean": aggregate, "clustering": cluster}


class Handed:
    """Updates that are made when they are asked for and let go when they are read, and the seconds of making them."""

    def __init__(self, weights: dict[str, Tensor], sites: int) -> None:
        self.weights = weights
        self.sites = sites
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Update]:
        for n in range(self.sites):
            start = time.perf_counter()
            update = Update(f"{n:05}", 1 + n % 7, {name: t.clone() for name, t in self.weights.items()}, {})
            self.seconds += time.perf_counter() - start
            yield update


def cut(weights: dict[str, Tensor], limit: float) -> dict[str, Tensor]:
    """As many of the tensors, the largest first, as fit into so many bytes; at least the smallest."""
    kept, used = {}, 0
    for name, tensor in sorted(weights.items(), key=lambda item: -item[1].nbytes):
        if used + tensor.nbytes <= limit:
            kept[name], used = tensor, used + tensor.nbytes
    return kept


def make_prototypes(sites: int, modes: int) -> list[Update]:
    """Updates with four prototypes each, around some modes as sites with alike scanners would send."""
    centres = torch.randn(modes, len(NAMES), LENGTH)
    vectors = (centres[n % modes] + 0.5 * torch.randn(len(NAMES), LENGTH) for n in range(sites))
    return [Update(f"{n:05}", 1, {}, dict(zip(NAMES, rows, strict=True))) for n, rows in enumerate(vectors)]


def growth(rows: list[dict[str, Any]], key: str, since: int = 64) -> float:
    """Exponent of the growth with the number of sites, by least squares of the logarithms."""
    points = [(math.log(row["sites"]), math.log(row[key])) for row in rows if row["sites"] >= since and row[key] > 0]
    if len(points) < 2:
        return math.nan
    x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
    return sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)


def shown(rows: list[dict[str, Any]]) -> str:
    """A Markdown table and what it says of growth."""
    header = [
        "sites",
        "MiB an update",
        "mean s",
        "ms a site",
        "ms a MiB",
        "peak MiB",
        "clustering s",
        "peak MiB",
        "clusters",
    ]
    lines = [
        [
            str(row["sites"]),
            f"{row['update_mib']:.1f}",
            f"{row['mean_seconds']:.2f}",
            f"{1000 * row['mean_seconds'] / row['sites']:.1f}",
            f"{1000 * row['mean_seconds'] / row['sites'] / row['update_mib']:.2f}",
            f"{row['mean_peak_mib']:.0f}",
            f"{row['clustering_seconds']:.3f}",
            f"{row['clustering_peak_mib']:.0f}",
            "+".join(str(n) for n in row["clusters"].values()),
        ]
        for row in rows
    ]
    per_mib = [{**row, "per_mib": row["mean_seconds"] / row["update_mib"]} for row in rows]
    whole = [row for row in rows if row["update_mib"] == rows[0]["update_mib"]]
    return f"""{table(header, lines)}

Growth with the number of sites n, from 64 on:
time of the mean, for each MiB of an update, n^{growth(per_mib, "per_mib"):.2f};
its memory n^{growth(whole, "mean_peak_mib", since=1):.2f} (over all whole updates of {rows[0]["update_mib"]:.1f} MiB);
time of the clustering n^{growth(rows, "clustering_seconds"):.2f},
its memory n^{growth(rows, "clustering_peak_mib"):.2f}.

The server keeps the prototypes until the round ends, {rows[0]["prototype_kib_a_site"]:.0f} KiB a site, and no weights.
The next broadcast carries {rows[-1]["broadcast_kib"]:.0f} KiB of them for {rows[-1]["sites"]} sites.
Peak: resident set above what was held before. That of the mean is the update in hand (float32), the sums and one tensor
(float64)."""


if __name__ == "__main__":
    script(main)
