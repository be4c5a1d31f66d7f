"""Made-up run folders: the files training leaves, with numbers and nuclei from a seed."""

import csv
import functools
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

SITES = {"Ash": (24, 8, 12), "Birch": (40, 12, 16), "Cedar": (12, 4, 6), "Maple": (30, 10, 14), "Elm": (0, 0, 12)}
STAINS = {
    "Ash": (214, 168, 206),
    "Birch": (226, 190, 200),
    "Cedar": (188, 150, 204),
    "Maple": (232, 210, 226),
    "Elm": (206, 176, 176),
}
UNSEEN = ("Elm",)
ROUNDS = 10


def write_run(
    folder: Path,
    method: str = "FedAvg",
    seed: int = 0,
    lift: float = 0.0,
    finished: bool = True,
    **method_settings: Any,
) -> Path:
    """A run of five sites, one unseen. `lift` is added to every Dice, except at Cedar, where it is taken off."""
    folder.mkdir(parents=True)
    config = {
        "method": {"_target_": f"fedbcs_monai.methods.{method}", **method_settings},
        "rounds": ROUNDS,
        "epochs": 1,
        "seed": seed,
        "network_def": {"_target_": "monai.networks.nets.BasicUNet", "features": [16, 16, 32, 64, 128, 16]},
        "optimizer": {"_target_": "torch.optim.SGD", "lr": 0.01, "weight_decay": 0.0001},
    }
    environment = {
        "fedbcs_monai": "0.1.0",
        "python": "3.11.7",
        "torch": "2.6.0",
        "monai": "1.5.0",
        "platform": "Linux x86_64",
        "cpu": "made up",
        "device": "cpu",
        "threads": 1,
        "command": f"fedbcs train --method {method} --seed {seed}",
        "started": "2025-01-31T12:00:00",
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "environment.json").write_text(json.dumps(environment))
    _write_rounds(folder, method, seed, lift, ROUNDS if finished else 4)
    _write_looks(folder)
    if finished:
        _write_scores(folder, seed, lift)
        _write_examples(folder, seed, lift)
        summary = {
            "name": method,
            "task": "nuclei",
            "rounds": ROUNDS,
            "selected_round": 8,
            "unseen": list(UNSEEN),
            "best_on_test": {"round": 6, "dice": 0.79 + lift},
            "seconds": 754.2,
            "sites": {site: dict(zip(("train", "val", "test"), counts, strict=True)) for site, counts in SITES.items()},
        }
        (folder / "summary.json").write_text(json.dumps(summary))
    return folder


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def _write_rounds(folder: Path, method: str, seed: int, lift: float, rounds: int) -> None:
    generator = np.random.default_rng(seed + len(method))
    rows: list[Sequence[object]] = []
    for at in range(1, rounds + 1):
        for offset, site in enumerate(site for site in SITES if site not in UNSEEN):
            terms = {"segmentation": 0.2 + 0.6 / at + 0.02 * generator.normal(), "seconds": 3.1}
            if method == "FedBCS":
                terms |= {"contrast": 1.9 * 0.9**at, "consistency": 0.4 * 0.8**at}
            terms["loss"] = sum(value for name, value in terms.items() if name != "seconds")
            if at % 2 == 0:
                terms["val_dice"] = 0.78 - 0.03 * offset + lift - 0.9 / (min(at, 6) + 1)
                terms["val_dice"] += 0.001 * generator.normal()
            rows += [(at, site, metric, value) for metric, value in terms.items()]
    _write_csv(folder / "rounds.csv", ("round", "site", "metric", "value"), rows)


def _write_scores(folder: Path, seed: int, lift: float) -> None:
    cases, luck = np.random.default_rng(1), np.random.default_rng([seed, round(1000 * (1 + lift))])
    rows: list[Sequence[object]] = []
    for offset, (site, (_, _, tests)) in enumerate(SITES.items()):
        for index in range(tests):
            base = 0.83 - 0.03 * offset + 0.06 * cases.normal()
            for model, loss in (("selected", 0.0), ("last", 0.01)):
                dice = base + (-lift / 2 if site == "Cedar" else lift) - loss + 0.01 * luck.normal()
                distance = "" if site == "Elm" else round(12 * (1 - dice), 3)
                rows.append(
                    (
                        model,
                        site,
                        "test",
                        f"{offset:04x}{index:04x}",
                        min(dice, 0.98),
                        distance,
                        distance and distance / 4,
                    )
                )
    _write_csv(folder / "scores.csv", ("model", "site", "split", "case", "dice", "hd95_mm", "assd_mm"), rows)


@functools.cache
def _slide(site: str, seed: int, size: int = 128) -> tuple[np.ndarray, np.ndarray]:
    """Dark round nuclei on a stained ground: image (H, W, 3) uint8 and mask (H, W)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:size, :size]
    mask = np.zeros((size, size), bool)
    for row, column, radius in zip(*generator.uniform(0, size, (2, 22)), generator.uniform(4, 9, 22), strict=True):
        mask |= (rows - row) ** 2 + ((columns - column) * generator.uniform(0.8, 1.3)) ** 2 < radius**2
    image = np.where(mask[..., None], (96, 62, 140), STAINS[site]) + generator.normal(0, 9, (size, size, 3))
    return image.clip(0, 255).astype(np.uint8), mask


def _write_looks(folder: Path) -> None:
    (folder / "looks").mkdir()
    for number, site in enumerate(SITES):
        Image.fromarray(_slide(site, number)[0]).save(folder / "looks" / f"{site}.png")


def _write_examples(folder: Path, seed: int, lift: float) -> None:
    (folder / "examples").mkdir()
    for number, site in enumerate(SITES):
        for index in range(2):
            image, truth = _slide(site, 50 + 10 * number + index)
            prediction = np.roll(truth, (1 + seed, 3 if lift == 0 else 1), (0, 1))
            dice = 2 * (truth & prediction).sum() / (truth.sum() + prediction.sum())
            case = f"{number:04x}{index:04x}"
            np.savez(
                folder / "examples" / f"{site}_{index}.npz",
                image=image,
                truth=truth,
                prediction=prediction,
                dice=dice,
                case=case,
            )


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Write a synthetic run below the test's own folder: `make_run(name, method, ...)`."""
    return lambda name, *args, **settings: write_run(tmp_path / name, *args, **settings)
