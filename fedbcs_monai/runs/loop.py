"""Run loop: the rounds of a run and the files they write, for every backend."""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.federated.memory import peak_bytes
from fedbcs_monai.federated.messages import Broadcast, Carry, State, Update
from fedbcs_monai.federated.server import Aggregator
from fedbcs_monai.federated.traffic import class_vectors
from fedbcs_monai.runs.checkpoint import (
    Checkpoint,
    drop_checkpoints_after,
    newest_round,
    read_checkpoint,
    write_checkpoint,
)
from fedbcs_monai.runs.model_io import WEIGHTS, digest_model, write_model
from fedbcs_monai.runs.prototypes import write_prototypes
from fedbcs_monai.runs.reader import is_finished
from fedbcs_monai.runs.schema import (
    CHECKPOINTS,
    CONFIG,
    ENVIRONMENT,
    PROTOTYPES,
    SCORES,
    SUMMARY,
    BestOnTest,
    Counts,
    ModelScore,
    Summary,
)
from fedbcs_monai.runs.status import cases_digest, changed_keys
from fedbcs_monai.runs.writer import RunWriter, claim_folder, clear_run, environment
from fedbcs_monai.settings import Settings, plain
from fedbcs_monai.tensors import Tensors, under

_LOG = logging.getLogger(__name__)

NOBODY: Callable[[], Mapping[str, Tensors]] = dict
"""What sites keep for themselves, where they keep it on their own disks."""


@dataclass
class Run:
    """A federation under way: its rounds, the model selected so far, and its folder, which is its own until `close`.

    Args:
        settings: of `load_config`, with an ``output`` folder.
        point: the newest whole round.
        writer: what is written.
        callbacks: receives the progress.
        began: when the run began, on the clock of `time.perf_counter`; earlier for one that was resumed.
        claim: the lock of the folder.
        sent: prototypes of each site's newest training; None where they are not to be kept, as on a server between
            hospitals.
    """

    settings: Settings
    point: Checkpoint
    writer: RunWriter
    callbacks: Callbacks
    began: float
    claim: FileLock
    sent: dict[str, Tensors] | None = None

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints."""
        return self.writer.folder / CHECKPOINTS

    def rounds(self, aggregator: Aggregator, ask: Carry, kept: Callable[[], Mapping[str, Tensors]] = NOBODY) -> None:
        """Run the remaining rounds; on exit, for any reason, the newest complete round is on disk.

        Args:
            aggregator: from whose state the rounds continue.
            ask: carries a broadcast to the sites.
            kept: the state of every site, for the checkpoint.
        """
        aggregator.on_update, aggregator.refused, aggregator.repeated = self._on_update, self.refused, self._repeated
        aggregator.history.restore(self.point.history.get("updates", {}))
        keep = self.settings.keep_checkpoints
        saved = self.point.state.round
        if self._settled():
            return
        try:
            for state in aggregator.rounds(ask, self.settings.rounds):
                history = dict(self.point.history)
                if state.round % self.settings.evaluate_every == 0 or state.round == self.settings.rounds:
                    history |= self._select(state, history, aggregator.evaluate(ask), kept)
                history["updates"] = aggregator.history.plain()
                history["seconds"] = time.perf_counter() - self.began
                self.point = Checkpoint(state, kept(), history)
                if state.round % self.settings.checkpoint_every == 0:
                    write_checkpoint(self.checkpoints, self.point, keep)
                    saved = state.round
                if self._settled():
                    break
        finally:
            if self.point.state.round > saved:
                write_checkpoint(self.checkpoints, self.point, keep)

    def finish(
        self,
        method: str,
        scores: Iterable[ModelScore],
        trained: Iterable[str],
        counts: Mapping[str, Counts],
        asked: Iterable[str],
    ) -> None:
        """Write ``scores.csv`` and ``summary.json``, which also says of each site in which rounds it did not train.

        A site that took part in no round is absent from all of them, and no model was trained on it: it is unseen.

        Args:
            method: what a run without a name goes by.
            scores: of every test case.
            trained: the sites with training cases.
            counts: of every site, its cases in each part.
            asked: who was to train, also those that never answered.
        """
        self.writer.write_scores(scores)
        write_prototypes(self.writer.folder, self.point.state.shared, self.sent or {})
        every = set(range(1, self.point.state.round + 1))
        on_test = self.point.history.get("best_on_test")
        took_part = {**{site: set[int]() for site in asked}, **self.writer.took_part()}
        missed = {site: sorted(every - rounds) for site, rounds in took_part.items()}
        never = {site for site, rounds in took_part.items() if not rounds}
        peak = peak_bytes()
        self.writer.write_summary(
            Summary(
                name=self.settings.name or method,
                task=self.settings.task,
                rounds=self.point.state.round,
                selected_round=self.point.history["best"]["round"],
                best_on_test=BestOnTest(on_test["round"], on_test["dice"]) if on_test else None,
                unseen=tuple(sorted(set(counts) - (set(trained) - never))),
                absent={site: rounds for site, rounds in sorted(missed.items()) if rounds},
                refused=self.writer.refusals(),
                seconds=self.point.history["seconds"],
                peak_bytes=math.nan if peak is None else peak,
                sites=counts,
            )
        )

    def close(self) -> None:
        """Close what is open, and leave the folder to others."""
        self.writer.close()
        self.claim.release()

    def _settled(self) -> bool:
        """Whether the validation score, when last taken, had not improved for as long as the run has patience."""
        patience, history = self.settings.patience, self.point.history
        best, evaluated = history.get("best"), history.get("evaluated", 0)
        return bool(patience and best and evaluated - best["round"] >= patience)

    def _on_update(self, broadcast: Broadcast, update: Update) -> None:
        if self.sent is not None and broadcast.task == "train":
            self.sent[update.site] = class_vectors(update.shared)
        self.writer.log(broadcast.round, update.site, update.metrics)
        _LOG.debug("round %d: %s has trained", broadcast.round, update.site)
        self.callbacks.on_client_end(broadcast.round, update.site, update.metrics)

    def refused(self, broadcast: Broadcast, site: str, reason: str) -> None:
        """Note what a site sent and why it is not accepted."""
        _LOG.info("round %d: refused what %s sent: %s", broadcast.round, site, reason)
        self.writer.refuse(broadcast.round, broadcast.task, site, reason)
        self.callbacks.note(f"round {broadcast.round}, {broadcast.task}: refused what {site} sent: {reason}")

    def _repeated(self, round: int, sites: Sequence[str]) -> None:
        self.writer.forget_after(round - 1)
        self.callbacks.note(f"round {round} is asked for again: {', '.join(sites)} far from the other sites")

    def _select(
        self,
        state: State,
        history: Mapping[str, Any],
        updates: Iterable[Update],
        kept: Callable[[], Mapping[str, Tensors]],
    ) -> dict[str, Any]:
        """Log the scores of a round, and keep its model if it is the best so far on validation cases."""
        scores = {update.site: update.metrics for update in updates}
        for site, metrics in scores.items():
            self.writer.log(state.round, site, metrics)
        self.callbacks.on_evaluation(state.round, {site: m.get("val_dice", math.nan) for site, m in scores.items()})
        found = {"evaluated": state.round, **bests(history, state.round, scores)}
        best = found.get("best", {}).get("round") == state.round
        _LOG.info(
            "round %d: evaluated at %d sites%s", state.round, len(scores), ", the best model so far" if best else ""
        )
        if best:
            found["best"]["sha256"] = write_model(self.writer.folder, "selected", state.weights, private(kept()))
        return found


def open_run(
    settings: Settings,
    start: State,
    device: torch.device,
    resume: bool | int = False,
    callbacks: Callbacks | None = None,
) -> Run:
    """Open the run folder ``output``: new, or at the newest checkpoint, or at that of a given round.

    A run that was killed before its first checkpoint is resumed from the beginning.

    Raises:
        UserError: there is nothing to resume, the run had another configuration, or somebody else is writing it.
    """
    folder = Path(settings.output)
    point = Checkpoint(start, {}, {"seconds": 0.0})
    with ExitStack() as undo:
        claim = claim_folder(folder)
        undo.callback(claim.release)
        if resume is True and _unbegun(folder, settings):
            (callbacks or Callbacks()).note(f"{folder}: no checkpoint to resume from; starts from the beginning")
            resume = False
        if resume is not False:
            _same_run(folder, settings, resume)
            point = _resumed(folder, read_checkpoint(folder / CHECKPOINTS, None if resume is True else resume))
            drop_checkpoints_after(folder / CHECKPOINTS, point.state.round)
            for result in (SUMMARY, SCORES.file, PROTOTYPES):  # of fewer rounds: until it has ended, the run has none
                (folder / result).unlink(missing_ok=True)
        else:
            clear_run(folder)
        writer = RunWriter(folder, since=point.state.round)
        writer.write_config(plain(settings))
        cases = cases_digest(settings)
        writer.write_json(ENVIRONMENT, environment(device) | ({"cases": cases} if cases else {}))
        undo.pop_all()
    _LOG.info("run in %s on %s: rounds %d to %d", folder, device, point.state.round + 1, settings.rounds)
    return Run(settings, point, writer, callbacks or Callbacks(), time.perf_counter() - point.history["seconds"], claim)


def bests(history: Mapping[str, Any], round: int, scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """The best round so far on validation cases and, where they are followed, on test cases; the earliest wins.

    A site that does not answer, or not with a number, has no say: rounds are compared over the sites that answered in
    both. Where nobody has validation cases, the newest round is the best.
    """
    found: dict[str, Any] = {}
    for name, metric in (("best", "val_dice"), ("best_on_test", "test_dice")):
        now = {site: m[metric] for site, m in scores.items() if math.isfinite(m.get(metric, math.nan))}
        before = history.get(name, {}).get("sites", {})
        both = now.keys() & before.keys()
        if now and (not both or math.fsum(now[site] for site in both) > math.fsum(before[site] for site in both)):
            dice = math.fsum(now.values()) / len(now)
            found[name] = {"round": round, "dice": dice, "sites": {**before, **now}}
    if not (found.get("best") or history.get("best", {}).get("sites")):
        found["best"] = {"round": round, "dice": -math.inf}
    return found


def _resumed(folder: Path, point: Checkpoint) -> Checkpoint:
    """The checkpoint; if a later round has replaced the selected model, selection restarts with this round's."""
    best = point.history.get("best")
    if best is None or best["sha256"] == digest_model(folder / WEIGHTS["selected"]):
        return point
    sha256 = write_model(folder, "selected", point.state.weights, private(point.sites))
    restarted = {"round": point.state.round, "dice": -math.inf, "sha256": sha256}
    return point._replace(history={**point.history, "best": restarted})


def private(sites: Mapping[str, Tensors]) -> dict[str, dict[str, Tensor]]:
    """Of what sites keep, as `Site.state` gives it, the tensors of the network."""
    return {name: under("private", state) for name, state in sites.items()}


def _unbegun(folder: Path, settings: Settings) -> bool:
    """Whether a run has no checkpoint yet, damaged ones included, and no results either.

    Raises:
        UserError: it has another configuration.
    """
    if newest_round(folder / CHECKPOINTS) or is_finished(folder):
        return False
    if (folder / CONFIG).is_file():
        _same_run(folder, settings, True)
    return True


def _same_run(folder: Path, settings: Settings, resume: bool | int) -> None:
    """Refuse to resume a run under another configuration; more rounds, another device or folder are none."""
    changed = changed_keys(folder, settings)
    if changed:
        raise UserError(
            f"{folder}: was run with other values of {', '.join(changed)}; resume with the same, or name another -o"
        )
    at = newest_round(folder / CHECKPOINTS) if resume is True else int(resume)
    if at > settings.rounds:
        raise UserError(
            f"{folder}: resumes after round {at}, and rounds is {settings.rounds}; ask for {at} or more, or name "
            "another -o"
        )
