"""NVFlare: what a federation of real processes costs over training in one process.

    python benchmarks/flare.py overhead        # seconds a round, and memory of every process
    python benchmarks/flare.py soak            # 50 rounds: does any process grow?
    python benchmarks/flare.py large           # a network of 1 GiB: memory of the server

Server and sites are processes of NVFlare's proof-of-concept mode on this machine, with mutual TLS on loopback, and
made-up pictures of 64 x 64. The overhead of a round is its whole time less the longest training at a site, as the site
measures it: transport, waiting, aggregation and checkpoint, and on a machine with fewer cores than sites also what the
sites take from each other. Memory is the resident set, sampled twice a second.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import psutil
import torch
from conditions import close, conditions, finish, table

from fedbcs_monai.config import Config, load_config
from fedbcs_monai.data.prepare import list_sites
from fedbcs_monai.data.sites import write_sites
from fedbcs_monai.data.synthetic import synthesise
from fedbcs_monai.drivers.flare.recipe import FedBCSRecipe
from fedbcs_monai.drivers.simulate import train
from fedbcs_monai.federated.traffic import size_bytes
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
    "fedbcs_monai.drivers.flare.trainer": "trainer",
}
LARGE = [32, 64, 256, 1536, 3200]


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["overhead", "soak", "large"])
    parser.add_argument("--sites", type=int, default=None, help="default: 3, and 2 for the large network")
    parser.add_argument(
        "--rounds", type=int, default=None, help="default: 10, 50 for the soak, 3 for the large network"
    )
    parser.add_argument("--epochs", type=int, default=1, help="more of them make longer rounds")
    parser.add_argument("--features", type=int, nargs=5, default=LARGE, help="of the large network")
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
    synthesise(folder / "data", "nuclei", cases=6, size=64)
    sites = list_sites(folder / "data")[:count]
    write_sites(folder / "sites.json", sites, "nuclei")
    config = load_config(
        "nuclei_fedavg",
        {
            **TINY,
            "sites": str(folder / "sites.json"),
            "rounds": rounds,
            "epochs": options.epochs,
            "network_def::features": options.features if large else [8, 8, 16, 16, 16],
            "checkpoint_every": 1,
            "batch_size": 2,
        },
    )
    run, memory = in_consortium(config, folder, [site.name for site in sites])
    state = size_bytes(read_tensors(run / "last.safetensors"))
    result = {"sites": count, "rounds": times(run), "memory_mib": memory, "network_mib": state / 2**20}
    if options.part == "overhead":
        result["one_process"] = times(train({**config, "output": str(folder / "one")}))
    return result


def in_consortium(config: Config, folder: Path, names: list[str]) -> tuple[Path, dict[str, list[tuple[float, float]]]]:
    """Provision, start, run and stop; the run folder, and of every kind of process the largest memory as it went."""
    os.environ["NVFLARE_POC_WORKSPACE"] = str(folder / "poc")
    from nvflare.recipe import PocEnv  # reads the variable

    env = PocEnv(clients=names, num_clients=len(names), extra={"login_timeout": 120})
    recipe = FedBCSRecipe(config, min_responses=len(names), wait_s=1800)
    with Memory(folder) as memory:
        try:
            recipe.run(env)
            run = folder / "poc" / "consortium" / "prod_00" / "localhost" / "fedbcs" / "runs" / recipe.run_id
            while not (run / "summary.json").exists():
                time.sleep(0.5)
        finally:
            env.stop()
    return run, memory.samples


def times(run: Path) -> list[dict[str, float]]:
    """Of every round: all of it, and the longest training at a site, in seconds."""
    trained: dict[int, float] = defaultdict(float)
    for line in (run / "rounds.csv").read_text(encoding="utf-8").splitlines()[1:]:
        round, _, metric, value = line.split(",")
        if metric == "seconds":
            trained[int(round)] = max(trained[int(round)], float(value))
    ends = [json.loads(path.read_text())["history"]["seconds"] for path in sorted((run / "checkpoints").glob("*.json"))]
    whole = [after - before for before, after in zip([0.0, *ends], ends, strict=False)]
    return [{"round": n + 1, "whole": s, "training": trained[n + 1]} for n, s in enumerate(whole)]


class Memory:
    """Samples the resident set of every process of a federation, in MiB, by kind of process."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)
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
        began = time.perf_counter()
        while not self._over.wait(0.5):
            largest: dict[str, float] = defaultdict(float)
            for process in psutil.process_iter():
                try:
                    kind = kind_of(process, self.folder)
                    if kind:
                        largest[kind] = max(largest[kind], process.memory_info().rss / 2**20)
                except psutil.Error:
                    continue
            for kind, mib in largest.items():
                self.samples[kind].append((round(time.perf_counter() - began, 1), mib))


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
        rows = [
            [name, *(f"{statistics.median(column):.2f}" for column in columns(rounds[1:]))]
            for name, rounds in named.items()
            if len(rounds) > 1
        ]
        heads = ["median of a round, s", "whole", "longest training", "overhead"]
        parts.append(table(heads, rows) + f"\n\nThe first round, {result['rounds'][0]['whole']:.1f} s, is left out.")
    memory = result["memory_mib"]
    quarter = {kind: len(samples) // 4 for kind, samples in memory.items()}
    rows = [
        [
            kind,
            f"{max(mib for _, mib in samples):.0f}",
            f"{statistics.median(mib for _, mib in samples[quarter[kind] : 2 * quarter[kind]] or samples):.0f}",
            f"{statistics.median(mib for _, mib in samples[-max(quarter[kind], 1) :]):.0f}",
        ]
        for kind, samples in memory.items()
    ]
    parts.append(table(["memory, MiB", "most", "median of the second quarter", "of the last quarter"], rows))
    parts.append(
        f"The network has {result['network_mib']:.1f} MiB; {result['sites']} sites, {len(result['rounds'])} rounds."
    )
    return "\n\n".join(parts)


def columns(rounds: list[dict[str, float]]) -> list[list[float]]:
    """Whole, training and the rest of every round."""
    return [
        [one["whole"] for one in rounds],
        [one["training"] for one in rounds],
        [one["whole"] - one["training"] for one in rounds],
    ]


if __name__ == "__main__":
    main()
