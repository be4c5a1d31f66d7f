"""Main: the options of every command, and the way to the one that was asked for."""

import argparse
import logging
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from fedbcs_monai.errors import UserError
from fedbcs_monai.keys import KEYS
from fedbcs_monai.version import __version__

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0, or 2 when there is something for the user to mend, or 130 when interrupted.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command != "train":
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.overrides = rest
    _hush()
    try:
        # Imported only now, because a command's libraries take seconds and `--help` should not.
        import_module(f"fedbcs_monai.cli.{options.command}").run(options)
    except UserError as error:
        print(f"fedbcs {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fedbcs {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our output has stopped reading
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _hush() -> None:
    """Keep what libraries say about themselves from a user who cannot mend it; our own warnings stay."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module="fedbcs_monai")
    warnings.showwarning = lambda message, *_, **__: print(f"fedbcs: {message}", file=sys.stderr)
    logging.getLogger("monai").setLevel(logging.ERROR)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fedbcs",
        description="Train one segmentation network across hospitals that cannot share images.",
        epilog="`fedbcs COMMAND --help` explains a command. Start with `fedbcs demo`.",
    )
    parser.add_argument("--version", action="version", version=f"fedbcs {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _demo(commands)
    _sites(commands)
    _train(commands)
    _evaluate(commands)
    _predict(commands)
    _report(commands)
    return parser


def _command(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, help: str, epilog: str = ""
) -> argparse.ArgumentParser:
    return commands.add_parser(
        name, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _demo(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    demo = _command(
        commands,
        "demo",
        "made-up sites, FedAvg against FedBCS, and a report: no data needed, at most five minutes on two cores",
    )
    demo.add_argument("--task", choices=["nuclei", "prostate"], default="nuclei", help="default: nuclei")
    demo.add_argument("-o", "--output", type=Path, default=None, help="folder (default: fedbcs-demo-TASK)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--rounds", type=int, default=None, help="federated rounds (default: what fits five minutes)")
    demo.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    demo.add_argument("--overwrite", action="store_true", help="replace an earlier demo in the folder")
    _loudness(demo)


def _sites(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sites = _command(
        commands,
        "sites",
        "check a folder of sites and write the site list that everything else reads",
        epilog="The folder holds SITE/images and SITE/masks (or SITE/labels) with files of the same names:\n"
        "PNG, TIFF, JPEG, BMP, NIfTI, NRRD or MHA. A CSV of cases with the columns site, image and patient,\n"
        "given or found as cases.csv or manifest.csv, says which images are of one patient; otherwise\n"
        "every image is a patient of its own. A patient's images are never split.",
    )
    sites.add_argument("folder", type=Path)
    sites.add_argument("-o", "--output", type=Path, default=None, help="site list (default: FOLDER/sites.json)")
    sites.add_argument("--task", default="", help="name of the task, for reports")
    sites.add_argument("--cases", type=Path, default=None, metavar="CSV", help="table of cases with their patients")
    sites.add_argument("--folds", type=int, default=0, help="k folds instead of 64/16/20 train/validation/test")
    sites.add_argument("--seed", type=int, default=0, help="of the split")
    sites.add_argument("--unseen", nargs="+", default=[], metavar="SITE", help="sites that are only tested")
    sites.add_argument("--modality", default="", help="such as MR or H&E, for reports")
    sites.add_argument("--overwrite", action="store_true", help="replace the site list")
    _loudness(sites)


def _train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    keys = "\n".join(f"  --{key:18} {meaning}" for key, meaning in KEYS.items() if key not in ("stack", "output"))
    train = _command(
        commands,
        "train",
        "train a federation in this process, test it, and write a report",
        epilog=f"Every key of the configuration is an option, and so is what lies inside, with `::` between:\n"
        f"  fedbcs train nuclei_fedbcs --sites sites.json --rounds 50 --method::tau 0.1 --optimizer::lr 1e-3\n\n{keys}",
    )
    train.add_argument("config", help="a YAML or JSON file, or the name of a shipped experiment")
    train.add_argument("-o", "--output", type=Path, default=None, help="run folder (default: runs/CONFIG)")
    train.add_argument(
        "--resume",
        nargs="?",
        type=int,
        const=True,
        default=False,
        metavar="ROUND",
        help="go on from the newest checkpoint, or from that of a round",
    )
    train.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    train.add_argument("--dry-run", action="store_true", help="read and build everything, say what would run, and stop")
    _loudness(train)


def _evaluate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    evaluate = _command(commands, "evaluate", "score a trained run on the cases of a site list, on their own grids")
    evaluate.add_argument("run", type=Path, help="run folder")
    evaluate.add_argument("--sites", type=Path, default=None, help="site list (default: the run's own)")
    evaluate.add_argument("--part", choices=["train", "val", "test"], default="test", help="default: test")
    evaluate.add_argument("--fold", type=int, default=None, help="fold of the site list (default: the run's own)")
    evaluate.add_argument("--model", choices=["selected", "last"], default="selected", help="default: selected")
    evaluate.add_argument("-o", "--output", type=Path, default=None, help="also write every case's scores to this CSV")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    evaluate.add_argument("--overwrite", action="store_true", help="replace the CSV")
    _loudness(evaluate)


def _predict(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    predict = _command(commands, "predict", "segment new images; every mask lies on its image's own grid")
    predict.add_argument("model", type=Path, help="run folder, or a model.safetensors beside its config.json")
    predict.add_argument("-i", "--input", type=Path, required=True, help="an image or a folder of images")
    predict.add_argument("-o", "--output", type=Path, required=True, help="folder, or a file for a single image")
    predict.add_argument("--model", dest="which", choices=["selected", "last"], default="selected")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    predict.add_argument("--no-overlay", action="store_true", help="leave out the pictures")
    predict.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    _loudness(predict)


def _report(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    report = _command(commands, "report", "one self-contained page of a run, or of several runs side by side")
    report.add_argument("runs", type=Path, nargs="+", help="run folders of the same sites")
    report.add_argument("-o", "--output", type=Path, default=None, help="page (default: report.html in the first run)")
    report.add_argument("--title", default=None)
    _loudness(report)


def _loudness(command: argparse.ArgumentParser) -> None:
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loudness.add_argument("--json", action="store_true", help="say everything as one JSON object a line")
