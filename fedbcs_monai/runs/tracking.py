"""Tracking: send the metrics of a run to MLflow or Weights & Biases."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.runs.reader import read_json
from fedbcs_monai.runs.schema import CONFIG, SUMMARY, TRACKED

PROJECT = "fedbcs"


class Tracker(Protocol):
    """An open run of a tracker."""

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Record the numbers of a round."""

    def close(self, finished: bool) -> None:
        """End the run, well or not."""


class MLflow:
    """A run of MLflow, in the database ``tracked/mlflow.db``, or where ``MLFLOW_TRACKING_URI`` says."""

    install = "pip install 'fedbcs-monai[track]'"
    module = "mlflow"

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        mlflow = import_module(self.module)
        place = folder / TRACKED
        place.mkdir(parents=True, exist_ok=True)
        uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(place / 'mlflow.db').resolve().as_posix()}"
        self.client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = self.client.get_experiment_by_name(PROJECT)
        number = experiment.experiment_id if experiment else self.client.create_experiment(PROJECT)
        self.run = self.client.create_run(number, run_name=folder.name).info.run_id
        for key, value in config.items():
            self.client.log_param(self.run, key, value if isinstance(value, str) else json.dumps(value))

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Record the numbers of a round; MLflow's names have no brackets and commas."""
        for name, value in numbers.items():
            self.client.log_metric(self.run, re.sub(r"[^\w./ :-]", "_", name), value, step=round)

    def close(self, finished: bool) -> None:
        """End the run."""
        self.client.set_terminated(self.run, "FINISHED" if finished else "KILLED")


class WandB:
    """A run of Weights & Biases, in ``tracked``; nothing leaves the machine unless ``WANDB_MODE`` is ``online``."""

    install = "pip install 'fedbcs-monai[wandb]'"
    module = "wandb"

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        wandb = import_module(self.module)
        place = folder / TRACKED
        place.mkdir(parents=True, exist_ok=True)
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            dir=str(place),
            config=dict(config),
            mode=os.environ.get("WANDB_MODE", "offline"),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def log(self, round: int, numbers: Mapping[str, float]) -> None:
        """Record the numbers of a round."""
        self.run.log(dict(numbers), step=round)

    def close(self, finished: bool) -> None:
        """End the run."""
        self.run.finish(exit_code=0 if finished else 1)


TRACKERS: dict[str, type[MLflow] | type[WandB]] = {"mlflow": MLflow, "wandb": WandB}


class Tracking(Callbacks):
    """Forwards all events to other callbacks, and the metrics of every round to trackers.

    A run that is resumed is a new run there. Numbers that are not finite are left out.

    Args:
        callbacks: who looks on.
        names: of `TRACKERS`.

    Raises:
        UserError: a tracker is not known or not installed; nothing has been started.
    """

    def __init__(self, callbacks: Callbacks, names: Sequence[str]) -> None:
        for name in names:
            if name not in TRACKERS:
                raise UserError(f"track is {name!r}: choose one of {', '.join(TRACKERS)}")
            if find_spec(TRACKERS[name].module) is None:
                raise UserError(f"track is {name!r}, which is not installed: {TRACKERS[name].install}")
        self.callbacks, self.names = callbacks, tuple(dict.fromkeys(names))
        self.trackers: list[Tracker] = []

    def note(self, text: str) -> None:
        """A note."""
        self.callbacks.note(text)

    def on_train_begin(self, folder: Path, rounds: int, done: int, steps: Mapping[str, int]) -> None:
        """Open a run at every tracker, with the configuration."""
        self.folder = folder
        config = read_json(folder / CONFIG)
        self.trackers = [TRACKERS[name](folder, config) for name in self.names]
        self.callbacks.on_train_begin(folder, rounds, done, steps)

    def on_step_end(self, site: str, steps: int) -> None:
        """A step."""
        self.callbacks.on_step_end(site, steps)

    def on_client_end(self, round: int, site: str, metrics: Mapping[str, float]) -> None:
        """A site's numbers."""
        self.callbacks.on_client_end(round, site, metrics)
        self._log(round, {f"{metric}/{site}": value for metric, value in metrics.items()})

    def on_evaluation(self, round: int, scores: Mapping[str, float]) -> None:
        """Validation Dice of every site."""
        self.callbacks.on_evaluation(round, scores)
        self._log(round, {f"val_dice/{site}": value for site, value in scores.items()})

    def on_train_end(self) -> None:
        """Close the runs; one without a summary is unfinished."""
        self.callbacks.on_train_end()
        for tracker in self.trackers:
            tracker.close((self.folder / SUMMARY).is_file())

    def _log(self, round: int, numbers: Mapping[str, float]) -> None:
        finite = {name: float(value) for name, value in numbers.items() if math.isfinite(value)}
        for tracker in self.trackers:
            tracker.log(round, finite)
