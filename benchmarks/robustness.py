"""Robustness: Dice of the honest sites where one site is hostile, by attack and rule of aggregation.

    python benchmarks/robustness.py
    python benchmarks/robustness.py --task prostate --sites sites.json --size small --rounds 20

Without `--sites`, synthetic sites are written to a temporary folder and a tiny network is trained. The last site by
name is hostile in every round. Updates pass the checks of the server, which refuse some attacks before any rule sees
them; with `--unchecked` they do not, so that a rule is all there is.

Attacks that train wrongly (label flip, model replacement, count) see foreground and background exchanged. Model
replacement then multiplies the step by the number of sites, the inflated count the number of cases by 500.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
import yaml
from conditions import close, conditions, finish, say, script, table

from fedbcs_monai.backends.local import sessions_of
from fedbcs_monai.config import load_config
from fedbcs_monai.data.prepare import list_sites
from fedbcs_monai.data.sites import write_sites
from fedbcs_monai.demo.synthetic import UNSEEN, synthesise
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregation import RULES, RobustRule, rule_of
from fedbcs_monai.federated.messages import Broadcast, Update
from fedbcs_monai.federated.method import Batch
from fedbcs_monai.federated.server import aggregator_of
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.federated.site import Site
from fedbcs_monai.runs.process import prepare_training
from fedbcs_monai.runs.setup import set_up

TINY = {
    "network_def::features": [8, 8, 16, 16, 16],
    "batch_size": 4,
    "device": "cpu",
    "threads": 1,
}
TINY_TASKS = {
    "nuclei": {
        "preprocessing::transforms::1::spatial_size": [64, 64],
        "augmentation::transforms::0::roi_size": [64, 64],
        "inferer::roi_size": [64, 64],
    },
    "prostate": {"preprocessing::transforms::2::spatial_size": [64, 64, -1], "slicing::foreground_only": True},
}
COUNT = 500
"""Times the true number of cases: within what the server accepts."""


class Attack(NamedTuple):
    """What a hostile site does.

    Args:
        factor: its step times this.
        noise: Gaussian noise instead of its step, as a multiple of the step's own deviation.
        flipped: whether it trains with foreground and background exchanged.
        count: its number of cases times this.
        prototypes: what it sends besides the weights times this.
    """

    factor: float = 1.0
    noise: float = 0.0
    flipped: bool = False
    count: int = 1
    prototypes: float = 1.0


ATTACKS: Mapping[str, Callable[[int], Attack]] = {
    "none": lambda sites: Attack(),
    "sign flip": lambda sites: Attack(factor=-1),
    "x10": lambda sites: Attack(factor=10),
    "x100": lambda sites: Attack(factor=100),
    "noise": lambda sites: Attack(noise=10),
    "label flip": lambda sites: Attack(flipped=True),
    "model replacement": lambda sites: Attack(flipped=True, factor=sites),
    "inflated count": lambda sites: Attack(flipped=True, count=COUNT),
    "prototypes x1000": lambda sites: Attack(prototypes=1000),
}
"""From the number of sites to what the hostile one does."""


class Result(NamedTuple):
    """One training.

    Fields:
        dice: mean over honest sites of the mean over their test cases.
        refused: in how many rounds the server refused the hostile update.
    """

    dice: float
    refused: int


def main() -> None:
    """Train, and print a table for each method."""
    options = parse()
    torch.set_num_threads(1)
    found = conditions(torch.device(options.device), options.seed)
    with tempfile.TemporaryDirectory() as folder:
        sites = options.sites or synthetic(Path(folder), options)
        results = {
            method: {
                attack: {rule: measured(method, rule, attack, sites, options) for rule in options.rules}
                for attack in options.attacks
            }
            for method in options.methods
        }
    close(found)
    parts = [f"### {method}\n\n{shown(of_method, options.rules)}" for method, of_method in results.items()]
    parts.append("Mean Dice of honest sites, test cases, last round; in brackets in how many rounds the server refused "
                 "the hostile update; - where the rule is not defined for so many sites.")  # fmt: skip
    finish(found, results, "\n\n".join(parts), options.json)


def parse() -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TINY_TASKS), default="nuclei")
    parser.add_argument("--size", default="", help="of the task, with --sites")
    parser.add_argument("--sites", type=Path, default=None, help="site list of real data; the network is the task's")
    parser.add_argument("--cases", type=int, default=8, help="of each synthetic site")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--lr", type=float, default=None, help="learning rate; by default that of the task")
    parser.add_argument("--methods", nargs="+", default=["FedAvg", "FedBCS"])
    parser.add_argument("--rules", nargs="+", default=list(RULES), help="such as krum or '{krum: 0}'")
    parser.add_argument("--attacks", nargs="+", choices=list(ATTACKS), default=list(ATTACKS))
    parser.add_argument("--unchecked", action="store_true", help="let every update reach the rule")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=None, help="also write all that was measured to this file")
    options = parser.parse_args()
    for rule in options.rules:
        rule_of(yaml.safe_load(rule))
    return options


def synthetic(folder: Path, options: argparse.Namespace) -> Path:
    """A list of four synthetic sites."""
    synthesise(folder, options.task, cases=options.cases, size=64, seed=options.seed)
    sites = [site for site in list_sites(folder, unseen=[UNSEEN]) if site.name != UNSEEN]
    write_sites(folder / "sites.json", sites, options.task)
    return folder / "sites.json"


def measured(method: str, rule: str, attack: str, sites: Path, options: argparse.Namespace) -> Result | None:
    """Train once; None if the rule is not defined for so many sites."""
    small = {} if options.sites else {**TINY, **TINY_TASKS[options.task]}
    if small and method.startswith("FedBCS"):
        small = {**small, "network_def::context::width": 8}
    step = {} if options.lr is None else {"optimizer::lr": options.lr}
    named = {"method": method, "method::aggregation": yaml.safe_load(rule), "sites": str(sites), "seed": options.seed}
    keys = {**named, **small, **step, "rounds": options.rounds, "device": options.device}
    settings = load_config(options.task, keys, size=options.size)
    prepare_training(settings)
    federation = set_up(settings)
    sessions, chosen = sessions_of(federation), rule_of(yaml.safe_load(rule))
    if len(sessions) < 2:
        raise UserError(f"{sites}: {len(sessions)} sites train; one is hostile, and another must be honest")
    if isinstance(chosen, RobustRule) and chosen.min_sites(len(sessions)) > len(sessions):
        return None
    hostile = sessions[-1]
    plan = ATTACKS[attack](len(sessions))
    if plan.flipped:
        hostile.site.batches = partial(flipped, hostile.site.batches)
    refused: set[int] = set()
    ask = partial(asked, sessions, hostile.site, plan)
    state = federation.start
    if options.unchecked:
        for _ in range(options.rounds):
            state = federation.method.round(state, ask)
    else:
        server = aggregator_of(federation.method, federation.network, state)
        server.refused = lambda broadcast, site, reason: refused.add(broadcast.round)
        *_, state = server.rounds(ask, options.rounds)
    federation.network.load_state_dict(dict(state.weights))
    federation.network.eval()
    with hostile.site.compute.inference():
        honest = [s.site.name for s in sessions[:-1] if s.site.name in federation.scorers]
        scores = [federation.scorers[name].mean_dice(federation.network) for name in honest]
    result = Result(sum(scores) / len(scores), len(refused))
    say(json.dumps([method, rule, attack, round(result.dice, 3), result.refused]))
    return result


def flipped(batches: Callable[[int], Iterable[Batch]], seed: int) -> Iterable[Batch]:
    """Batches with foreground and background exchanged."""
    return ({**batch, "label": (batch["label"] == 0).to(batch["label"].dtype)} for batch in batches(seed))


def asked(sessions: Iterable[ClientSession], hostile: Site, attack: Attack, broadcast: Broadcast) -> Iterable[Update]:
    """The answers of all sites, that of the hostile one as it wants it."""
    for session in sessions:
        update = session.answer(broadcast)
        yield attacked(update, broadcast, attack) if session.site is hostile else update


def attacked(update: Update, broadcast: Broadcast, attack: Attack) -> Update:
    """What a hostile site sends instead of an update; the step of trained weights and buffers alike is changed."""
    drawn = torch.Generator().manual_seed(broadcast.round)
    weights = dict(update.weights)
    for name, after in update.weights.items():
        if after.is_floating_point():
            before = broadcast.weights[name]
            step = after - before
            if attack.noise:
                deviation = step.square().mean().sqrt()
                step = attack.noise * deviation * torch.randn(step.shape, generator=drawn)
            changed = before + attack.factor * step
            weights[name] = changed.clamp_min(0) if name.endswith("running_var") else changed
    shared = {name: attack.prototypes * tensor for name, tensor in update.shared.items()}
    return replace(update, weights=weights, shared=shared, cases=update.cases * attack.count)


def shown(results: Mapping[str, Mapping[str, Result | None]], rules: list[str]) -> str:
    """A row for each attack, a column for each rule."""
    return table(["attack", *rules], [[attack, *map(_cell, of.values())] for attack, of in results.items()])


def _cell(result: Any) -> str:
    if result is None:
        return "-"
    return f"{result.dice:.2f}" + (f" ({result.refused})" if result.refused else "")


if __name__ == "__main__":
    script(main)
