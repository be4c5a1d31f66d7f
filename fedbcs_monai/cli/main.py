"""Main: the options of every command, and the way to the one that was asked for."""

import argparse
import logging
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from fedbcs_monai.cli.refused import refused
from fedbcs_monai.errors import UserError
from fedbcs_monai.settings import KEYS
from fedbcs_monai.version import __version__

INTERRUPTED = 130


class _Once(argparse.Action):
    """An option with one value: given twice, one of the two would be dropped in silence, so it is refused."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: str | None = None
    ) -> None:
        """Keep the value."""
        given: set[str] = vars(namespace).setdefault("given", set())
        if option and self.dest in given:
            raise argparse.ArgumentError(self, "is given more than once; give it once")
        given.add(self.dest)
        setattr(namespace, self.dest, values)


class _Parser(argparse.ArgumentParser):
    """A parser that drops no value: `_Once` for options with one value, and `several` for those with more."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.register("action", None, _Once)

    def several(self, *flags: str, **settings: Any) -> None:
        """An option of one or more values, given both ways: ``--unseen A B`` and ``--unseen A --unseen B``."""
        self.add_argument(*flags, nargs="+", action="extend", **settings)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command.

    Returns:
        0, or 1 when a run of a benchmark failed, or 2 when there is something for the user to mend, or 130 when
        interrupted.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command not in ("train", "benchmark", "flare"):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command is None:
        parser.print_help()
        return 0
    options.overrides = rest
    _hush()
    try:
        # Imported only now, because a command's libraries take seconds and `--help` should not.
        return int(import_module(f"fedbcs_monai.cli.{options.command}").run(options) or 0)
    except UserError as error:
        print(f"fedbcs {options.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"fedbcs {options.command}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except OSError as error:
        return refused(options.command, error)


def _hush() -> None:
    """Keep what libraries say about themselves from a user who cannot mend it; our own warnings stay."""
    warnings.simplefilter("ignore")
    warnings.filterwarnings("default", module="fedbcs_monai")
    warnings.showwarning = lambda message, *_, **__: print(f"fedbcs: {message}", file=sys.stderr)
    for library in ("monai", "tifffile"):
        logging.getLogger(library).setLevel(logging.ERROR)


def _parser() -> _Parser:
    parser = _Parser(
        prog="fedbcs",
        description="Train one segmentation network across hospitals that cannot share images.",
        epilog="`fedbcs COMMAND --help` explains a command. Start with `fedbcs demo`.",
    )
    parser.add_argument("--version", action="version", version=f"fedbcs {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    _demo(commands)
    _sites(commands)
    _train(commands)
    _benchmark(commands)
    _flare(commands)
    _evaluate(commands)
    _familiarity(commands)
    _predict(commands)
    _bundle(commands)
    _report(commands)
    return parser


def _command(commands: "argparse._SubParsersAction[_Parser]", name: str, help: str, epilog: str = "") -> _Parser:
    return commands.add_parser(
        name, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def _demo(commands: "argparse._SubParsersAction[_Parser]") -> None:
    demo = _command(
        commands,
        "demo",
        "made-up sites, FedAvg against FedBCS, and a report: no data needed, at most five minutes on two cores",
    )
    demo.add_argument("--task", choices=["nuclei", "prostate"], default="prostate", help="default: prostate")
    demo.add_argument("-o", "--output", type=Path, default=None, help="folder (default: fedbcs-demo-TASK)")
    demo.add_argument("--seed", type=int, default=0)
    demo.add_argument("--rounds", type=int, default=None, help="federated rounds (default: what fits five minutes)")
    demo.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    demo.add_argument("--overwrite", action="store_true", help="replace an earlier demo in the folder")
    _loudness(demo)


def _sites(commands: "argparse._SubParsersAction[_Parser]") -> None:
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
    sites.several("--unseen", default=[], metavar="SITE", help="sites that are only tested")
    sites.add_argument(
        "--train-share", type=float, default=1.0, metavar="SHARE",
        help="list this share of each site's training patients alone, as 0.25 (default: 1)",
    )  # fmt: skip
    sites.add_argument("--modality", default="", help="such as MR or H&E, for reports")
    sites.add_argument("--overwrite", action="store_true", help="replace the site list")
    _loudness(sites)


def _train(commands: "argparse._SubParsersAction[_Parser]") -> None:
    keys = "\n".join(f"  --{key:18} {about.help}" for key, about in KEYS.items() if key != "output")
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
    train.add_argument(
        "--dry-run",
        action="store_true",
        help="build everything, make one step at one site, say what would run, and stop",
    )
    _trust(train)
    _loudness(train)


def _benchmark(commands: "argparse._SubParsersAction[_Parser]") -> None:
    benchmark = _command(
        commands,
        "benchmark",
        "train methods, seeds and folds, and write the paper's tables and a page: runs that are finished are kept",
        epilog="CONFIG lists trainings and what they are compared for; benchmark_small, benchmark_long,\n"
        "benchmark_outside, benchmark_shift, benchmark_batch, benchmark_study and benchmark_paper are shipped.\n"
        "Keys of a run are options too, laid over every run:\n"
        "  fedbcs benchmark benchmark_paper --tasks nuclei --sites nuclei.json --methods fedavg fedbcs --rounds 50\n"
        "Interrupted, every run leaves a checkpoint, and the same command goes on (without --overwrite).",
    )
    benchmark.add_argument("config", help="a YAML file, or the name of a shipped benchmark")
    benchmark.add_argument("-o", "--output", type=Path, default=None, help="folder (default: runs/CONFIG)")
    benchmark.several("--sites", metavar="[TASK=]FILE", help="site list of each task")
    benchmark.several("--tasks", metavar="TASK", help="only these tasks")
    benchmark.several("--methods", metavar="NAME", help="only these trainings, and no sweep")
    benchmark.several(
        "--parts",
        choices=["methods", "bounds", "ablation", "sweep", "style", "leave_one_out"],
        help="only these tables",
    )
    benchmark.several("--seeds", type=int, help="of every training")
    benchmark.several("--folds", type=int, help="of the site lists")
    benchmark.add_argument(
        "--leave-one-site-out",
        action="store_true",
        help="also train every method without each site in turn, and test it there",
    )
    benchmark.add_argument("-j", "--jobs", type=int, default=1, help="runs at once, each a process (default: 1)")
    benchmark.add_argument("--overwrite", action="store_true", help="begin every run anew")
    benchmark.add_argument("--tables-only", action="store_true", help="only tables and page, of the runs that are done")
    benchmark.add_argument("--dry-run", action="store_true", help="list the runs and their work, and stop")
    _trust(benchmark)
    _loudness(benchmark)


def _flare(commands: "argparse._SubParsersAction[_Parser]") -> None:
    flare = _command(
        commands,
        "flare",
        "run a federation with NVFlare: simulate it, or export, submit, watch, fetch and resume a job",
        epilog="`fedbcs flare ACTION --help` explains an action; docs/how-to/nvflare.md walks through a consortium.",
    )
    actions = flare.add_subparsers(dest="action", required=True, metavar="ACTION")
    simulate = _command(actions, "simulate", "train in NVFlare's simulator, every site in processes of its own")
    simulate.add_argument("config", help="as for `fedbcs train`; every key of it is an option here too")
    simulate.add_argument("-o", "--output", type=Path, default=None, help="run folder (default: runs/CONFIG)")
    simulate.add_argument("--overwrite", action="store_true", help="replace the run in the folder")
    export = _command(actions, "export", "write a job, in which there is neither code nor a path")
    export.add_argument("config", help="as for `fedbcs train`; every key of it is an option here too")
    export.add_argument("-o", "--output", type=Path, required=True, help="job folder")
    export.add_argument("--job-name", default="fedbcs", help="default: fedbcs")
    export.add_argument("--run-id", default=None, help="one job goes on where another with the same id stopped")
    for action in (simulate, export):
        _trust(action)
        action.add_argument("--statistics", action="store_true", help="of the sites' cases, instead of a training")
        action.add_argument(
            "--min-responses", type=int, default=None, metavar="N", help="sites that must answer (default: 2)"
        )
        action.add_argument(
            "--round-timeout-s", type=int, default=None, metavar="S", help="longest time for a question (default: 7200)"
        )
        action.add_argument(
            "--wait-s", type=int, default=None, metavar="S", help="then wait for the others (default: 600)"
        )
        action.add_argument(
            "--restarts", type=int, default=None, metavar="N", help="of a killed trainer, a question (default: 3)"
        )
        action.add_argument("--cross-site", action="store_true", default=None, help="sites test each other's networks")
        action.add_argument(
            "--offload-mib", type=int, default=None, metavar="MIB", help="updates wait on disk from here (default: 256)"
        )
        action.add_argument(
            "--poll-s", type=float, default=None, metavar="S", help="a site asks for work so often (default: 0.2)"
        )
        action.several("--track", choices=["tensorboard", "mlflow"], help="with NVFlare's own trackers")
    submit = _command(actions, "submit", "submit an exported job")
    submit.add_argument("job", type=Path, help="job folder")
    submit.add_argument("--startup-kit", type=Path, required=True, metavar="DIR", help="of an admin")
    submit.add_argument("-o", "--output", type=Path, default=None, help="run folder (default: runs/JOB)")
    status = _command(actions, "status", "say how a submitted run is doing")
    status.add_argument("--wait", action="store_true", help="until it has ended")
    for action in (
        status,
        _command(actions, "abort", "stop a submitted run; the server keeps a checkpoint"),
        _command(actions, "download", "fetch the results of a submitted run into its folder, and write its page"),
        _command(actions, "resume", "go on with a run that has failed, been stopped, or lost its server"),
    ):
        action.add_argument("run", type=Path, help="run folder")
        _loudness(action)
    policy = _command(actions, "site-policy", "let the party of a startup kit run our jobs")
    policy.add_argument("kits", type=Path, nargs="+", metavar="KIT", help="startup kit of a server or a site")
    policy.add_argument("--sites", type=Path, default=None, help="site list to be named in the site file")
    project = _command(actions, "project", "write a project.yml to provision a consortium from")
    project.add_argument("clients", nargs="*", metavar="SITE", help="names of the sites (default: three hospitals)")
    project.add_argument("-o", "--output", type=Path, default=Path("project.yml"), help="default: project.yml")
    project.add_argument("--overwrite", action="store_true", help="replace the file")
    for action in (simulate, export, submit, policy, project):
        _loudness(action)


def _evaluate(commands: "argparse._SubParsersAction[_Parser]") -> None:
    evaluate = _command(commands, "evaluate", "score a trained run on the cases of a site list, on their own grids")
    evaluate.add_argument("run", type=Path, help="run folder")
    evaluate.add_argument("--sites", type=Path, default=None, help="site list (default: the run's own)")
    evaluate.add_argument("--part", choices=["train", "val", "test"], default="test", help="default: test")
    evaluate.add_argument("--fold", type=int, default=None, help="fold of the site list (default: the run's own)")
    evaluate.add_argument("--model", choices=["selected", "last"], default="selected", help="default: selected")
    evaluate.add_argument(
        "--site",
        default=None,
        metavar="NAME",
        help="score every site with what site NAME keeps of the network to itself, as with FedBN or LocalOnly "
        "(default: each site with what it keeps itself, others with the global network)",
    )
    evaluate.add_argument("-o", "--output", type=Path, default=None, help="also write every case's scores to this CSV")
    evaluate.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    evaluate.add_argument("--overwrite", action="store_true", help="replace the CSV")
    _trust(evaluate)
    _loudness(evaluate)


def _familiarity(commands: "argparse._SubParsersAction[_Parser]") -> None:
    familiarity = _command(
        commands,
        "familiarity",
        "let a finished run learn how cases look at its sites, so that it can warn of images unlike them",
        epilog="A run that is trained now does so by itself. Needs the images of all sites on this machine.",
    )
    familiarity.add_argument("run", type=Path, help="run folder")
    familiarity.add_argument("--sites", type=Path, default=None, help="site list (default: the run's own)")
    familiarity.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    familiarity.add_argument("--overwrite", action="store_true", help="learn it anew")
    _trust(familiarity)
    _loudness(familiarity)


def _predict(commands: "argparse._SubParsersAction[_Parser]") -> None:
    predict = _command(
        commands,
        "predict",
        "segment new images; every mask lies on its image's own grid",
        epilog="The input is an image (NIfTI, NRRD, MHA; PNG, TIFF, JPEG, BMP), a folder with images directly in it,\n"
        "a DICOM file, folder or tree, a pattern in quotes, or a CSV with the column image, and if wanted name and\n"
        "series. Where a folder holds several DICOM series and not just one fits the model, they are listed, and\n"
        "--series names the one that is meant. Outputs are named after the input, never after what is written in it.",
    )
    predict.add_argument(
        "model",
        type=Path,
        nargs="*",
        action="extend",
        default=[],
        help="run folder, bundle or model file; several: an ensemble",
    )
    predict.several("-m", dest="model", type=Path, default=[], help="the same, to stand anywhere: -m A -m B")
    predict.several("-i", "--input", required=True, help="what to segment")
    predict.add_argument("-o", "--output", type=Path, required=True, help="folder, or a file for a single image")
    predict.several(
        "-ot",
        "--output-type",
        choices=["own", "nifti", "dicom_seg", "dicom_rtstruct"],
        help="of the masks; own, the default, is the image's own kind of file, and NIfTI for DICOM",
    )
    predict.add_argument("-p", "--probability", action="store_true", help="also write a map of the probability")
    predict.several("--series", default=[], help="DICOM series by number or UID, or all")
    predict.add_argument("--tta", action="store_true", help="average over mirror images: four times the work")
    predict.add_argument("--model", dest="which", choices=["selected", "last"], default="selected")
    predict.add_argument("--site", default=None, help="the network as this site uses it (default: the global one)")
    predict.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    predict.add_argument("--no-overlay", action="store_true", help="leave out the pictures")
    predict.add_argument("--resume", action="store_true", help="keep what is done, and do the rest")
    predict.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    _trust(predict)
    _loudness(predict)


def _bundle(commands: "argparse._SubParsersAction[_Parser]") -> None:
    bundle = _command(
        commands,
        "bundle",
        "make a MONAI bundle of a finished run: weights, TorchScript, ONNX, workflows and model card",
        epilog="The file of --about is JSON or YAML, laid over the bundle's metadata: authors, copyright,\n"
        "data_source, intended_use, and whatever else hosts and readers should know.",
    )
    bundle.add_argument("run", type=Path, help="run folder")
    bundle.add_argument("-o", "--output", type=Path, required=True, help="folder; its name is the bundle's")
    bundle.add_argument("--zip", action="store_true", help="write OUTPUT.zip with the folder inside, instead of it")
    bundle.add_argument("--model", dest="which", choices=["selected", "last"], default="selected")
    bundle.add_argument("--site", default=None, help="the network as this site uses it, where sites keep parts of it")
    bundle.add_argument("--about", type=Path, default=None, metavar="FILE", help="what else to say of the bundle")
    bundle.add_argument("--overwrite", action="store_true", help="replace the bundle that is there")
    _trust(bundle)
    _loudness(bundle)


def _report(commands: "argparse._SubParsersAction[_Parser]") -> None:
    report = _command(commands, "report", "one self-contained page of a run, or of several runs side by side")
    report.add_argument("runs", type=Path, nargs="+", help="run folders of the same sites")
    report.add_argument("-o", "--output", type=Path, default=None, help="page (default: report.html in the first run)")
    report.add_argument("--title", default=None)
    report.add_argument("--figures", type=Path, default=None, metavar="DIR", help="also every figure: PDF, SVG, PNG")
    _loudness(report)


def _trust(command: _Parser) -> None:
    command.several(
        "--trust",
        default=[],
        metavar="NAME",
        help="let the configuration use these classes, or all of these packages, besides the allow-list",
    )


def _loudness(command: _Parser) -> None:
    loudness = command.add_mutually_exclusive_group()
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    loudness.add_argument("--json", action="store_true", help="say everything as one JSON object a line")
