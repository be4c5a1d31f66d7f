"""``fedbcs demo``: made-up sites, FedAvg against FedBCS, and a report."""

import shlex
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fedbcs_monai.backends.local import train
from fedbcs_monai.cli.console import Quiet, voice
from fedbcs_monai.config import load_config
from fedbcs_monai.data.prepare import list_sites
from fedbcs_monai.data.sites import write_sites
from fedbcs_monai.demo.synthetic import UNSEEN, synthesise
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import check_folder_can_be
from fedbcs_monai.report import write_report
from fedbcs_monai.settings import Settings

CASES = {"nuclei": 24, "prostate": 10}
"""Made-up cases a site."""

FEDBCS = {
    "method": "FedBCS",
    "network_def::recalibrate": [1, 2, 3, 4],
    "network_def::recalibrate_decoder": [1, 2, 3, 4],
    "network_def::style": {"gate": "scalar"},
    "network_def::context": {"width": 256},
}
"""What makes FedBCS of a FedAvg configuration."""

IMAGES = {"nuclei": "images/case_000.png", "prostate": "images/case_000.nii.gz"}


def run(options: Namespace) -> None:
    """Make up sites, train twice, write the page."""
    say = voice(options)
    folder = options.output or Path(f"fedbcs-demo-{options.task}")
    check_folder_can_be(folder)
    if folder.exists() and any(folder.iterdir()) and not options.overwrite:
        raise UserError(f"{folder}: is not empty; replace an earlier demo with --overwrite, or name another -o")
    started = time.perf_counter()
    sites = make_sites(folder / "data", options.task, options.seed, say)
    runs = []
    for name, overrides in {"FedAvg": {}, "FedBCS": FEDBCS}.items():
        say.note(f"training {name}")
        config = demo_config(options, {**overrides, "sites": str(sites), "output": str(folder / name.lower())})
        runs.append(train(config, overwrite=True, watch=say))
    page = write_report(
        runs,
        folder / "report.html",
        title=f"FedBCS demo: made-up {options.task} at five hospitals",
        commands=next_commands(folder, options.task),
        notes=[
            "These images are made up by a program; no patient is shown, and no figure here says anything about one."
        ],
    )
    say.note(f"done in {(time.perf_counter() - started) / 60:.1f} minutes")
    say.result("report", path=page)


def make_sites(folder: Path, task: str, seed: int, say: Quiet) -> Path:
    """Made-up images of five sites, one of them never trained on, and their site list."""
    say.note(f"making up {CASES[task]} cases for each of five sites")
    synthesise(folder, task, cases=CASES[task], seed=seed, progress=say.note)
    path = folder / "sites.json"
    write_sites(path, list_sites(folder, unseen=[UNSEEN], seed=seed), task)
    return path


def demo_config(options: Namespace, overrides: Mapping[str, Any]) -> Settings:
    """The demo's configuration under the options."""
    given = {"seed": options.seed, "device": options.device, **overrides}
    if options.rounds is not None:
        given["rounds"] = options.rounds
    return load_config(f"demo_{options.task}", given)


def next_commands(folder: Path, task: str) -> list[tuple[str, str]]:
    """What to do next, and the commands that do it."""
    where = shlex.quote(str(folder))
    return [
        ("Segment an image with the trained model",
         f"fedbcs predict {where}/fedbcs -i {where}/data/{UNSEEN}/{IMAGES[task]} -o {where}/masks"),
        ("Score a model again, case by case", f"fedbcs evaluate {where}/fedbcs -o {where}/scores.csv"),
        ("List your own sites: a folder for each, with images/ and masks/", "fedbcs sites YOUR_FOLDER -o sites.json"),
        ("Train on them", f"fedbcs train {task}_fedbcs --sites sites.json -o runs/fedbcs"),
        ("Compare with federated averaging",
         f"fedbcs train {task}_fedavg --sites sites.json -o runs/fedavg && fedbcs report runs/fedavg runs/fedbcs"),
    ]  # fmt: skip
