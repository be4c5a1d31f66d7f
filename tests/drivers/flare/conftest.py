"""A consortium on this machine: real processes of a server and three sites, with certificates, on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from fedbcs_monai.federated.checkpoint import read_checkpoint

PATIENCE_S = 900
"""Longer than anything takes on a busy machine."""

SITES = ("Alder", "Birch", "Cedar")
SERVER, ADMIN = "localhost", "admin@coordinator.org"


class Consortium:
    """What provisioning has written, and the processes that run from it."""

    def __init__(self, folder: Path, sites: Path) -> None:
        from fedbcs_monai.drivers.flare.environments import write_project

        self.sites = sites
        project = folder / "project.yml"
        write_project(project, SITES, str(sites))
        content = yaml.safe_load(project.read_text())
        content["participants"][0]["fed_learn_port"] = free_port()
        project.write_text(yaml.safe_dump(content))
        nvflare = [sys.executable, "-m", "nvflare.cli", "provision", "-p", str(project), "-w", str(folder / "kits")]
        subprocess.run(nvflare, check=True, capture_output=True, timeout=PATIENCE_S)
        self.kits = folder / "kits" / "consortium" / "prod_00"
        self.admin = self.kits / ADMIN
        self._processes: dict[str, subprocess.Popen] = {}
        self._keep_jobs_here(folder / "storage")

    def _keep_jobs_here(self, storage: Path) -> None:
        path = self.kits / SERVER / "local" / "resources.json.default"
        resources = json.loads(path.read_text())
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(storage / "snapshots")
        for component in resources["components"]:
            if component["id"] == "job_manager":
                component["args"]["uri_root"] = str(storage / "jobs")
        path.write_text(json.dumps(resources))

    def start(self, *names: str) -> None:
        """Start parties as their kits say, and wait until the server knows every site."""
        environment = {
            **os.environ,
            "NVFLARE_CLIENT_OUTCOME_WAIT_TIMEOUT": "10",  # s that a job waits, in the end, for sites that are gone
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        for name in names or (SERVER, *SITES):
            with (self.kits / name / "console.log").open("a") as log:
                self._processes[name] = subprocess.Popen(
                    ["bash", str(self.kits / name / "startup" / "sub_start.sh"), "--once"],
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,
                )
        self.wait_until(lambda: set(SITES) <= self._connected(), "every site is connected")

    def kill(self, name: str) -> None:
        """Kill a party and all processes of its jobs, as a power cut would."""
        import psutil

        process = self._processes.pop(name)
        for one in [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]:
            one.kill()
        process.wait()

    def stop(self) -> None:
        """Kill everybody."""
        for name in list(self._processes):
            self.kill(name)

    def trainer(self, name: str) -> int | None:
        """The process that trains at a site."""
        import psutil

        for process in psutil.Process(self._processes[name].pid).children(recursive=True):
            if "fedbcs_monai.drivers.flare.trainer" in process.cmdline():
                return process.pid
        return None

    def kill_trainer(self, name: str) -> None:
        """Kill the process that trains at a site."""
        self.wait_until(lambda: self.trainer(name), f"{name} has a trainer")
        os.kill(self.trainer(name), signal.SIGKILL)

    def logs(self, name: str) -> str:
        """All that a party has logged."""
        return "".join(path.read_text(errors="replace") for path in (self.kits / name).rglob("*log*.txt"))

    def wait_until(self, holds, what: str) -> None:
        """Wait for something to hold."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            assert time.monotonic() < deadline, f"waited in vain until {what}"
            time.sleep(0.1)

    def wait_for_round(self, run_id: str, round: int) -> None:
        """Wait until the server has a checkpoint of a round."""
        file = self.kits / SERVER / "fedbcs" / "runs" / run_id / "checkpoints" / f"round_{round:04d}.json"
        self.wait_until(file.exists, f"round {round} is done")

    def _connected(self) -> set[str]:
        from fedbcs_monai.drivers.flare.submission import session
        from fedbcs_monai.errors import UserError

        try:
            with session(self.admin, 30) as server:
                return {client.name for client in server.get_connected_client_list()}
        except UserError:
            return set()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def consortium(tmp_path_factory, nuclei_sites):
    """Three hospitals and their server, running."""
    pytest.importorskip("nvflare")
    parties = Consortium(tmp_path_factory.mktemp("consortium"), nuclei_sites)
    try:
        parties.start()
        yield parties
    finally:
        parties.stop()


@pytest.fixture(scope="session")
def assert_same_run():
    """Compare a run of NVFlare's with one in one process: models, prototypes and every number that trained."""

    def same(flare: Path, one_process: Path) -> None:
        for name in ("model.safetensors", "last.safetensors"):
            assert (flare / name).read_bytes() == (one_process / name).read_bytes(), name
        states = [read_checkpoint(folder / "checkpoints").state for folder in (flare, one_process)]
        assert states[0].round == states[1].round
        assert states[0].shared.keys() == states[1].shared.keys()
        assert all(torch.equal(states[0].shared[name], tensor) for name, tensor in states[1].shared.items())
        assert numbers(flare) == numbers(one_process)

    return same


def numbers(folder: Path) -> list[str]:
    """Every number of every round but how long it took, in order."""
    lines = (folder / "rounds.csv").read_text(encoding="utf-8").splitlines()
    return sorted(line for line in lines if ",seconds," not in line)
