"""Submission: submit, monitor, abort, download and resume a job in a running federation."""

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from datetime import datetime
from io import StringIO
from pathlib import Path
from typing import Any

from nvflare.fuel.flare_api.api_spec import (
    AuthenticationError,
    AuthorizationError,
    CommandError,
    InternalError,
    InvalidJobDefinition,
    JobNotDone,
    JobNotFound,
    JobNotRunning,
    JobTimeout,
    NoConnection,
    NoReply,
    SessionClosed,
)
from nvflare.fuel.flare_api.flare_api import Session, new_secure_session

from fedbcs_monai.backends.nvflare.layout import JOB, RECORD, RESULTS, STATISTICS, keep_tracked
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import write_whole
from fedbcs_monai.runs.schema import ROUNDS
from fedbcs_monai.runs.writer import check_folder

REFUSALS = (
    *(AuthenticationError, AuthorizationError, CommandError, InternalError, InvalidJobDefinition),
    *(JobNotDone, JobNotFound, JobNotRunning, JobTimeout, NoReply, SessionClosed, NoConnection),
)
"""What a server answers a user who can correct it."""

AWAY = (AuthenticationError, ConnectionError, InternalError, NoReply, SessionClosed, RuntimeError)
"""What comes instead of an answer while a server falls and starts again; it has forgotten who was logged in."""

LOST = "lost when its server was restarted; `fedbcs flare resume` continues it"
"""The status of a job that NVFlare counts as running for ever."""

POLL_S = 2.0
"""Seconds between two looks at a job."""


class Unreachable(UserError):
    """The server cannot be reached."""


def submit(job: Path, kit: Path, folder: Path, patience_s: float = 30.0) -> str:
    """Submit an exported job, and note in a run folder what belongs to it.

    Args:
        job: folder with ``meta.json``.
        kit: startup kit of an admin.
        folder: of the run, new or empty.
        patience_s: how long to look for the server.

    Returns:
        The job's id.

    Raises:
        UserError: what the user can correct.
    """
    if not (job / "meta.json").is_file():
        raise UserError(f"{job}: is not a job: it has no meta.json; write one with `fedbcs flare export`")
    check_folder(folder)
    with session(kit, patience_s) as server:
        submitted = str(server.submit_job(str(job.absolute())))
    shutil.copytree(job, folder / JOB, dirs_exist_ok=True)
    _note(folder, kit, [submitted])
    return submitted


def resume(folder: Path, patience_s: float = 30.0) -> str:
    """Submit the job of a run again: the server resumes from its newest checkpoint, the sites from their stored state.

    The job before is aborted where it still runs, and waited for, since it writes into the same folder. After the death
    of its server it counts as running for ever, and cannot be aborted.

    Returns:
        The new job's id.
    """
    kit, jobs = _read(folder)
    with session(kit, patience_s) as server:
        with suppress(*REFUSALS, RuntimeError):
            server.abort_job(jobs[-1])
            server.wait_for_job(jobs[-1], timeout=patience_s)
        submitted = str(server.submit_job(str((folder / JOB).absolute())))
    _note(folder, kit, [*jobs, submitted])
    return submitted


def status(folder: Path, patience_s: float = 30.0) -> Mapping[str, Any]:
    """The server's information on a run's newest job: ``job`` (its id), ``status``, ``submitted`` and ``duration``."""
    kit, jobs = _read(folder)
    with session(kit, patience_s) as server:
        meta = server.get_job_meta(jobs[-1])
        lost = _is_lost(server, meta)
    return {
        "job": jobs[-1],
        "status": LOST if lost else meta.get("status", ""),
        "submitted": meta.get("submit_time_iso", meta.get("submit_time", "")),
        "duration": meta.get("duration", ""),
    }


def wait(
    folder: Path,
    patience_s: float = 30.0,
    away_s: float = 1800.0,
    note: Callable[[str], None] = lambda text: None,
) -> str:
    """Wait for a run's newest job to end; its last status. A server that falls meanwhile is waited for.

    So is another job, when the server has come back without this one: somebody may resume the run.

    Args:
        folder: of the run.
        patience_s: how long to look for the server at once.
        away_s: how long a server may be away, and a job that was lost with it not be resumed.
        note: called when the server is lost, when it is back, and when the job is lost.

    Raises:
        UserError: the server was away too long, the job is lost, or the server does not know it.
    """
    kit, _ = _read(folder)
    seen: float | None = None  # when the server last answered, while it is away
    lost: dict[str, float] = {}  # when jobs were found to be lost
    while True:
        try:
            with _connected(kit, patience_s) as server:
                while True:
                    job = _read(folder)[1][-1]  # somebody may have resumed it
                    meta = server.get_job_meta(job)
                    status = str(meta.get("status", ""))
                    if seen is not None:
                        note("the server is back")
                        seen = None
                    if status.startswith("FINISHED"):
                        return status
                    if job not in lost and _is_lost(server, meta):
                        lost[job] = time.monotonic()
                        note(f"job {job} was {LOST}")
                    if job in lost and time.monotonic() - lost[job] > away_s:
                        raise UserError(f"{folder}: job {job} was {LOST}")
                    time.sleep(POLL_S)
        except (*AWAY, Unreachable) as error:
            if seen is None:
                seen = time.monotonic()
                note(f"the server cannot be reached; looking for it for {away_s / 60:.0f} minutes")
            if time.monotonic() - seen > away_s:
                raise UserError(
                    f"{kit}: the server was away for {away_s / 60:.0f} minutes ({_line(error)}); when it is back, "
                    "`fedbcs flare status` shows the job's state, and `fedbcs flare resume` continues it"
                ) from None
            time.sleep(POLL_S)
        except REFUSALS as error:
            raise UserError(f"the server refuses: {_line(error)}") from None


def abort(folder: Path, patience_s: float = 30.0) -> str:
    """Stop a run's newest job; its id. The server keeps a checkpoint."""
    kit, jobs = _read(folder)
    with session(kit, patience_s) as server:
        server.abort_job(jobs[-1])
    return jobs[-1]


def download(folder: Path, patience_s: float = 30.0) -> Path:
    """Fetch the results of a run's newest job into its run folder, and what NVFlare's trackers have left."""
    kit, jobs = _read(folder)
    with session(kit, patience_s) as server:
        fetched = Path(server.download_job_result(jobs[-1], str(folder / "download")))
    runs, statistics = (next(fetched.rglob(name), None) for name in (f"{RESULTS}/{ROUNDS.file}", STATISTICS))
    if runs is None and statistics is None:
        raise UserError(f"{fetched}: job {jobs[-1]} left no run; see its log there")
    if runs:
        shutil.copytree(runs.parent, folder, dirs_exist_ok=True)
    if statistics:
        shutil.copyfile(statistics, folder / STATISTICS)
    keep_tracked(fetched, folder)
    shutil.rmtree(folder / "download")
    return folder


@contextmanager
def session(kit: Path, patience_s: float) -> Iterator[Session]:
    """A connection to the server as the admin whose startup kit this is.

    Raises:
        UserError: that is not a startup kit, or what the server refuses.
    """
    with _connected(kit, patience_s) as opened:
        try:
            yield opened
        except (*REFUSALS, RuntimeError) as error:
            raise UserError(f"the server refuses: {_line(error)}") from None


@contextmanager
def _connected(kit: Path, patience_s: float) -> Iterator[Session]:
    file = kit / "startup" / "fed_admin.json"
    try:
        user = json.loads(file.read_text(encoding="utf-8"))["admin"]["username"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{kit}: is not an admin's startup kit, which holds startup/fed_admin.json") from None
    try:
        with redirect_stdout(StringIO()):  # it says that it connects
            opened = new_secure_session(user, str(kit.absolute()), timeout=patience_s)
    except AWAY as error:
        raise Unreachable(
            f"{kit}: the server cannot be reached ({_line(error)}); is it running, and is its name known?"
        ) from None
    try:
        yield opened
    finally:
        with suppress(*AWAY):  # the server may have gone, and with it the session
            opened.close()


def _is_lost(server: Session, meta: Mapping[str, Any]) -> bool:
    """Whether a job counts as running that began before its server did: nothing runs it any more."""
    if meta.get("status") != "RUNNING" or not meta.get("start_time"):
        return False
    try:
        began = server.get_system_info().server_info.start_time
    except AuthorizationError:  # whoever may look at jobs may not look at servers in every federation
        return False
    return began is not None and datetime.fromisoformat(meta["start_time"]).timestamp() < float(began)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _note(folder: Path, kit: Path, jobs: list[str]) -> None:
    content = {"startup_kit": str(kit.absolute()), "jobs": jobs}
    write_whole(folder / RECORD, (json.dumps(content, indent=1) + "\n").encode())


def _read(folder: Path) -> tuple[Path, list[str]]:
    path = folder / RECORD
    if not path.is_file():
        raise UserError(f"{folder}: was not submitted, there is no {RECORD}; `fedbcs flare submit` writes one")
    content = json.loads(path.read_text(encoding="utf-8"))
    return Path(content["startup_kit"]), list(content["jobs"])
