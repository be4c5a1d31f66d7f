"""A provisioned federation of real processes: the bits of training in one process, through whatever happens."""

import json

import pytest

from fedbcs_monai.cli import main
from fedbcs_monai.config import plain
from fedbcs_monai.drivers.simulate import train

pytestmark = [pytest.mark.nvflare, pytest.mark.filterwarnings("ignore")]
PROMPT = ["--min-responses", "3", "--wait-s", "600", "--round-timeout-s", "1800"]


@pytest.fixture
def submitted(consortium, tiny, tmp_path):
    """Export a tiny experiment and submit it: the configuration, the run's id and the run folder."""

    def submit(experiment, options=PROMPT, **overrides):
        config = tiny(experiment, rounds=4, examples=0, keep_checkpoints=0, threads=1, **overrides)
        (tmp_path / "config.json").write_text(json.dumps(plain(config)))
        job, run = tmp_path / "job", tmp_path / "run"
        assert main(["flare", "export", str(tmp_path / "config.json"), "-o", str(job), "-q", *options]) == 0
        assert main(["flare", "submit", str(job), "--startup-kit", str(consortium.admin), "-o", str(run), "-q"]) == 0
        server = json.loads((job / "app" / "config" / "config_fed_server.json").read_text())
        return config, server["workflows"][0]["args"]["run_id"], run

    return submit


def finished(run):
    """Wait for a run and fetch it; what its server says of it."""
    assert main(["flare", "status", str(run), "--wait", "-q"]) == 0
    assert main(["flare", "download", str(run), "-q"]) == 0
    return json.loads((run / "summary.json").read_text())


def test_a_killed_trainer_changes_nothing(consortium, submitted, assert_same_run):
    config, run_id, run = submitted("nuclei_fedavg")
    consortium.wait_for_round(run_id, 1)
    consortium.kill_trainer("Birch")
    summary = finished(run)
    assert_same_run(run, train(config))
    assert (summary["rounds"], summary["absent"], sorted(summary["sites"])) == (4, {}, ["Alder", "Birch", "Cedar"])
    assert "the trainer has died" in consortium.logs("Birch")
    assert (run / "report.html").is_file()


@pytest.mark.slow
def test_a_killed_server_goes_on_from_its_checkpoint(consortium, submitted, assert_same_run):
    config, run_id, run = submitted("nuclei_fedbcs", **{"network_def::context::width": 4})
    consortium.wait_for_round(run_id, 2)
    consortium.kill("localhost")
    consortium.start("localhost")
    assert main(["flare", "resume", str(run), "-q"]) == 0
    summary = finished(run)
    assert_same_run(run, train(config))
    assert (summary["rounds"], summary["absent"]) == (4, {})


@pytest.mark.slow
def test_a_method_with_several_exchanges_a_round(submitted, assert_same_run):
    config, _, run = submitted("nuclei_fedhpro")
    finished(run)
    assert_same_run(run, train(config))


@pytest.mark.slow
def test_a_site_that_leaves_is_missed_and_the_run_ends(consortium, submitted):
    _, run_id, run = submitted("nuclei_fedavg", ["--min-responses", "2", "--wait-s", "5", "--round-timeout-s", "1800"])
    consortium.wait_for_round(run_id, 1)
    consortium.kill("Cedar")
    summary = finished(run)
    consortium.start("Cedar")
    assert summary["rounds"] == 4
    assert set(summary["absent"]) == {"Cedar"}
    assert set(summary["absent"]["Cedar"]) >= {3, 4}
    assert "Cedar did not take part in rounds" in (run / "report.html").read_text()
