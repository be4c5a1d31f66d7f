"""Predict: time from an image to its mask beside the bare network under MONAI's sliding window, and the time to start.

    python benchmarks/predict.py
    python benchmarks/predict.py --device cuda --repeats 20

The bare network gets tensors that lie ready on the device: slices with their neighbours, or a picture in [0, 1], under
`monai.inferers.SlidingWindowInferer` with the window, overlap and batch of the shipped configuration. Beside it run
`Predictor.segment`, from an image in memory to mask, probability, statistics and warnings on the image's own grid, and
`predict`, from files to files, loading the model too. They take turns in one process, each with the same images, and
each turn begins with another one. The ratio of throughputs is taken within each turn, by the clock and by CPU seconds,
which other work on the machine disturbs less. The network is the shipped one with random weights: its time does not
depend on them. The time to start is that of `fedbcs predict` on a tiny picture in a fresh process after
`import torch`, and of it, what `import monai` alone takes.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
import torch
from conditions import close, conditions, finish, say, script, table
from monai.inferers import SlidingWindowInferer
from PIL import Image

from fedbcs_monai.config import load_config
from fedbcs_monai.data.transforms import neighbours
from fedbcs_monai.predict import Predictor, predict
from fedbcs_monai.predict.studies import find_studies
from fedbcs_monai.runs.setup import build_network, compute_of
from fedbcs_monai.settings import plain
from fedbcs_monai.tensors import write_tensors

WANTED = 0.9
"""Of the bare network's throughput."""

START = """
import time, torch
start = time.perf_counter(), time.process_time()
import monai
print(time.perf_counter() - start[0], time.process_time() - start[1])
from fedbcs_monai.cli import main
main({arguments!r})
print(time.perf_counter() - start[0], time.process_time() - start[1])
"""


def main() -> None:
    """Measure, print and write."""
    options = _options()
    torch.set_num_threads(options.threads)
    found = conditions(torch.device(options.device), options.seed)
    results: dict[str, Any] = {}
    with TemporaryDirectory() as name:
        folder = Path(name)
        for task in options.tasks:
            model, images = _model(folder, task, options), _images(folder, task, options)
            results[task] = _turns(_contenders(model, images, folder, options), options, task)
        results["start s"] = [_start(folder, options) for _ in range(3)]
    close(found)
    finish(found, results, _text(results), options.json)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=["prostate", "nuclei"], default=["prostate", "nuclei"])
    parser.add_argument("--slices", type=int, default=20, help="of the volume")
    parser.add_argument("--matrix", type=int, default=384, help="of a slice")
    parser.add_argument("--picture", type=int, default=1000, help="side of the picture")
    parser.add_argument("--images", type=int, default=3, help="in a turn")
    parser.add_argument("--features", type=int, nargs="+", default=None, help="widths (default: the shipped ones)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=5, help="turns")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="also write all that was measured to this file")
    return parser.parse_args()


def _model(folder: Path, task: str, options: argparse.Namespace) -> Path:
    """A run folder of the shipped network with random weights."""
    widths = {"network_def::features": options.features} if options.features else {}
    here = {"device": options.device, "seed": options.seed, **widths}
    config = load_config(task, here)
    (folder / task).mkdir()
    (folder / task / "config.json").write_text(json.dumps(plain(config)))
    write_tensors(folder / task / "model.safetensors", build_network(config, compute_of(config)).state_dict())
    return folder / task


def _images(folder: Path, task: str, options: argparse.Namespace) -> Path:
    """A folder of synthetic images; what is in them changes no time."""
    random, images = np.random.default_rng(options.seed), folder / f"{task}_images"
    images.mkdir()
    for n in range(options.images):
        if task == "prostate":
            voxels = random.integers(0, 1000, (options.matrix, options.matrix, options.slices)).astype(np.int16)
            nib.save(nib.Nifti1Image(voxels, np.diag([-0.5, -0.5, 3.0, 1.0])), images / f"{n}.nii.gz")
        else:
            pixels = random.integers(0, 255, (options.picture, options.picture, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(images / f"{n}.png")
    return images


def _contenders(model: Path, images: Path, folder: Path, options: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    predictor = Predictor(model, options.device)
    (only,) = predictor.models
    sources = [study.read() for study in find_studies([images], predictor.accepted).studies]
    inferer: Any = only.segmentation.inferer
    cases = [only.segmentation.prepare({"image": source.tensor()})["image"].as_tensor() for source in sources]
    if predictor.accepted.pictures:
        ready, bare = [case[None].to(options.device) for case in cases], inferer
    else:
        ready = [neighbours(case, inferer.count).contiguous().to(options.device) for case in cases]
        bare = SlidingWindowInferer(ready[0].shape[-2:], sw_batch_size=inferer.sw_batch_size)

    def bare_network() -> None:
        with only.trained.compute.inference():
            for tensor in ready:
                bare(tensor, only.trained.network)

    def segment() -> None:
        for source in sources:
            predictor.segment(source)

    def files() -> None:
        predict(model, images, folder / "out", device=options.device, overwrite=True)

    return {"bare network under MONAI's sliding window": bare_network, "Predictor.segment": segment, "predict": files}


class Taken(NamedTuple):
    """Seconds of the clock and of the CPU."""

    wall: float
    cpu: float


def _turns(contenders: dict[str, Callable[[], Any]], options: argparse.Namespace, task: str) -> dict[str, list[Taken]]:
    """What every contender took in every turn, after one turn that does not count."""
    seconds: dict[str, list[Taken]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(options.repeats + 1):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            taken = _timed(contenders[name], options.device)
            if turn:
                seconds[name].append(taken)
        say(f"{task}: turn {turn} of {options.repeats}")
    return seconds


def _timed(run: Callable[[], Any], device: str) -> Taken:
    start, cpu = time.perf_counter(), time.process_time()
    run()
    if device.startswith("cuda"):
        torch.cuda.synchronize()
    return Taken(time.perf_counter() - start, time.process_time() - cpu)


def _start(folder: Path, options: argparse.Namespace) -> tuple[Taken, Taken]:
    """What `import monai` took, and the whole of `fedbcs predict` on a tiny picture, after torch was imported."""
    tiny = folder / "tiny"
    if not tiny.exists():
        tiny.mkdir()
        small = {"features": [8, 8, 8, 8, 8], "picture": 64, "images": 1}
        own = argparse.Namespace(**{**vars(options), **small})
        _model(tiny, "nuclei", own)
        _images(tiny, "nuclei", own)
    where = [str(tiny / name) for name in ("nuclei", "nuclei_images", "out")]
    arguments = ["predict", where[0], "-i", where[1], "-o", where[2], "-q", "--overwrite", "--device", options.device]
    code = START.format(arguments=arguments)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    monai, whole = (Taken(*map(float, line.split())) for line in done.stdout.splitlines()[-2:])
    return monai, whole


def _text(results: dict[str, Any]) -> str:
    parts = []
    for task, seconds in results.items():
        if not isinstance(seconds, dict):
            continue
        first = next(iter(seconds.values()))
        rows = []
        for name, taken in seconds.items():
            row = [name, f"{statistics.median(own.wall for own in taken):.2f}"]
            for kind in Taken._fields:
                ratios = [getattr(bare, kind) / getattr(own, kind) for bare, own in zip(first, taken, strict=True)]
                row += [f"{statistics.median(ratios):.2f}", f"{min(ratios):.2f} to {max(ratios):.2f}"]
            rows.append(row)
        heads = ["", "median s", "throughput / bare", "range", "in CPU seconds", "range"]
        parts.append(f"{task} (wanted: {WANTED})\n\n" + table(heads, rows))
    rows = [
        [f"{n}", *(f"{taken[at]:.1f}" for at in range(2) for taken in (whole, monai))]
        for n, (monai, whole) in enumerate(results["start s"], start=1)
    ]
    heads = ["fresh process", "s", "of it MONAI", "CPU s", "of it MONAI"]
    parts.append("start-up besides importing torch\n\n" + table(heads, rows))
    return "\n\n".join(parts)


if __name__ == "__main__":
    script(main)
