"""Policy: the site policy that lets a startup kit run our jobs, written into the kit or by provisioning."""

import json
from pathlib import Path
from typing import Any

from nvflare.apis.fl_constant import WorkspaceConstants
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.app_common.widgets.component_path_authorizer import CLASS_ALLOW_LIST
from nvflare.lighter.constants import PropKey
from nvflare.lighter.ctx import ProvisionContext
from nvflare.lighter.entity import Project
from nvflare.lighter.spec import Builder

from fedbcs_monai.backends.nvflare.site_file import NAME, TEXT
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import write_whole

ALLOWED = tuple(
    f"fedbcs_monai.backends.nvflare.{name}"
    for name in (
        "controller.FederatedController",
        "executor.SiteExecutor",
        "statistics.SiteStatistics",
    )
)
"""The classes that a job of ours names; none of them takes a command or a path from the job."""

LAUNCHER = "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher"
OUR_LAUNCHER = "fedbcs_monai.backends.nvflare.launcher.SiteLauncher"
"""What starts a job at a site, in the resources of its kit."""

LOG_STREAMING: str = PropKey.ALLOW_LOG_STREAMING
"""NVFlare's key in the resources of a kit; true unless it says otherwise."""

PRIVACY = {
    "scopes": [
        {
            "name": "fedbcs",
            "properties": {"text": "what leaves this site passes the filters of task_result_filters"},
            "task_result_filters": [],
            "task_data_filters": [],
        }
    ],
    "default_scope": "fedbcs",
}
"""A site's privacy policy with nothing filtered yet: what is entered there holds for every job, whatever it says."""


def write_policy(kit: Path, sites: Path | None = None) -> list[Path]:
    """Let a party run our jobs: the class allow list, a privacy policy, and a site file to fill in.

    What already exists is kept: the allow list grows by three entries, and files that exist are left as they are.

    Args:
        kit: a startup kit of a server or a site, the folder that holds ``startup`` and ``local``.
        sites: site list for the site file; None leaves that to the site.

    Returns:
        The files that were written.

    Raises:
        UserError: that is not a startup kit.
    """
    local = kit / "local"
    if not (kit / "startup").is_dir() or not local.is_dir():
        raise UserError(
            f"{kit}: is not the startup kit of a server or a site, which holds the folders startup and local"
        )
    privacy, site_file = local / WorkspaceConstants.PRIVACY_CONFIG, local / NAME
    written = [allow(local)]
    for path, content in ((privacy, json.dumps(PRIVACY, indent=2) + "\n"), (site_file, _site_file(sites))):
        if not path.exists():
            write_whole(path, content.encode())
            written.append(path)
    return written


def _site_file(sites: Path | None) -> str:
    return TEXT if sites is None else f"sites: {json.dumps(str(sites.absolute()))}\n{TEXT}"


def allow(local: Path) -> Path:
    """Name our classes in the resources of a kit: in ``resources.json`` where there is one, else in the provisioned.

    They are allowed in jobs, and where NVFlare starts a site's job as a process, `SiteLauncher` does it. Logs stay
    where they are written: NVFlare would stream those of a site, with its paths and names of files, to the server.
    """
    own, provisioned = local / WorkspaceConstants.RESOURCES_CONFIG, local / WorkspaceConstants.DEFAULT_RESOURCES_CONFIG
    file: Path = provisioned if provisioned.exists() and not own.exists() else own
    try:
        resources: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        allowed = resources.setdefault(CLASS_ALLOW_LIST, list(DEFAULT_CLASS_ALLOW_LIST))
        if "*" not in allowed:
            allowed += [name for name in ALLOWED if name not in allowed]
        resources[LOG_STREAMING] = False
        for component in resources.get("components", []):
            if component["path"] == LAUNCHER:
                component["path"] = OUR_LAUNCHER
    except (ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); repair or restore it") from None
    write_whole(file, (json.dumps(resources, indent=2) + "\n").encode())
    return file


class SitePolicyBuilder(Builder):  # type: ignore[misc]
    """Provisioning with our policy in every kit: a line in the ``builders`` of a project.yml, behind StaticFileBuilder.

    Args:
        sites: site list to be named in every site file, for a federation on one machine; empty: each names its own.
    """

    def __init__(self, sites: str = "") -> None:
        self.sites = Path(sites) if sites else None

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Write the policy of the server and of every client."""
        for participant in [project.get_server(), *project.get_clients()]:
            write_policy(Path(ctx.get_ws_dir(participant)), self.sites)
