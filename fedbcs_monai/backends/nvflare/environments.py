"""Local federations: NVFlare's simulator or a proof-of-concept deployment on this machine."""

import json
from collections.abc import Sequence
from pathlib import Path

import yaml
from nvflare.recipe import PocEnv, SimEnv
from nvflare.recipe.spec import ExecEnv

from fedbcs_monai.backends.nvflare.policy import allow
from fedbcs_monai.backends.nvflare.site_file import NAME
from fedbcs_monai.catalog import shipped
from fedbcs_monai.data import read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import write_whole

PROJECT = Path("configs") / "flare" / "project.yml"
"""Among the shipped files: what a consortium provisions its startup kits from."""


def prepare(env: ExecEnv, job: str, sites: str | None, folder: Path, trusted: Sequence[str] = ()) -> None:
    """Let the parties of a local federation run our jobs, on the sites of a list; do nothing to one that is there.

    Args:
        env: where a job will run.
        job: its name.
        sites: site list; every party's data are in it.
        folder: for what provisioning reads.
        trusted: what the parties of a simulation let the job use besides the allow-list.

    Raises:
        UserError: there is no site list.
    """
    if isinstance(env, SimEnv):
        local = Path(env.workspace_root) / job / "local"
        local.mkdir(parents=True, exist_ok=True)
        allow(local)
        kept = (Path(env.workspace_root) / "fedbcs").absolute()
        site_file = {"sites": _needed(sites), "folder": str(kept), "allow": list(trusted)}
        write_whole(local / NAME, json.dumps(site_file).encode())
    elif isinstance(env, PocEnv) and not env.project_conf_path:
        clients = env.clients or sorted(read_sites(Path(_needed(sites))))
        write_project(folder / "project.yml", clients, _needed(sites), env.username)
        env.project_conf_path = str(folder / "project.yml")


def write_project(path: Path, clients: Sequence[str] = (), sites: str = "", admin: str = "") -> None:
    """Write the shipped project.yml, with other clients if any are named.

    Args:
        path: where.
        clients: names of the sites.
        sites: site list on this machine, to be named in every site file; empty: each site names its own.
        admin: name of the admin; empty: as shipped.
    """
    text = (shipped() / PROJECT).read_text(encoding="utf-8")
    if clients:
        content = yaml.safe_load(text)
        server, lead = (next(p for p in content["participants"] if p["type"] == kind) for kind in ("server", "admin"))
        lead["name"] = admin or lead["name"]
        parties = [{"name": name, "type": "client", "org": "local"} for name in clients]
        content["participants"] = [server, *parties, lead]
        content["builders"][-1]["args"] = {"sites": sites}
        text = yaml.safe_dump(content, sort_keys=False)
    write_whole(path, text.encode())


def _needed(sites: str | None) -> str:
    if not sites:
        raise UserError("the configuration lacks sites: a federation on this machine needs a site list")
    return str(sites)
