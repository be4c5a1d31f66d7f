"""``fedbcs demo``: train FedAvg and FedBCS on synthetic sites, and write a report."""

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from fedbcs_monai.cli.options import NORMAL, OUTPUT, Device, Verbosity
from fedbcs_monai.errors import UserError

if TYPE_CHECKING:
    from fedbcs_monai.cli.console import QuietConsole

CASES = {"nuclei": 24, "prostate": 10}
"""Synthetic cases per site."""

IMAGES = {"nuclei": "images/case_000.png", "prostate": "images/case_000.nii.gz"}


def demo(
    *,
    task: Literal["nuclei", "prostate"] = "prostate",
    output: Annotated[Path | None, OUTPUT] = None,
    seed: int = 0,
    rounds: int | None = None,
    device: Device = "auto",
    overwrite: bool = False,
    verbosity: Verbosity = NORMAL,
) -> None:
    """Compare FedAvg and FedBCS on synthetic sites: no data needed, some five minutes on two cores.

    Args:
        task: task of the synthetic images
        output: folder (default: fedbcs-demo-TASK)
        seed: of the images and the training
        rounds: federated rounds (default: what fits five minutes)
        overwrite: replace an earlier demo in the folder
    """
    from fedbcs_monai.backends.local import train
    from fedbcs_monai.config import load_config
    from fedbcs_monai.files import check_folder_can_be
    from fedbcs_monai.report import write_report

    console = verbosity.console()
    folder = output or Path(f"fedbcs-demo-{task}")
    check_folder_can_be(folder)
    if folder.exists() and any(folder.iterdir()) and not overwrite:
        raise UserError(f"{folder}: is not empty; replace an earlier demo with --overwrite, or name another -o")
    started = time.perf_counter()
    listed = make_sites(folder / "data", task, seed, console)
    given = {"seed": seed, "device": device, "sites": str(listed), **({} if rounds is None else {"rounds": rounds})}
    runs = []
    for name in ("FedAvg", "FedBCS"):
        console.note(f"training {name}")
        config = load_config(task, {**given, "method": name, "output": str(folder / name.lower())}, size="demo")
        runs.append(train(config, overwrite=True, callbacks=console))
    page = write_report(
        runs,
        folder / "report.html",
        title=f"FedBCS demo: synthetic {task} at five hospitals",
        commands=next_commands(folder, task),
        notes=["These images are synthetic; no patient is shown, and no figure here says anything about one."],
    )
    seconds = time.perf_counter() - started
    console.result("done", f"in {seconds / 60:.1f} minutes", seconds=seconds)
    console.result("report", path=page)


def make_sites(folder: Path, task: str, seed: int, console: "QuietConsole") -> Path:
    """Synthetic images of five sites, one of them never trained on, and their site list."""
    from fedbcs_monai.data.prepare import list_sites
    from fedbcs_monai.data.sites import write_sites
    from fedbcs_monai.demo.synthetic import UNSEEN, synthesise

    console.note(f"synthesising {CASES[task]} cases for each of five sites")
    synthesise(folder, task, cases=CASES[task], seed=seed, progress=console.note)
    path = folder / "sites.json"
    write_sites(path, list_sites(folder, unseen=[UNSEEN], seed=seed), task)
    return path


def next_commands(folder: Path, task: str) -> list[tuple[str, str]]:
    """What to do next, and the commands that do it."""
    from fedbcs_monai.demo.synthetic import UNSEEN

    where = shlex.quote(str(folder))
    return [
        ("Segment an image with the trained model",
         f"fedbcs predict {where}/fedbcs -i {where}/data/{UNSEEN}/{IMAGES[task]} -o {where}/masks"),
        ("Score a model again, case by case", f"fedbcs evaluate {where}/fedbcs -o {where}/scores.csv"),
        ("List your own sites: a folder for each, with images/ and masks/", "fedbcs sites YOUR_FOLDER -o sites.json"),
        ("Train on them", f"fedbcs train {task} --method FedBCS --sites sites.json -o runs/fedbcs"),
        ("Compare with federated averaging",
         f"fedbcs train {task} --method FedAvg --sites sites.json -o runs/fedavg && "
         "fedbcs report runs/fedavg runs/fedbcs"),
    ]  # fmt: skip
