"""NVFlare: what a federation of real processes costs over training in one process.

    python benchmarks/flare.py overhead                  # seconds a round, and memory of every process
    python benchmarks/flare.py overhead --epochs 60      # with rounds that train for long
    python benchmarks/flare.py soak                      # 50 rounds: does any process grow?
    python benchmarks/flare.py large                     # a network of 1 GiB: memory of the server

Server and sites are processes of NVFlare's proof-of-concept mode on this machine, with mutual TLS on loopback, and
synthetic pictures of 64 x 64. The overhead of a round is its whole time less its training, as sites measure it: that
of the slowest site under NVFlare, where all train at once, and that of all sites in one process, where one trains after
the other. Under NVFlare it is transport, waiting, aggregation and checkpoint, and on a machine with fewer cores than
sites also what these take from each other. Memory is the resident set, sampled twice a second, and its peak as the
system keeps it.
"""

import argparse
import json
import os
import socket
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from conditions import close, conditions, finish, script, table
from msgspec.structs import replace

from fedbcs_monai.backends.local import train
from fedbcs_monai.backends.nvflare.environments import write_project
from fedbcs_monai.backends.nvflare.recipe import FedBCSRecipe
from fedbcs_monai.config import load_config
from fedbcs_monai.data.prepare import list_sites
from fedbcs_monai.data.sites import write_sites
from fedbcs_monai.demo.synthetic import synthesise
from fedbcs_monai.federated.memory import process_bytes
from fedbcs_monai.federated.traffic import size_bytes
from fedbcs_monai.settings import Settings
from fedbcs_monai.tensors import read_tensors

TINY = {
    "evaluate_every": 10_000,
    "examples": 0,
    "keep_checkpoints": 0,
    "device": "cpu",
    "threads": 1,
    "preprocessing::transforms::1::spatial_size": [32, 32],
    "augmentation::transforms::0::roi_size": [32, 32],
    "inferer::roi_size": [64, 64],
}
KINDS = {
    "server_train": "server",
    "runner_process": "server's job",
    "client_train": "client",
    "worker_process": "client's job",
    "fedbcs_monai.backends.nvflare.trainer": "trainer",
}
LARGE = [32, 64, 256, 1536, 3200]
ADMIN = "admin@nvidia.com"


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["overhead", "soak", "large"])
    parser.add_argument("--sites", type=int, default=None, help="default: 3, and 2 for the large network")
    parser.add_argument(
        "--rounds", type=int, default=None, help="default: 10, 50 for the soak, 3 for the large network"
    )
    parser.add_argument("--epochs", type=int, default=1, help="more of them make longer rounds")
    parser.add_argument("--features", type=int, nargs=5, default=None, help="default: as shipped, or of 1 GB")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = conditions(torch.device("cpu"), 0)
    with tempfile.TemporaryDirectory() as folder:
        result = measured(Path(folder), options)
    close(found, own=2.0)
    finish(found, result, report(options.part, result), options.json)


def measured(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run a federation of real processes, and for the overhead the same in one process."""
    large = options.part == "large"
    count = options.sites or (2 if large else 3)
    rounds = options.rounds or {"overhead": 10, "soak": 50, "large": 3}[options.part]
    features = options.features or (LARGE if large else None)
    synthesise(folder / "data", "nuclei", cases=6, size=64)
    sites = list_sites(folder / "data")[:count]
    write_sites(folder / "sites.json", sites, "nuclei")
    config = load_config(
        "nuclei",
        {
            **TINY,
            "sites": str(folder / "sites.json"),
            "rounds": rounds,
            "epochs": options.epochs,
            **({"network_def::features": features} if features else {}),
            "checkpoint_every": 1,
            "batch_size": 2,
        },
    )
    run, memory = in_consortium(config, folder, [site.name for site in sites])
    network = read_tensors(run / "last.safetensors")
    result = {
        "sites": count,
        "rounds": times(run, max),
        "peak_mib": memory.peaks,
        "by_round_mib": by_round(memory, run),
        "network_mib": size_bytes(network) / 2**20,
        "largest_mib": max(size_bytes({name: tensor}) for name, tensor in network.items()) / 2**20,
    }
    if options.part == "overhead":
        result["one_process"] = times(train(replace(config, output=str(folder / "one"))), sum)
    return result


def in_consortium(config: Settings, folder: Path, names: list[str]) -> tuple[Path, "Memory"]:
    """Provision, start, run and stop; the run folder, and what the processes held."""
    os.environ["NVFLARE_POC_WORKSPACE"] = str(folder / "poc")
    from nvflare.recipe import PocEnv  # reads the variable

    project = folder / "project.yml"
    write_project(project, names, str(config.sites), ADMIN)
    content = yaml.safe_load(project.read_text())
    content["participants"][0]["fed_learn_port"] = free_port()
    project.write_text(yaml.safe_dump(content, sort_keys=False))
    env = PocEnv(clients=names, num_clients=len(names), project_conf_path=str(project), extra={"login_timeout": 120})
    recipe = FedBCSRecipe(config, min_responses=len(names), wait_s=1800)
    with Memory(folder) as memory:
        try:
            recipe.run(env)
            run = folder / "poc" / "consortium" / "prod_00" / "localhost" / "fedbcs" / "runs" / recipe.run_id
            while not (run / "summary.json").exists():
                time.sleep(0.5)
        finally:
            env.stop()
    return run, memory


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def times(run: Path, of_sites: Callable[[Iterable[float]], float]) -> list[dict[str, float]]:
    """Of every round: all of it, and its training, in seconds.

    Args:
        run: folder.
        of_sites: from the sites' times of training to that of the round.
    """
    trained: dict[int, list[float]] = defaultdict(list)
    for line in (run / "rounds.csv").read_text(encoding="utf-8").splitlines()[1:]:
        round, _, metric, value = line.split(",")
        if metric == "seconds":
            trained[int(round)].append(float(value))
    ends = [json.loads(path.read_text())["history"]["seconds"] for path in checkpoints(run)]
    whole = [after - before for before, after in zip([0.0, *ends], ends, strict=False)]
    return [{"round": n, "whole": s, "training": of_sites(trained[n])} for n, s in enumerate(whole, 1)]


def checkpoints(run: Path) -> list[Path]:
    """One a round, in order."""
    return sorted((run / "checkpoints").glob("*.json"))


class Memory:
    """Samples the resident set of every process of a federation, in MiB, by kind of process; the largest counts.

    Args:
        folder: in which the kits lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self.peaks: dict[str, float] = defaultdict(float)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        """Begin."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            largest: dict[str, float] = defaultdict(float)
            for process in psutil.process_iter():
                try:
                    if kind := kind_of(process, self.folder):
                        now, peak = ((process_bytes(key, process.pid) or 0) / 2**20 for key in ("VmRSS", "VmHWM"))
                        largest[kind], self.peaks[kind] = max(largest[kind], now), max(self.peaks[kind], peak)
                except (psutil.Error, OSError):
                    continue
            for kind, mib in largest.items():
                self.samples[kind].append((time.time(), mib))


def by_round(memory: Memory, run: Path) -> dict[str, list[float]]:
    """The median of each kind's memory in every round but the first, MiB; without rounds too short for a sample."""
    ends = [path.stat().st_mtime for path in checkpoints(run)]
    found: dict[str, list[float]] = {}
    for kind, samples in memory.samples.items():
        rounds = [[mib for when, mib in samples if begin < when <= end] for begin, end in pairwise(ends)]
        found[kind] = [statistics.median(mibs) for mibs in rounds if mibs]
    return found


def kind_of(process: psutil.Process, folder: str) -> str | None:
    """What a process is in the federation whose kits lie in a folder; None for any other."""
    line = " ".join(process.cmdline())
    kind = next((name for part, name in KINDS.items() if part in line), None)
    if kind == "trainer":
        parent = process.parent()
        return kind if parent and folder in " ".join(parent.cmdline()) else None
    return kind if folder in line else None


def report(part: str, result: dict[str, Any]) -> str:
    """The tables."""
    parts = []
    if part != "large":
        named = {"NVFlare": result["rounds"], "one process": result.get("one_process", [])}
        rows = [[name, *spread(rounds[1:])] for name, rounds in named.items() if len(rounds) > 1]
        heads = ["a round, s: median (range)", "whole", "training", "overhead", "overhead / whole"]
        parts.append(table(heads, rows) + f"\n\nThe first round, {result['rounds'][0]['whole']:.1f} s, is left out.")
    network = result["network_mib"]
    if part == "large":
        heads = ["memory", "peak, MiB", "peak / network"]
        rows = [[kind, f"{peak:.0f}", f"{peak / network:.2f}"] for kind, peak in result["peak_mib"].items()]
    else:
        heads = ["memory, MiB", "peak", "second round", "last round", "growth a round, later half"]
        rows = [
            [kind, *(f"{mib:.0f}" for mib in (peak, by[0], by[-1])), f"{slope(by):+.2f}"]
            for kind, peak in result["peak_mib"].items()
            if (by := result["by_round_mib"].get(kind))
        ]
    parts.append(table(heads, rows))
    parts.append(
        f"The network has {network:.1f} MiB, its largest tensor {result['largest_mib']:.1f} MiB;"
        f" {result['sites']} sites, {len(result['rounds'])} rounds."
    )
    return "\n\n".join(parts)


def spread(rounds: list[dict[str, float]]) -> list[str]:
    """Median and range of a round's times, and the share of the overhead."""
    columns = [
        [one["whole"] for one in rounds],
        [one["training"] for one in rounds],
        [one["whole"] - one["training"] for one in rounds],
    ]
    cells = [f"{statistics.median(c):.2f} ({min(c):.2f} to {max(c):.2f})" for c in columns]
    return [*cells, f"{sum(columns[2]) / sum(columns[0]):.1%}"]


def slope(values: list[float]) -> float:
    """Of a line through the later half of some values, by least squares."""
    later = values[len(values) // 2 :]
    return statistics.linear_regression(range(len(later)), later).slope if len(later) > 1 else 0.0


if __name__ == "__main__":
    script(main)
