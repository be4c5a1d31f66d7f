"""Run folders of two cases a site, whose means one can work out in one's head."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from fedbcs_monai.benchmark.plan import PlannedRun, Row
from fedbcs_monai.config import settings_of


@pytest.fixture
def row(tmp_path: Path) -> Callable[..., Row]:
    """Write the runs of one row, a seed each: ``row("FedAvg", {"Ash": [0.7, 0.9]}, {"Ash": [0.8, 1.0]})``."""

    def write(label: str, *runs: Mapping[str, Sequence[float]], key: str = "", **said: Any) -> Row:
        name = key or label.lower().replace(" ", "_")
        planned = []
        for seed, dices in enumerate(runs):
            folder = tmp_path / "runs" / f"{name}_seed{seed}"
            config = write_run(folder, label, seed, dices, **said) if dices else {}
            planned.append(PlannedRun(folder.name, settings_of({**config, "output": str(folder)})))
        return Row(name, label, tuple(planned))

    return write


def write_run(
    folder: Path,
    label: str,
    seed: int,
    dices: Mapping[str, Sequence[float]],
    unseen: Sequence[str] = (),
    counts: Mapping[str, float] | None = None,
    network: Mapping[str, Any] | None = None,
    rounds: int = 2,
    sites: Sequence[str] = (),
) -> dict[str, Any]:
    """One finished run, and its configuration; `counts` are what every site counted in every round."""
    folder.mkdir(parents=True)
    config = {
        "method": {"_target_": f"fedbcs_monai.methods.{label if label.startswith('Fed') else 'FedAvg'}"},
        "rounds": rounds,
        "seed": seed,
        "fold": 0,
        "network_def": dict(network or {}),
    }
    names = sites or list(dices)
    summary = {
        "name": label,
        "task": "nuclei",
        "rounds": rounds,
        "selected_round": rounds,
        "unseen": list(unseen),
        "best_on_test": None,
        "seconds": 60.0 * (seed + 1),
        "peak_bytes": 2**30,
        "sites": {site: {"train": 0 if site in unseen else 4, "val": 0, "test": 2} for site in names},
    }
    for name, content in (("config", config), ("environment", {"command": "fedbcs benchmark x"}), ("summary", summary)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    scores = [("selected", site, "test", f"{site}{n}", d) for site, of in dices.items() for n, d in enumerate(of)]
    _write(folder / "scores.csv", ("model", "site", "split", "case", "dice"), scores)
    trained = [site for site in dices if site not in unseen]
    lines = [(at, site, "val_dice", 0.1 * at) for at in range(1, rounds + 1) for site in trained]
    lines += [
        (at, site, name, n) for at in range(1, rounds + 1) for site in trained for name, n in (counts or {}).items()
    ]
    _write(folder / "rounds.csv", ("round", "site", "metric", "value"), lines)
    return config


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
