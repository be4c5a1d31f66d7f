"""Step: time and memory of one training step, FedBCS and its parts beside FedAvg.

    python benchmarks/step.py
    python benchmarks/step.py --device cuda --repeats 30

A step is `Method.step`: zero_grad, loss, backward, SGD step, with the networks, the loss and the batch size of the
shipped configurations. The variants take turns in one process, so that whatever else the machine does falls on all of
them; the ratio to FedAvg is taken within each turn. Memory is that of a fresh process for each variant.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from conditions import close, conditions, finish, peak_bytes, resident_bytes, say, script, table
from torch import Tensor, nn

from fedbcs_monai.components import build
from fedbcs_monai.config import load_config
from fedbcs_monai.federated.memory import keep_freed_memory
from fedbcs_monai.federated.messages import Broadcast
from fedbcs_monai.federated.method import Batch, ClientContext, Method
from fedbcs_monai.methods import FedAvg, FedBCS
from fedbcs_monai.methods.fedbcs import BACKGROUND, STREAMS
from fedbcs_monai.networks import build_segmenter
from fedbcs_monai.networks.fusion import ClassSums, ContextFusion, Products

FOREGROUND = {256: 0.20, 384: 0.08}
"""Share of foreground: nuclei in H&E tiles, prostate in T2 slices."""

CLUSTERS = 2
"""Global prototypes a class and stream."""


class BuiltMap(nn.Module):
    """A context fusion that builds its map in full and answers from it, as the definition reads."""

    def __init__(self, fusion: ContextFusion, levels: Sequence[Tensor]) -> None:
        super().__init__()
        self.map = fusion(levels)

    def products(self, levels: Sequence[Tensor], anchors: Tensor, prototypes: Tensor) -> Products:
        """As `ContextFusion.products`."""
        embeddings = self.map.movedim(1, -1).flatten(0, -2)[anchors]
        return Products(embeddings @ prototypes.T, embeddings.square().sum(1))

    @torch.no_grad()
    def class_sums(self, levels: Sequence[Tensor], classes: Tensor) -> ClassSums:
        """As `ContextFusion.class_sums`."""
        sums = torch.einsum("bkn,bdn->kd", classes.flatten(2), self.map.flatten(2))
        return ClassSums(sums, classes.flatten(2).sum((0, 2)))


@dataclass(frozen=True)
class BuiltFedBCS(FedBCS):
    """FedBCS that builds the fused map: the same loss, plainly."""

    def stream_loss(
        self, client: ClientContext, stream: str, fusion: ContextFusion, levels: Sequence[Tensor], classes: Tensor
    ) -> Tensor | None:
        """As that of FedBCS."""
        return super().stream_loss(client, stream, BuiltMap(fusion, levels), levels, classes)  # type: ignore[arg-type]


class Variant(NamedTuple):
    """A method and what it asks of the network."""

    title: str
    method: Callable[[], Method]
    network: dict[str, Any]


SHIPPED = load_config("nuclei", {"method": "FedBCS"})
FSR = {key: SHIPPED["network_def"][key] for key in ("recalibrate", "recalibrate_decoder", "style")}
ADAPTIVE = {"style": {"gate": "adaptive"}}
ENCODER = {"recalibrate": [2, 3, 4], **ADAPTIVE}
"""FSR where the authors' code has it, and eq. 6 of the paper for its gate: the setting of docs/study.md."""
CDPA = {"context": SHIPPED["network_def"]["context"]}
VARIANTS = {
    "fedavg": Variant("FedAvg", FedAvg, {}),
    "fsr": Variant("FSR only", FedAvg, FSR),
    "fsr_adaptive": Variant("FSR only, adaptive gate", FedAvg, {**FSR, **ADAPTIVE}),
    "fsr_encoder_2": Variant("FSR only, adaptive gate, encoder levels 2 to 4", FedAvg, ENCODER),
    "cdpa": Variant("CDPA only", FedBCS, CDPA),
    "fedbcs": Variant("FedBCS", FedBCS, {**FSR, **CDPA}),
    "fedbcs_adaptive": Variant("FedBCS, adaptive gate", FedBCS, {**FSR, **CDPA, **ADAPTIVE}),
    "fedbcs_encoder_2": Variant("FedBCS, adaptive gate, encoder levels 2 to 4", FedBCS, {**ENCODER, **CDPA}),
    "fedbcs_foreground": Variant(
        "FedBCS, every foreground pixel", lambda: FedBCS(anchors="foreground", anchors_per_class=0), {**FSR, **CDPA}
    ),
    "fedbcs_all": Variant("FedBCS, every pixel", lambda: FedBCS(anchors_per_class=0), {**FSR, **CDPA}),
    "fedbcs_built": Variant("FedBCS, map built in full", BuiltFedBCS, {**FSR, **CDPA}),
}
PLAIN = "fedbcs_built"
"""Measured after the others and fewer times: one step takes as long as all of theirs together."""


class Setting(NamedTuple):
    """What all variants of a table share."""

    size: int
    batch: int
    foreground: float
    norm: str
    features: tuple[int, ...]
    device: str
    seed: int


def main() -> None:
    """Parse, measure, print."""
    options = parse()
    keep_freed_memory()
    if options.probe:
        print(json.dumps(probe(options.probe, Setting(*json.loads(options.setting)), options.memory_steps)))
        return
    found = conditions(torch.device(options.device), options.seed)
    results, texts = [], []
    for size in options.sizes:
        share = FOREGROUND.get(size, 0.2) if options.foreground is None else options.foreground
        widths = tuple(options.features)
        setting = Setting(size, options.batch, share, options.norm, widths, options.device, options.seed)
        check(setting._replace(size=min(size, 128)), options.variants)
        rows = measure(setting, options)
        results.append({"setting": setting._asdict(), "variants": rows})
        texts.append(shown(setting, rows))
    close(found)
    finish(found, results, "\n\n".join(texts) + "\n\n" + LEGEND, options.json)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=0, help="of torch on the CPU; 0: torch's own choice")
    parser.add_argument("--repeats", type=int, default=7, help="timed steps of every variant")
    parser.add_argument("--plain-repeats", type=int, default=2, help="timed steps of the map built in full")
    parser.add_argument("--memory-steps", type=int, default=2, help="steps of a memory measurement; 0: no memory")
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 384], help="pixels a side")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--foreground", type=float, help="share of foreground; default: 0.20 at 256, 0.08 at 384")
    parser.add_argument("--norm", default="group")
    parser.add_argument("--features", type=int, nargs=5, default=[32, 64, 128, 256, 512])
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for all that was measured")
    parser.add_argument("--probe", choices=list(VARIANTS), help=argparse.SUPPRESS)  # memory of one variant
    parser.add_argument("--setting", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    options.variants = ["fedavg", *(name for name in options.variants if name != "fedavg")]
    return options


# What is measured.


def make_batch(setting: Setting) -> Batch:
    """Random images, and labels of round blobs that cover the asked share of every image."""
    draw = torch.Generator().manual_seed(setting.seed)
    image = torch.rand(setting.batch, 3, setting.size, setting.size, generator=draw)
    noise = torch.randn(setting.batch, 1, setting.size, setting.size, generator=draw)
    side = 16 * 2 + 1
    bump = torch.exp(-0.5 * (torch.arange(side) - side // 2).float().square() / 6.0**2)
    smooth = torch.conv2d(noise, bump.view(1, 1, -1, 1), padding=(side // 2, 0))
    smooth = torch.conv2d(smooth, bump.view(1, 1, 1, -1), padding=(0, side // 2)).flatten(1)
    count = round(setting.foreground * smooth.shape[1])
    label = torch.zeros_like(smooth, dtype=torch.long)
    label.scatter_(1, smooth.topk(count, dim=1).indices, 1) if count else None
    device = torch.device(setting.device)
    return {"image": image.to(device), "label": label.view(noise.shape).to(device)}


def make_local(variant: Variant, setting: Setting) -> ClientContext:
    """A site in its second round, that holds the prototypes of the first."""
    torch.manual_seed(setting.seed)
    network = build_segmenter(features=setting.features, norm=setting.norm, **variant.network).to(setting.device)
    network.train()
    draw = torch.Generator().manual_seed(setting.seed)
    shared = {}
    if network.fusion is not None:
        for stream in STREAMS:
            width = getattr(network.fusion, stream).dimensions
            for c in (BACKGROUND, 1):
                shared[f"{stream}/{c}"] = 0.5 * torch.randn(CLUSTERS, width, generator=draw)
    return ClientContext(
        network=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=SHIPPED["optimizer"]["lr"]),
        criterion=build(SHIPPED, "loss"),
        batches=lambda epoch: [],
        epochs=1,
        received=Broadcast(2, {}, shared),
    )


def make_step(variant: Variant, setting: Setting) -> Callable[[], None]:
    """A training step of a variant, ready to be repeated."""
    method, client, batch = variant.method(), make_local(variant, setting), make_batch(setting)
    method.on_round_start(client)
    return lambda: method.step(client, batch)


def check(setting: Setting, names: Sequence[str]) -> None:
    """Assert that the plainly built FedBCS has the loss that FedBCS has."""
    if PLAIN not in names:
        return
    losses, batch = [], make_batch(setting)
    for method in (FedBCS(anchors_per_class=0), BuiltFedBCS(anchors_per_class=0)):
        client = make_local(VARIANTS[PLAIN], setting)
        method.on_round_start(client)
        losses.append(method.loss(client, batch).item())
    assert abs(losses[0] - losses[1]) <= 1e-4 * max(1.0, abs(losses[1])), f"the losses differ: {losses}"
    say(f"loss of FedBCS {losses[0]:.6f}, with the map built in full {losses[1]:.6f}")


# How it is measured.


def measure(setting: Setting, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Time and memory of every variant."""
    memory = {name: remember(name, setting, options) for name in options.variants} if options.memory_steps else {}
    seconds: dict[str, list[dict[str, float]]] = {name: [] for name in options.variants}
    for names, repeats in (
        ([name for name in options.variants if name != PLAIN], options.repeats),
        (["fedavg", PLAIN] if PLAIN in options.variants else [], options.plain_repeats),
    ):
        plain = PLAIN in names
        steps = {name: make_step(VARIANTS[name], setting) for name in names}
        for step in steps.values():
            step()  # memory is taken, kernels are chosen
        for turn in range(repeats if steps else 0):
            turned = names[turn % len(names) :] + names[: turn % len(names)]
            took = {name: timed(steps[name], setting.device) for name in turned}
            base = took["fedavg"]
            for name in names:
                if name != "fedavg" or not plain:
                    ratios = {f"{clock}_ratio": took[name][clock] / base[clock] for clock in base}
                    seconds[name].append({**took[name], **ratios, "fedavg_wall": base["wall"]})
            clocks = ", ".join(f"{name} {t['wall']:.2f} s, CPU {t.get('cpu', 0):.2f} s" for name, t in took.items())
            say(f"{setting.size}: turn {turn + 1}: {clocks}")
    return {
        name: {"title": VARIANTS[name].title, "seconds": seconds[name], "memory": memory.get(name)}
        for name in options.variants
    }


def timed(step: Callable[[], None], device: str) -> dict[str, float]:
    """Seconds of one step: on the clock and, on the CPU, of all threads together."""
    if torch.device(device).type == "cuda":
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        start.record()
        step()
        end.record()
        torch.cuda.synchronize()
        return {"wall": start.elapsed_time(end) / 1000}
    wall, cpu = time.perf_counter(), time.process_time()
    step()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def remember(name: str, setting: Setting, options: argparse.Namespace) -> dict[str, int]:
    """The memory of a variant, measured in a process of its own."""
    command = [sys.executable, __file__, "--probe", name, "--setting", json.dumps(setting)]
    command += ["--threads", str(options.threads), "--memory-steps", str(options.memory_steps)]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, int] = json.loads(answer.splitlines()[-1])
    say(f"{setting.size}: {name} {found['peak'] / 2**20:.0f} MiB")
    return found


def probe(name: str, setting: Setting, steps: int) -> dict[str, int]:
    """Peak memory of some steps, less what the process held before there was a network, in bytes."""
    cuda = torch.device(setting.device).type == "cuda"
    # A step of a tiny network first: what is imported and chosen late is none of the step's memory.
    make_step(VARIANTS[name], setting._replace(size=64, batch=2, features=(8,) * 5))()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() if cuda else resident_bytes()
    step = make_step(VARIANTS[name], setting)
    for _ in range(steps):
        step()
    peak = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
    return {"before": before, "peak": peak - before}


# How it is shown.

LEGEND = """\
Time: ratio to the FedAvg step of the same turn, median and range over the turns; "best / best" is the ratio of the
fastest steps, "CPU" the median ratio of CPU seconds of all threads, which other programs disturb less.
Memory: peak of a fresh process over its first steps, less what it held before network, optimizer and batch were made
but after a step of a tiny network (resident set on a CPU, `torch.cuda.max_memory_allocated` on a GPU); the ratio is of
these differences."""


def shown(setting: Setting, rows: dict[str, dict[str, Any]]) -> str:
    """A Markdown table of one image size."""
    header = [
        "step",
        "turns",
        "median s",
        "min s",
        "time / FedAvg",
        "range",
        "best / best",
        "CPU",
        "peak MiB",
        "memory / FedAvg",
    ]
    base = rows["fedavg"]
    lines = []
    for row in rows.values():
        walls = [turn["wall"] for turn in row["seconds"]]
        ratios = [turn["wall_ratio"] for turn in row["seconds"]]
        cpu = [turn["cpu_ratio"] for turn in row["seconds"] if "cpu_ratio" in turn]
        memory = row["memory"]
        lines.append(
            [
                row["title"],
                str(len(walls)),
                f"{statistics.median(walls):.3f}",
                f"{min(walls):.3f}",
                f"{statistics.median(ratios):.3f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
                f"{min(walls) / min(turn['fedavg_wall'] for turn in row['seconds']):.3f}",
                f"{statistics.median(cpu):.3f}" if cpu else "-",
                f"{memory['peak'] / 2**20:.0f}" if memory else "-",
                f"{memory['peak'] / base['memory']['peak']:.3f}" if memory else "-",
            ]
        )
    title = f"Batch {setting.batch}, 3 x {setting.size} x {setting.size}, {setting.foreground:.0%} foreground"
    return f"{title}, widths {'-'.join(map(str, setting.features))}, norm {setting.norm}:\n\n{table(header, lines)}"


if __name__ == "__main__":
    script(main)
