"""The trainer in a process of its own: killed at any time, it gives the answer it would have given."""

import json
import os
import signal
import sys
import time

import pytest
import torch

from fedbcs_monai.backends.local import train
from fedbcs_monai.backends.nvflare.process import Failed, Stopped, TrainerProcess
from fedbcs_monai.backends.nvflare.wire import decode_update, write_message
from fedbcs_monai.federated.messages import Broadcast
from fedbcs_monai.ood.distance import STYLES
from fedbcs_monai.runs.checkpoint import read_checkpoint
from fedbcs_monai.settings import keys_that, plain

PATIENCE_S = 300


@pytest.fixture(scope="module")
def config(tiny):
    return tiny("SCAFFOLD", rounds=2, keep_checkpoints=0, examples=0, checkpoint_every=1, threads=1)


@pytest.fixture(scope="module")
def states(config):
    """What the server had after no, one and two rounds in one process."""
    folder = train(config)
    return [read_checkpoint(folder / "checkpoints", round).state for round in (1, 2)]


@pytest.fixture
def trainers(config, tmp_path):
    """Start trainers of the site Alder; none outlives its test."""
    started = []

    def start(**changes):
        job = {key: value for key, value in plain(config).items() if key in keys_that("travels")}
        (tmp_path / "experiment.json").write_text(json.dumps(job))
        settings = {
            "config": str(tmp_path / "experiment.json"),
            "allow": [],
            "overrides": {"sites": config.sites},
            "site": "Alder",
            "states": str(tmp_path / "states"),
            "case_scores": False,
            **changes,
        }
        started.append(TrainerProcess(sys.executable, settings, tmp_path / "trainer.log"))
        started[-1].start()
        return started[-1]

    yield start
    for trainer in started:
        trainer.stop()


def asked(trainer, folder, state, task="train", **options):
    """The trainer's answer to a question about the state after a round."""
    question, answer = folder / "question.safetensors", folder / "answer.safetensors"
    round = state.round + 1 if task == "train" else state.round
    write_message(question, Broadcast(round, state.weights, state.shared, task))
    trainer.ask(question, answer, **options)
    return decode_update(answer)


def same(first, second):
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights | second.weights)
    assert all(torch.equal(first.shared[name], second.shared[name]) for name in first.shared | second.shared)
    assert first.metrics["loss"] == second.metrics["loss"]


def pid(trainer):
    return trainer._process.pid


def kill_in_training(trainer, folder):
    """Says that the answer is wanted, and in the middle of the training kills the trainer, once."""
    began, killed = [], []

    def stop():
        if not killed and trainer._ready:
            began.append(time.monotonic())
            if began[-1] - began[0] > 0.2:
                os.kill(pid(trainer), signal.SIGKILL)
                killed.append(pid(trainer))
        return False

    return stop, killed


def test_a_killed_trainer_gives_the_same_answer_in_the_same_round(trainers, states, tmp_path):
    undisturbed = trainers()
    wanted = asked(undisturbed, tmp_path, states[0])
    killed = trainers(states=str(tmp_path / "others"))
    stop, dead = kill_in_training(killed, tmp_path)
    found = asked(killed, tmp_path, states[0], stop=stop)
    same(found, wanted)
    os.kill(pid(killed), signal.SIGKILL)  # and between two questions
    same(asked(killed, tmp_path, states[1]), asked(undisturbed, tmp_path, states[1]))
    assert not dead or dead[0] != pid(killed)


def test_a_site_that_says_so_tells_nothing_of_how_its_cases_look(trainers, states, config, tmp_path):
    open_, shut = trainers(), trainers(overrides={"sites": config.sites, "ood": False})
    told, silent = (asked(trainer, tmp_path, states[1], STYLES) for trainer in (open_, shut))
    assert told.shared.keys() == {"mean", "covariance"}
    assert (silent.shared, silent.metrics) == ({}, {})


def test_a_trainer_that_dies_over_every_question_fails(trainers, states, tmp_path):
    trainer = trainers()
    trainer.restarts = 1
    trainer.command = [sys.executable, "-c", "import sys; sys.stdin.readline(); print('{\"ready\": true}', flush=True)"]
    trainer.stop()
    with pytest.raises(Failed, match=r"died 2 times over one question; its log is .*trainer\.log"):
        asked(trainer, tmp_path, states[0])


def test_an_answer_that_is_not_wanted_any_more_ends_the_trainer(trainers, states, tmp_path):
    trainer = trainers()
    number = pid(trainer)
    with pytest.raises(Stopped):
        asked(trainer, tmp_path, states[0], stop=lambda: True)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_what_a_site_can_mend_is_said_in_one_line_and_logged_without_a_traceback(trainers, states, tmp_path):
    trainer = trainers(overrides={"sites": str(tmp_path / "nowhere.json")})
    with pytest.raises(Failed, match="no such site list"):
        asked(trainer, tmp_path, states[0])
    log = (tmp_path / "trainer.log").read_text()
    assert "error: " in log
    assert "Traceback" not in log


def test_a_job_cannot_have_the_trainer_run_what_it_likes(trainers, states, tmp_path):
    trainer = trainers()
    evil = {**json.loads((tmp_path / "experiment.json").read_text()), "loss": {"_target_": "os.system", "command": "x"}}
    trainer.stop()
    (tmp_path / "experiment.json").write_text(json.dumps(evil))
    with pytest.raises(Failed, match=r"'os\.system' is not permitted; if you trust it, add os\.system to `allow`"):
        asked(trainer, tmp_path, states[0])


def test_the_trainer_goes_when_whoever_asks_has_gone(trainers):
    trainer = trainers()
    process = trainer._process
    process.stdin.close()
    assert process.wait(PATIENCE_S) == 0
