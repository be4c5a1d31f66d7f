"""Waiting for a job whose server falls meanwhile."""

import json
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace

import pytest

from fedbcs_monai.errors import UserError

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def submission(monkeypatch):
    from fedbcs_monai.backends.nvflare import submission

    monkeypatch.setattr(submission, "POLL_S", 0.0)
    return submission


@pytest.fixture
def run(tmp_path):
    (tmp_path / "flare.json").write_text(json.dumps({"startup_kit": "kit", "jobs": ["mine"]}))
    return tmp_path


def answering(monkeypatch, submission, answers):
    """Have the server give these answers in turn; an exception at the place of one is raised, and ends the session."""
    left = iter(answers)

    class Server:
        def get_job_meta(self, job):
            answer = next(left)
            if isinstance(answer, Exception):
                raise answer
            return {"status": answer}

    @contextmanager
    def connected(kit, patience_s):
        yield Server()

    monkeypatch.setattr(submission, "_connected", connected)


def test_a_server_that_falls_is_waited_for(monkeypatch, submission, run):
    gone = [ConnectionError("refused"), submission.NoReply(), submission.SessionClosed(), RuntimeError("no reply")]
    answering(monkeypatch, submission, ["RUNNING", *gone, "RUNNING", "FINISHED:COMPLETED"])
    said = []
    assert submission.wait(run, note=said.append) == "FINISHED:COMPLETED"
    assert said == ["the server cannot be reached; looking for it for 30 minutes", "the server is back"]


def test_a_server_that_stays_away_is_given_up(monkeypatch, submission, run):
    answering(monkeypatch, submission, ["RUNNING", ConnectionError("refused"), ConnectionError("refused")])
    with pytest.raises(UserError, match=r"away for 0 minutes \(refused\).*flare resume"):
        submission.wait(run, away_s=0.0)


def test_a_job_that_the_server_does_not_know_is_not_waited_for(monkeypatch, submission, run):
    answering(monkeypatch, submission, ["RUNNING", submission.JobNotFound("no such job")])
    with pytest.raises(UserError, match="the server refuses: no such job"):
        submission.wait(run)


def test_the_newest_job_of_a_run_is_waited_for(monkeypatch, submission, run):
    asked = []

    class Server:
        def get_job_meta(self, job):
            asked.append(job)
            (run / "flare.json").write_text(json.dumps({"startup_kit": "kit", "jobs": ["mine", "resumed"]}))
            return {"status": "FINISHED:COMPLETED" if job == "resumed" else "RUNNING"}

    @contextmanager
    def connected(kit, patience_s):
        yield Server()

    monkeypatch.setattr(submission, "_connected", connected)
    submission.wait(run)
    assert asked == ["mine", "resumed"]


@pytest.fixture
def restarted(monkeypatch, submission):
    """A server that was started at noon, with a job that counts as running since a time; it may be resumed."""
    noon = datetime(2026, 1, 2, 12, tzinfo=timezone.utc)

    def since(hours, then=lambda: None):
        class Server:
            def get_job_meta(self, job):
                if job == "resumed":
                    return {"status": "FINISHED:COMPLETED"}
                then()
                return {"status": "RUNNING", "start_time": (noon + timedelta(hours=hours)).isoformat()}

            def get_system_info(self):
                return SimpleNamespace(server_info=SimpleNamespace(start_time=noon.timestamp()))

            def close(self):
                pass

        @contextmanager
        def connected(kit, patience_s):
            yield Server()

        monkeypatch.setattr(submission, "_connected", connected)

    return since


@pytest.mark.parametrize(("hours", "lost"), [(-1, True), (1, False)])
def test_a_job_that_began_before_its_server_is_lost(hours, lost, restarted, submission, run):
    restarted(hours)
    status = submission.status(run)["status"]
    assert (status == submission.LOST, "flare resume" in status) == (lost, lost)


def test_a_lost_job_is_not_waited_for_for_ever(restarted, submission, run):
    restarted(-1)
    said = []
    with pytest.raises(UserError, match=r"job mine was lost .*flare resume"):
        submission.wait(run, away_s=0.0, note=said.append)
    assert said == [f"job mine was {submission.LOST}"]


def test_the_job_that_resumes_a_lost_one_is_waited_for(restarted, submission, run):
    def resume():
        (run / "flare.json").write_text(json.dumps({"startup_kit": "kit", "jobs": ["mine", "resumed"]}))

    restarted(-1, resume)
    assert submission.wait(run) == "FINISHED:COMPLETED"
