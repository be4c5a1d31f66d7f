"""NVFlare's simulator: every method and both tasks give the bits of training in one process."""

import csv
import json
from pathlib import Path

import pytest
from msgspec.structs import replace

from fedbcs_monai import methods
from fedbcs_monai.backends.local import train
from fedbcs_monai.cli import main
from fedbcs_monai.data.sites import read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.settings import plain

pytestmark = [pytest.mark.nvflare, pytest.mark.filterwarnings("ignore")]
METHODS = [name for name in methods.__all__ if name not in ("ClientContext", "Method")]
TRAINED = ("Alder", "Birch", "Cedar")
FAST = ("FedBCS", "FedBN", "SCAFFOLD")
"""Methods that send more, that keep a part of the network, and that remember; all of them take minutes."""


@pytest.fixture
def simulated(tmp_path):
    """Run a configuration in the simulator, from the command line."""
    pytest.importorskip("nvflare")

    def run(config, *options):
        path = tmp_path / "config.json"
        path.write_text(json.dumps(plain(config)))
        folder = tmp_path / "run"
        arguments = ["flare", "simulate", str(path), "-o", str(folder), "--sites", config.sites, "-q"]
        assert main([*arguments, "--min-responses", "3", "--wait-s", "600", *options]) == 0
        return folder

    return run


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in METHODS]
)
def test_every_method_gives_the_bits_of_training_in_one_process(method, tiny, simulated, assert_same_run):
    config = tiny(method, examples=0, threads=1)
    assert_same_run(simulated(config), train(config))


@pytest.mark.slow
def test_so_does_the_other_task(tiny_prostate, simulated, assert_same_run, tmp_path):
    config = replace(tiny_prostate, examples=0, threads=1, output=str(tmp_path / "one_process"))
    assert_same_run(simulated(config), train(config))


@pytest.mark.slow
def test_the_switches(tiny, simulated):
    folder = simulated(tiny(examples=0, threads=1), "--cross-site", "--track", "tensorboard")
    with (folder / "cross_site.csv").open(newline="") as file:
        crossed = {(row["model"], row["site"]) for row in csv.DictReader(file)}
    assert crossed == {(a, b) for a in TRAINED for b in TRAINED}
    tracked = (folder / "tracked" / "tb_events").glob("*/events.*")
    assert {path.parent.name for path in tracked} >= set(TRAINED)
    assert {line.split(",")[1] for line in (folder / "scores.csv").read_text().splitlines()[1:]} >= {"Elm"}


@pytest.mark.slow
def test_mlflow_has_a_run_of_every_site(tiny, simulated):
    mlflow = pytest.importorskip("mlflow")
    folder = simulated(tiny(examples=0, threads=1), "--track", "mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'tracked' / 'mlflow.db'}")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    losses = {site: run.data.metrics["loss"] for run in runs for site in TRAINED if site in run.info.run_name}
    assert losses.keys() == set(TRAINED)


@pytest.mark.slow
def test_a_run_ends_early_when_it_gets_no_better(tiny, simulated):
    config = tiny(examples=0, threads=1, rounds=9, patience=2, **{"optimizer::lr": 0.0})
    summary = json.loads((simulated(config) / "summary.json").read_text())
    assert (summary["rounds"], summary["selected_round"]) == (3, 1)


@pytest.mark.slow
def test_federated_statistics_are_those_of_the_cases(tiny):
    pytest.importorskip("nvflare")
    from fedbcs_monai.backends.nvflare.simulator import simulate_statistics

    config = tiny()
    file = simulate_statistics(config, min_responses=3, min_count=2, log="error")
    found = json.loads(file.read_text())["pixels"]
    sites = read_sites(Path(config.sites))
    counts = {name: {part: len(site.split(part, 0)) for part in ("train", "test")} for name, site in sites.items()}
    for name in TRAINED:
        assert found["count"][name]["train"] == counts[name]["train"]
        assert found["mean"][name]["train"] == 64 * 64
    assert found["count"]["Global"]["test"] == sum(count["test"] for count in counts.values())


def test_a_folder_that_is_not_empty_is_left_alone(tiny, tmp_path):
    pytest.importorskip("nvflare")
    from fedbcs_monai.backends.nvflare.simulator import simulate

    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty"):
        simulate(tiny(output=str(tmp_path)))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
