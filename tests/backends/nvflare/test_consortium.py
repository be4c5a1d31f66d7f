"""A provisioned federation of real processes: the bits of training in one process."""

import pytest

from fedbcs_monai.backends.local import train

pytestmark = [pytest.mark.nvflare, pytest.mark.filterwarnings("ignore")]


def test_a_killed_trainer_changes_nothing(consortium, tiny, tmp_path, finished, assert_same_run):
    config = tiny(rounds=4, examples=0, keep_checkpoints=0, threads=1)
    run_id, run = consortium.submit(config, tmp_path)
    consortium.wait_for_round(run_id, 1)
    consortium.kill_process("Birch", consortium.trainer)
    summary = finished(run)
    assert_same_run(run, train(config))
    assert (summary["rounds"], summary["absent"], sorted(summary["sites"])) == (4, {}, ["Alder", "Birch", "Cedar"])
    assert "the trainer has died" in consortium.logs("Birch")
    assert (run / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["FedBCS", "FedHPro", "SCAFFOLD", "MOON"])
def test_methods_that_send_or_keep_more(method, consortium, tiny, tmp_path, finished, assert_same_run):
    config = tiny(method, rounds=3, examples=0, keep_checkpoints=0, threads=1)
    _, run = consortium.submit(config, tmp_path)
    finished(run)
    assert_same_run(run, train(config))
