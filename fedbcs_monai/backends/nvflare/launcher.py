"""SiteLauncher: starts the process of a site's job, and restarts it if it is killed."""

from collections.abc import Callable
from typing import Any

from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher
from nvflare.app_common.job_launcher.process_launcher import ProcessHandle


class SiteLauncher(ClientProcessJobLauncher):  # type: ignore[misc]
    """NVFlare's launcher, whose processes survive a kill.

    NVFlare ends a job at all sites when one site's process of it has died. What this process knew is on the site's disk
    and at the server, so that a new one resumes there.

    Args:
        restarts: so often the process of one job is started again.
    """

    def __init__(self, restarts: int = 3) -> None:
        super().__init__()
        self.restarts = restarts

    def launch_job(self, job_meta: dict[str, Any], fl_ctx: FLContext) -> JobHandleSpec:
        """Start the process."""
        start = super().launch_job
        return SiteProcess(lambda: start(job_meta, fl_ctx), self.restarts)


class SiteProcess(ProcessHandle):  # type: ignore[misc]
    """A process that is started again when a signal has ended it that we did not send.

    Args:
        start: starts it; the handle of what was started.
        restarts: so often.
    """

    adapter: Any

    def __init__(self, start: Callable[[], ProcessHandle], restarts: int) -> None:
        super().__init__(process_adapter=start().adapter)
        self._start = start
        self._left = restarts
        self._wanted = True

    def terminate(self) -> None:
        """End it for good."""
        self._wanted = False
        super().terminate()

    def wait(self) -> None:
        """Until it has ended by itself, or too often."""
        super().wait()
        while self._wanted and self._left and (self.adapter.poll() or 0) < 0:
            self._left -= 1
            self.adapter = self._start().adapter
            super().wait()
