"""The launcher: a job's process that is killed is started again, one that ends or that we end is not."""

import os
import signal
import sys
import threading

import pytest

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")

WAITS, LEAVES, FAILS = "input()", "", "raise SystemExit(3)"


@pytest.fixture
def process(tmp_path):
    """A `SiteProcess` that runs lines of Python, the next one when it is started again."""
    from nvflare.app_common.job_launcher.process_launcher import ProcessHandle
    from nvflare.utils.process_utils import spawn_process

    from fedbcs_monai.backends.nvflare.launcher import SiteProcess

    started = []

    def run(*lines, restarts=3):
        waiting = "import time; time.sleep(600)"
        texts = [waiting if line is WAITS else line for line in lines]

        def start():
            adapter = spawn_process([sys.executable, "-c", texts[len(started)]], dict(os.environ))
            started.append(adapter.pid)
            return ProcessHandle(process_adapter=adapter)

        return SiteProcess(start, restarts), started

    yield run
    for pid in started:
        try:
            os.killpg(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_killed_process_is_started_again(process):
    handle, started = process(WAITS, LEAVES)
    os.kill(started[0], signal.SIGKILL)
    handle.wait()
    assert (len(started), handle.poll()) == (2, 0)


def test_so_often_and_no_more(process):
    suicide = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    handle, started = process(*[suicide] * 9, restarts=2)
    handle.wait()
    assert (len(started), handle.poll()) == (3, 1)


@pytest.mark.parametrize(("line", "code"), [(LEAVES, 0), (FAILS, 1)])
def test_a_process_that_ends_by_itself_has_ended(process, line, code):
    handle, started = process(line)
    handle.wait()
    assert (len(started), handle.poll()) == (1, code)


def test_a_process_that_we_end_is_not_started_again(process):
    handle, started = process(WAITS, WAITS)
    waiting = threading.Thread(target=handle.wait)
    waiting.start()
    handle.terminate()
    waiting.join(60)
    assert not waiting.is_alive()
    assert len(started) == 1
