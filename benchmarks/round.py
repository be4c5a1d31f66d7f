"""Round: how much of a federated round is not training.

    python benchmarks/round.py

Runs the in-process driver's parts (`set_up`, `ask_in_process`, `aggregator_of`, `RunWriter`, `write_checkpoint`) on
synthetic nuclei of four sites, as `fedbcs train` does between two evaluations, and times each part from outside.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from conditions import close, conditions, finish, say, script, table

from fedbcs_monai.backends.local import ask_in_process
from fedbcs_monai.config import load_config
from fedbcs_monai.data import Case, SiteData, write_sites
from fedbcs_monai.data.sites import sha256
from fedbcs_monai.demo.synthetic import SITES, UNSEEN, synthesise
from fedbcs_monai.federated import method as base
from fedbcs_monai.federated import site as site_module
from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.federated.server import aggregator_of
from fedbcs_monai.methods import FedBCS
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.runs.checkpoint import Checkpoint, write_checkpoint
from fedbcs_monai.runs.setup import Federation, set_up
from fedbcs_monai.runs.writer import RunWriter

PARTS = {
    "training": "steps: forward, loss, backward, optimizer",
    "loading": "augmentation and batches",
    "copying": "weights in and out of the network, the optimizer's state",
    "aggregation": "mean of the updates",
    "clustering": "FINCH of the prototypes",
    "checkpointing": "tensors to disk, with fsync and checksum",
    "rest": "everything else of a round: messages, seeds, journal, prototypes of a site",
}


class Stopwatch:
    """Seconds of each part; a part that another one is called from does not count its seconds."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._open: list[str] = []
        self._since = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time what happens inside."""
        self._charge()
        self._open.append(name)
        try:
            yield
        finally:
            self._charge()
            self._open.pop()

    def timing(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return timed

    def reading(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function that returns something iterable, with every item timed."""

        def items(*args: Any, **kwargs: Any) -> Iterator[Any]:
            with self.part(name):
                iterator = iter(function(*args, **kwargs))
            while True:
                with self.part(name):
                    item = next(iterator, None)
                if item is None:
                    return
                yield item

        return items

    def _charge(self) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


def main() -> None:
    """Parse, measure, print."""
    options = parse()
    found = conditions(torch.device(options.device), options.seed)
    results = []
    with tempfile.TemporaryDirectory() as folder:
        sites = make_sites(Path(folder), options)
        for name in options.methods:
            results.append(measure(name, sites, Path(folder) / name, options))
    found["threads"] = torch.get_num_threads()
    close(found)
    finish(found, results, "\n\n".join(shown(result) for result in results), options.json)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["FedAvg", "FedBCS"])
    parser.add_argument("--cases", type=int, default=12, help="training cases a site")
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds, after one that is not timed")
    parser.add_argument("--features", type=int, nargs=5, help="widths; default: those of the task")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def make_sites(folder: Path, options: argparse.Namespace) -> Path:
    """Four synthetic sites whose cases are all for training, and their site list."""
    synthesise(folder / "nuclei", "nuclei", options.cases, options.seed)
    sites = []
    for name in SITES:
        if name == UNSEEN:
            continue
        cases = []
        for image in sorted((folder / "nuclei" / name / "images").glob("*.png")):
            label = folder / "nuclei" / name / "masks" / image.name
            paths = [path.relative_to(folder / "nuclei").as_posix() for path in (image, label)]
            digests = {"image": sha256(image), "label": sha256(label)}
            cases.append(Case(f"{name}_{image.stem}", *paths, "train", digests))
        sites.append(SiteData(name, "H&E", folder / "nuclei", tuple(cases)))
    write_sites(folder / "nuclei" / "sites.json", sites, "nuclei")
    return folder / "nuclei" / "sites.json"


def measure(name: str, sites: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds of the parts of some rounds of a method."""
    overrides = {"sites": str(sites), "output": str(folder), "device": options.device, "seed": options.seed}
    overrides |= {"threads": options.threads} if options.threads else {}
    overrides |= {"network_def::features": options.features} if options.features else {}
    config = load_config("nuclei", {"method": name, **overrides})
    folder.mkdir()
    federation = set_up(config)
    rounds = run(federation, config, RunWriter(folder), options.rounds)
    for seconds in rounds:
        total = sum(seconds.values())
        say(f"{name}: round of {total:.1f} s, {1 - seconds['training'] / total:.1%} not training")
    steps = sum(-(-site.cases // config.batch_size) for site in federation.sites)
    return {"method": name, "sites": len(federation.sites), "steps_per_round": steps, "rounds": rounds}


def run(federation: Federation, config: dict[str, Any], writer: RunWriter, rounds: int) -> list[dict[str, float]]:
    """What the driver does in a round, timed; the first, which has no prototypes and a cold cache, is left out."""
    taken = []

    def heard(broadcast: Broadcast, update: Update) -> None:
        writer.log(broadcast.round, update.site, update.metrics)

    aggregator = aggregator_of(federation.method, federation.network, federation.start)
    aggregator.on_update = heard
    for number in range(1 + rounds):
        callbacks = Stopwatch()
        with timed(callbacks, federation), callbacks.part("rest"):
            (state,) = aggregator.rounds(ask_in_process(federation), number + 1)
            with callbacks.part("checkpointing"):
                point = Checkpoint(state, {site.name: site.state() for site in federation.sites}, {"seconds": 0.0})
                write_checkpoint(writer.folder / "checkpoints", point, config.keep_checkpoints)
        taken.append(callbacks.seconds)
    writer.close()
    return taken[1:]


@contextmanager
def timed(callbacks: Stopwatch, federation: Federation) -> Iterator[None]:
    """Time the parts of a round from outside; the package is as it was afterwards."""
    with ExitStack() as stack:

        def replace(holder: Any, name: str, part: str, wrap: Callable[..., Any] = callbacks.timing) -> None:
            stack.enter_context(patch.object(holder, name, wrap(part, getattr(holder, name))))

        replace(base.Method, "step", "training")
        for site in federation.sites:
            replace(site, "batches", "loading", callbacks.reading)
        replace(Segmenter, "load_state_dict", "copying")
        for name in ("detached", "moments_of", "restore_moments"):
            replace(site_module, name, "copying")
        # The mean asks for the next update itself: the parts inside are not charged to it.
        replace(base, "mean", "aggregation")
        replace(federation.sites[0].__class__, "answer", "rest")
        replace(FedBCS, "share", "clustering")
        yield


def shown(result: dict[str, Any]) -> str:
    """A Markdown table of one method."""
    rounds = result["rounds"]
    total = sum(sum(seconds.values()) for seconds in rounds)
    header = ["part", "seconds a round", "share", "share by round", "what it is"]
    rows = []
    for part, meaning in PARTS.items():
        shares = [seconds[part] / sum(seconds.values()) for seconds in rounds]
        spent = sum(seconds[part] for seconds in rounds)
        each = f"{min(shares):.2%} to {max(shares):.2%}"
        rows.append([part, f"{spent / len(rounds):.3f}", f"{spent / total:.2%}", each, meaning])
    training = sum(seconds["training"] for seconds in rounds)
    return (
        f"{result['method']}, {result['sites']} sites, {result['steps_per_round']} steps per round,"
        f" {len(rounds)} rounds: {1 - training / total:.1%} of a round is not training.\n\n{table(header, rows)}"
    )


if __name__ == "__main__":
    script(main)
