"""Tracking: every number of every round is at the tracker, and who looks on hears the same."""

import sys

import pytest

from fedbcs_monai.backends.local import train
from fedbcs_monai.cli import main
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.runs import tracking
from fedbcs_monai.runs.tracking import TRACKERS, Tracking

SITES = ("Alder", "Birch", "Cedar")


class Noting(Callbacks):
    """Writes down what it hears."""

    def __init__(self):
        self.heard = []

    def note(self, text):
        self.heard.append("note")

    def on_train_begin(self, folder, rounds, done, steps):
        self.heard.append("begun")

    def on_step_end(self, site, steps):
        self.heard.append("stepped")

    def on_client_end(self, round, site, metrics):
        self.heard.append(("trained", round, site))

    def on_evaluation(self, round, scores):
        self.heard.append(("evaluated", round))

    def on_train_end(self):
        self.heard.append("finished")


class Kept:
    """A tracker that keeps everything in memory."""

    install, module = "pip install kept", "json"

    def __init__(self, folder, config):
        self.config, self.numbers, self.ended = config, {}, None
        Kept.last = self

    def log(self, round, numbers):
        self.numbers |= {(round, name): value for name, value in numbers.items()}

    def close(self, finished):
        self.ended = finished


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setitem(TRACKERS, "kept", Kept)


def test_every_number_is_tracked_and_who_looks_on_hears_the_same(tiny, kept):
    plain, behind = Noting(), Noting()
    train(tiny(rounds=2), callbacks=plain)
    train(tiny(rounds=2), callbacks=Tracking(behind, ["kept"]))
    assert behind.heard == plain.heard
    numbers = Kept.last.numbers
    assert {(at, f"loss/{site}") for at in (1, 2) for site in SITES} <= numbers.keys()
    assert {(2, f"val_dice/{site}") for site in SITES} <= numbers.keys()
    assert Kept.last.config["rounds"] == 2
    assert Kept.last.ended is True


def test_a_run_that_is_interrupted_is_closed_as_such(tiny, kept):
    class Stopping(Callbacks):
        def on_step_end(self, site, steps):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny(), callbacks=Tracking(Stopping(), ["kept"]))
    assert Kept.last.ended is False


def test_a_number_that_is_not_finite_is_left_out(tmp_path, kept):
    (tmp_path / "config.json").write_text("{}")
    callbacks = Tracking(Callbacks(), ["kept"])
    callbacks.on_train_begin(tmp_path, 1, 0, {})
    callbacks.on_evaluation(1, {"Ash": float("nan"), "Elm": 0.5})
    assert Kept.last.numbers == {(1, "val_dice/Elm"): 0.5}


@pytest.mark.parametrize(
    ("name", "line"),
    [("mlflow", "pip install 'fedbcs-monai[track]'"), ("wandb", "pip install 'fedbcs-monai[wandb]'")],
)
def test_a_tracker_that_is_not_installed_is_refused_with_the_line_that_installs_it(name, line, monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda module: None)
    with pytest.raises(UserError) as refused:
        Tracking(Callbacks(), [name])
    assert str(refused.value) == f"track is {name!r}, which is not installed: {line}"


def test_the_command_refuses_it_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr(tracking, "find_spec", lambda module: None)
    assert main(["train", "nuclei", "--track", "mlflow"]) == 2
    said = "fedbcs train: track is 'mlflow', which is not installed: pip install 'fedbcs-monai[track]'\n"
    assert capsys.readouterr().err == said


def test_an_unknown_tracker_is_refused():
    with pytest.raises(UserError, match="choose one of mlflow, wandb"):
        Tracking(Callbacks(), ["excel"])


def test_no_library_is_imported_before_it_is_asked_for():
    Tracking(Callbacks(), [])
    assert "wandb" not in sys.modules


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_numbers_and_the_settings(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("alembic")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "config.json").write_text('{"rounds": 2, "method": {"mu": 0.1}, "name": "x"}')
    (tmp_path / "summary.json").write_text("{}")
    callbacks = Tracking(Callbacks(), ["mlflow"])
    callbacks.on_train_begin(tmp_path, 2, 0, {})
    for at, value in ((1, 0.5), (2, 0.25)):
        callbacks.on_client_end(at, "St. Älder (north)", {"loss": value})
    callbacks.on_train_end()
    client = mlflow.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'tracked' / 'mlflow.db'}")
    (run,) = client.search_runs([client.get_experiment_by_name("fedbcs").experiment_id])
    assert run.info.status == "FINISHED"
    assert run.data.params == {"rounds": "2", "method": '{"mu": 0.1}', "name": "x"}
    history = client.get_metric_history(run.info.run_id, "loss/St. Älder _north_")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.5), (2, 0.25)]


@pytest.mark.filterwarnings("ignore")
def test_wandb_stays_on_this_machine_unless_it_is_told_otherwise(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    for name in ("WANDB_MODE", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "config.json").write_text('{"rounds": 2}')
    callbacks = Tracking(Callbacks(), ["wandb"])
    callbacks.on_train_begin(tmp_path, 2, 0, {})
    callbacks.on_client_end(1, "Ash", {"loss": 0.5})
    callbacks.on_train_end()
    assert callbacks.trackers[0].run.offline
    wandb.teardown()  # its service writes the last bytes when it ends
    (written,) = (tmp_path / "tracked" / "wandb").glob("offline-run-*/run-*.wandb")
    assert b"loss/Ash" in written.read_bytes()
