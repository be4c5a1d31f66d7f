"""Simulate: every site in this process, one after the other."""

import json
import math
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedbcs_monai.config import plain, require
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.aggregator import Aggregator
from fedbcs_monai.federated.checkpoint import (
    Checkpoint,
    digest,
    drop_checkpoints_after,
    read_checkpoint,
    write_checkpoint,
)
from fedbcs_monai.federated.journal import Journal, check_folder, clear_run, environment
from fedbcs_monai.federated.setup import Federation, set_up, steps_of
from fedbcs_monai.federated.trained import WEIGHTS
from fedbcs_monai.federated.watch import Watch
from fedbcs_monai.messages import Ask, Broadcast, Update
from fedbcs_monai.tensors import read_tensors, write_tensors


def ask_in_process(federation: Federation) -> Ask:
    """Carry a broadcast to every site by calling it."""

    def ask(broadcast: Broadcast) -> Iterable[Update]:
        for site in federation.sites:
            yield site.answer(federation.method, broadcast)

    return ask


def train(
    config: Mapping[str, Any],
    *,
    resume: bool | int = False,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> Path:
    """Run a federation in this process, from the site list to tested models.

    The model is selected on validation cases, the unweighted mean over sites; the test cases are scored once, at the
    end, for the last round and the selected one. With `best_on_test` they are also followed, only to report what the
    published code reports. Interrupted, it leaves a checkpoint to resume from, and a resumed run gives the same bits.

    Args:
        config: of `load_config`.
        resume: go on from the newest checkpoint in the run folder, or from that of a round.
        overwrite: begin anew in a folder that holds a run.
        watch: hears of progress.

    Returns:
        The run folder: ``model.safetensors`` (selected), ``last.safetensors``, ``config.json``, ``environment.json``,
        ``rounds.csv``, ``scores.csv``, ``summary.json``, ``checkpoints``, ``tensorboard``, ``examples``, ``looks``.

    Raises:
        UserError: what the user can mend.
    """
    watch = watch or Watch()
    require(config, ("output",), "name a run folder")
    folder = Path(config["output"])
    if overwrite and resume is not False:
        raise UserError("resume goes on with a run and overwrite begins anew: choose one")
    check_folder(folder, overwrite, resume is not False)
    started = time.perf_counter()
    federation = set_up(config, watch)
    checkpoints = folder / "checkpoints"
    point = Checkpoint(federation.start, {}, {"seconds": 0.0})
    if resume is not False:
        _same_run(folder, config)
        point = _resumed(folder, read_checkpoint(checkpoints, None if resume is True else resume))
        drop_checkpoints_after(checkpoints, point.state.round)
        for site in federation.sites:
            site.restore(point.sites[site.name])
    else:
        clear_run(folder)
    journal = Journal(folder, since=point.state.round)
    journal.write_json("config.json", plain(config))
    journal.write_json("environment.json", environment(federation.sites[0].compute.torch_device))
    started -= point.history["seconds"]
    watch.begun(folder, config["rounds"], point.state.round, {s.name: steps_of(s, config) for s in federation.sites})
    try:
        point = _rounds(config, federation, point, journal, watch, started)
        _test(config, federation, point, journal, watch)
    finally:
        watch.finished()
        journal.close()
    return folder


def _rounds(
    config: Mapping[str, Any],
    federation: Federation,
    point: Checkpoint,
    journal: Journal,
    watch: Watch,
    started: float,
) -> Checkpoint:
    """Run the rounds that are left; on the way out, whatever the reason, the newest whole round is on disk."""
    ask = ask_in_process(federation)

    def heard(broadcast: Broadcast, update: Update) -> None:
        journal.log(broadcast.round, update.site, update.metrics)
        watch.trained(broadcast.round, update.site, update.metrics)

    aggregator = Aggregator(federation.method, point.state, heard)
    checkpoints = journal.folder / "checkpoints"
    saved = point.state.round
    try:
        for state in aggregator.rounds(ask, config["rounds"]):
            history = dict(point.history)
            if state.round % config["evaluate_every"] == 0 or state.round == config["rounds"]:
                scores = {update.site: update.metrics for update in aggregator.evaluate(ask)}
                for site, metrics in scores.items():
                    journal.log(state.round, site, metrics)
                watch.evaluated(
                    state.round, {site: metrics.get("val_dice", math.nan) for site, metrics in scores.items()}
                )
                history |= _bests(history, state.round, scores)
                if history["best"]["round"] == state.round:
                    write_tensors(journal.folder / WEIGHTS["selected"], state.weights)
                    history["best"]["sha256"] = digest(journal.folder / WEIGHTS["selected"])
            history["seconds"] = time.perf_counter() - started
            point = Checkpoint(state, {site.name: site.state() for site in federation.sites}, history)
            if state.round % config["checkpoint_every"] == 0:
                write_checkpoint(checkpoints, point, config["keep_checkpoints"])
                saved = state.round
    finally:
        if point.state.round > saved:
            write_checkpoint(checkpoints, point, config["keep_checkpoints"])
    return point


def _bests(history: Mapping[str, Any], round: int, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The best round so far on validation cases and, where they are followed, on test cases; the earliest wins."""
    bests: dict[str, Any] = {}
    for name, metric in (("best", "val_dice"), ("best_on_test", "test_dice")):
        values = [metrics[metric] for metrics in scores.values() if metric in metrics]
        before = history.get(name)
        if values and (before is None or np.mean(values) > before["dice"]):
            bests[name] = {"round": round, "dice": float(np.mean(values))}
    if not any("val_dice" in metrics for metrics in scores.values()):  # nobody has validation cases: the newest round
        bests["best"] = {"round": round, "dice": -math.inf}
    return bests


def _test(config: Mapping[str, Any], federation: Federation, point: Checkpoint, journal: Journal, watch: Watch) -> None:
    """Score the test cases with the last and the selected model, and write the results."""
    write_tensors(journal.folder / WEIGHTS["last"], point.state.weights)
    scores = []
    network = federation.network
    for model, file in WEIGHTS.items():
        network.load_state_dict(read_tensors(journal.folder / file))
        network.eval()
        for name, scorer in federation.scorers.items():
            watch.note(f"testing {name} with the {model} model")
            with federation.sites[0].compute.inference():
                scores += [(model, name, score) for score in scorer.scores(network)]
                if model == "selected":
                    journal.write_examples(name, scorer.examples(network, config["examples"]))
    journal.write_scores(scores)
    if config["examples"]:
        for name, scorer in federation.scorers.items():
            journal.write_look(name, scorer.look())
    trained = {site.name for site in federation.sites}
    counts = {
        name: {part: len(site.split(part, config["fold"])) for part in ("train", "val", "test")}
        for name, site in federation.data.items()
    }
    journal.write_json(
        "summary.json",
        {
            "name": config.get("name") or type(federation.method).__name__,
            "task": config.get("task", ""),
            "rounds": point.state.round,
            "selected_round": point.history["best"]["round"],
            "best_on_test": point.history.get("best_on_test"),
            "unseen": sorted(set(federation.data) - trained),
            "seconds": point.history["seconds"],
            "sites": counts,
        },
    )


def _resumed(folder: Path, point: Checkpoint) -> Checkpoint:
    """The checkpoint; if a later round has replaced the selected model, selection begins anew with this round's."""
    model = folder / WEIGHTS["selected"]
    best = point.history.get("best")
    if best is None or best["sha256"] == digest(model):
        return point
    write_tensors(model, point.state.weights)
    anew = {"round": point.state.round, "dice": -math.inf, "sha256": digest(model)}
    return point._replace(history={**point.history, "best": anew})


def _same_run(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse to resume a run under another configuration; more rounds, another device or folder are none."""
    free = {"rounds", "device", "output", "threads", "workers", "keep_checkpoints", "checkpoint_every", "cache"}
    before = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    now = plain(config)
    changed = sorted(key for key in (before.keys() | now.keys()) - free if before.get(key) != now.get(key))
    if changed:
        raise UserError(
            f"{folder}: was run with other values of {', '.join(changed)}; resume with the same, or name another -o"
        )
