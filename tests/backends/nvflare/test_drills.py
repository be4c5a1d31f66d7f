"""Drills: what hospitals do to a federation, done to real processes, and what it cost (shown by `pytest -rP`)."""

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import pytest

from fedbcs_monai.backends.local import train
from fedbcs_monai.cli import main

pytestmark = [pytest.mark.nvflare, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WITHOUT_ONE = ["--min-responses", "2", "--wait-s", "3", "--round-timeout-s", "1800"]


@pytest.fixture
def config(tiny):
    """Rounds of a second or two, all of whose checkpoints are kept."""

    def load(method="FedAvg", rounds=8, **overrides):
        return tiny(method, rounds=rounds, examples=0, keep_checkpoints=0, threads=1, **overrides)

    return load


def seen(run):
    """How long every round took, in s; said with the rounds that sites missed."""
    ends = [json.loads(path.read_text())["history"]["seconds"] for path in sorted((run / "checkpoints").glob("*.json"))]
    took = [after - before for before, after in pairwise(ends)]
    absent = json.loads((run / "summary.json").read_text())["absent"]
    print(f"{len(ends)} rounds, median {statistics.median(took):.1f} s, longest {max(took):.1f} s, absent {absent}")
    return took


def test_a_site_that_stands_still_for_45_s_comes_back(consortium, config, tmp_path, finished):
    run_id, run = consortium.submit(config(rounds=60), tmp_path, WITHOUT_ONE)
    consortium.wait_for_round(run_id, 2)
    with consortium.standing_still("Cedar"):
        time.sleep(45)
    summary = finished(run)
    seen(run)
    missed = summary["absent"]["Cedar"]
    assert (summary["rounds"], set(summary["absent"])) == (60, {"Cedar"})
    assert missed == list(range(missed[0], missed[-1] + 1))
    assert missed[-1] < 60


def test_a_killed_trainer_is_waited_for(consortium, config, tmp_path, finished, assert_same_run):
    trained = config()
    run_id, run = consortium.submit(trained, tmp_path, [*WITHOUT_ONE[:3], "120", *WITHOUT_ONE[4:]])
    for round in (2, 4):
        consortium.wait_for_round(run_id, round)
        consortium.kill_process("Birch", consortium.trainer)
    assert finished(run)["absent"] == {}
    seen(run)
    assert_same_run(run, train(trained))


def test_a_killed_job_process_is_started_again(consortium, config, tmp_path, finished, assert_same_run):
    trained = config()
    run_id, run = consortium.submit(trained, tmp_path)
    consortium.wait_for_round(run_id, 2)
    consortium.kill_process("Birch", consortium.job)
    assert finished(run)["absent"] == {}
    seen(run)
    assert_same_run(run, train(trained))


def test_a_site_that_is_gone_is_missed_and_the_run_ends(consortium, config, tmp_path, finished):
    run_id, run = consortium.submit(config(), tmp_path, WITHOUT_ONE)
    consortium.wait_for_round(run_id, 2)
    consortium.kill("Cedar")
    try:
        summary = finished(run)
    finally:
        consortium.start("Cedar")
    seen(run)
    assert (summary["rounds"], set(summary["absent"])) == (8, {"Cedar"})
    assert set(summary["absent"]["Cedar"]) >= {4, 5, 6, 7, 8}
    assert "Cedar did not take part in rounds" in (run / "report.html").read_text()


def test_nobody_is_waited_for_for_ever(consortium, config, tmp_path, finished, assert_same_run):
    trained = config()
    run_id, run = consortium.submit(trained, tmp_path, ["--min-responses", "3", "--round-timeout-s", "120"])
    consortium.wait_for_round(run_id, 2)
    consortium.kill("Cedar")
    killed = time.monotonic()
    try:
        assert main(["flare", "status", str(run), "--wait", "-q"]) == 0
    finally:
        took = time.monotonic() - killed
        consortium.start("Cedar")
    print(f"ended {took:.0f} s after the death of a site without which it cannot go on")
    assert "`fedbcs flare resume`" in consortium.logs("localhost")
    assert main(["flare", "resume", str(run), "-q"]) == 0
    assert finished(run)["absent"] == {}
    assert_same_run(run, train(trained))


@pytest.mark.parametrize("method", ["FedBCS", "SCAFFOLD"])
def test_a_killed_server_goes_on_from_its_checkpoint(method, consortium, config, tmp_path, finished, assert_same_run):
    trained = config(method)
    run_id, run = consortium.submit(trained, tmp_path)
    consortium.wait_for_round(run_id, 3)
    consortium.kill("localhost")
    killed = time.monotonic()
    consortium.start("localhost")
    assert main(["flare", "resume", str(run), "-q"]) == 0
    print(f"resumed {time.monotonic() - killed:.0f} s after the server was killed")
    assert finished(run)["absent"] == {}
    seen(run)
    assert_same_run(run, train(trained))


def test_waiting_outlives_the_server(consortium, config, tmp_path, finished):
    from fedbcs_monai.backends.nvflare import submission

    run_id, run = consortium.submit(config(), tmp_path)
    said: list[str] = []
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(submission.wait, run, note=said.append)
        consortium.wait_for_round(run_id, 2)
        consortium.kill("localhost")
        consortium.wait_until(lambda: said, "the waiting one notices")
        consortium.start("localhost")
        assert main(["flare", "resume", str(run), "-q"]) == 0
        assert waiting.result(timeout=900) == "FINISHED:COMPLETED"
    job = json.loads((run / "flare.json").read_text())["jobs"][0]
    assert ["cannot be reached" in said[0], said[1]] == [True, "the server is back"]
    assert said[2:] in ([f"job {job} was {submission.LOST}"], [])  # nothing, where it was resumed before a look
    assert finished(run)["rounds"] == 8


def test_an_aborted_run_goes_on(consortium, config, tmp_path, finished, assert_same_run, capsys):
    trained = config("FedHPro")
    run_id, run = consortium.submit(trained, tmp_path)
    consortium.wait_for_round(run_id, 3)
    assert main(["flare", "abort", str(run), "-q"]) == 0
    assert main(["flare", "resume", str(run), "-q"]) == 0
    assert main(["flare", "status", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["job"] == json.loads((run / "flare.json").read_text())["jobs"][-1]
    assert finished(run)["absent"] == {}
    assert_same_run(run, train(trained))


def test_a_site_whose_policy_clips_whole_weights_is_left_out_and_named(consortium, config, tmp_path, finished):
    local = consortium.kits / "Birch" / "local"
    before = (local / "privacy.json").read_text()
    policy = json.loads(before)
    clip = {"path": "nvflare.app_common.filters.percentile_privacy.PercentilePrivacy", "args": {"gamma": 0.01}}
    policy["scopes"][0]["task_result_filters"] = [clip]
    consortium.kill("Birch")
    (local / "privacy.json").write_text(json.dumps(policy))
    consortium.start("Birch")
    try:
        _, run = consortium.submit(config(rounds=2), tmp_path, WITHOUT_ONE)
        summary = finished(run)
    finally:
        consortium.kill("Birch")
        (local / "privacy.json").write_text(before)
        consortium.start("Birch")
    assert summary["absent"] == {"Birch": [1, 2]}
    (reason,) = summary["refused"]["Birch"]
    assert "PercentilePrivacy clip differences of weights" in reason
    assert reason in (run / "report.html").read_text()
    assert "the server will refuse this answer" in consortium.logs("Birch")
    assert "refused what Birch sent: a filter of the site (PercentilePrivacy)" in consortium.logs("localhost")


def test_of_what_fails_at_a_site_no_path_reaches_the_server(consortium, config, tmp_path, finished):
    site_file = consortium.kits / "Birch" / "local" / "fedbcs.yaml"
    before = site_file.read_text()
    site_file.write_text("sites: /data/anna/sites.json\n")
    try:
        _, run = consortium.submit(config(rounds=2), tmp_path, WITHOUT_ONE)
        summary = finished(run)
    finally:
        site_file.write_text(before)
    assert summary["refused"]["Birch"].keys() == {"its settings or its data need correction"}
    assert "/data/anna/sites.json" in consortium.logs("Birch")
    everywhere = [path for folder in (consortium.kits / "localhost", run) for path in folder.rglob("*")]
    assert not [path for path in everywhere if path.is_file() and b"anna" in path.read_bytes()]
