"""A consortium on this machine: real processes of a server and three sites, with certificates, on loopback."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import yaml

from fedbcs_monai.cli import main
from fedbcs_monai.runs.checkpoint import read_checkpoint
from fedbcs_monai.runs.prototypes import read_kept_prototypes
from fedbcs_monai.runs.schema import PROTOTYPES
from fedbcs_monai.runs.writer import LOCK
from fedbcs_monai.settings import plain

PATIENCE_S = 900
"""Longer than anything takes on a busy machine."""

SITES = ("Alder", "Birch", "Cedar")
SERVER, ADMIN = "localhost", "admin@coordinator.org"
PROMPT = ["--min-responses", "3", "--wait-s", "600", "--round-timeout-s", "1800"]
"""Nobody is done without."""


class Consortium:
    """What provisioning has written, and the processes that run from it."""

    job, trainer = "nvflare.private.fed.app.client.worker_process", "fedbcs_monai.backends.nvflare.trainer"
    """Modules that a site runs."""

    def __init__(self, folder: Path, sites: Path) -> None:
        from fedbcs_monai.backends.nvflare.environments import write_project

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

    def family(self, name: str):
        """All processes of a party, those of its jobs first."""
        import psutil

        process = psutil.Process(self._processes[name].pid)
        return [*process.children(recursive=True)[::-1], process]

    def process(self, name: str, module: str):
        """The process of a party that runs a module; None if there is none."""
        import psutil

        for process in self.family(name):
            try:
                if module in process.cmdline():
                    return process
            except psutil.Error:  # it has just gone
                continue
        return None

    def kill(self, name: str) -> None:
        """Kill a party and all processes of its jobs, as a power cut would."""
        for process in self.family(name):
            process.kill()
        self._processes.pop(name).wait()

    def kill_process(self, name: str, module: str) -> None:
        """Kill the process of a party that runs a module, and nothing else."""
        self.wait_until(lambda: self.process(name, module), f"{name} has a process that runs {module}")
        self.process(name, module).kill()

    @contextmanager
    def standing_still(self, name: str):
        """Stop all processes of a party for a while, as a machine that hangs does."""
        stopped = self.family(name)
        for process in stopped:
            process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            for process in stopped:
                process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Kill everybody."""
        for name in list(self._processes):
            self.kill(name)

    def submit(self, config, folder: Path, options=PROMPT) -> tuple[str, Path]:
        """Export a configuration and submit it: the run's id, and the run folder."""
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps(plain(config)))
        job, run = folder / "job", folder / "run"
        assert main(["flare", "export", str(folder / "config.json"), "-o", str(job), "-q", *options]) == 0
        assert main(["flare", "submit", str(job), "--startup-kit", str(self.admin), "-o", str(run), "-q"]) == 0
        server = json.loads((job / "app" / "config" / "config_fed_server.json").read_text())
        return server["workflows"][0]["args"]["run_id"], run

    def logs(self, name: str) -> str:
        """All that a party has logged."""
        return "".join(path.read_text(errors="replace") for path in (self.kits / name).rglob("*log*") if path.is_file())

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
        from fedbcs_monai.backends.nvflare.submission import session
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
def finished():
    """Wait for a run and fetch it; what its server says of it."""

    def fetch(run: Path):
        assert main(["flare", "status", str(run), "--wait", "-q"]) == 0
        assert main(["flare", "download", str(run), "-q"]) == 0
        return json.loads((run / "summary.json").read_text())

    return fetch


@pytest.fixture(scope="session")
def assert_same_run():
    """Compare a run of NVFlare's with one in one process: models, prototypes and every number that trained."""

    def same(flare: Path, one_process: Path) -> None:
        tensors = [{path.name: path.read_bytes() for path in f.glob("*.safetensors")} for f in (flare, one_process)]
        assert {"model.safetensors", "last.safetensors"} <= tensors[0].keys()
        kept = [read_kept_prototypes(folder) for folder in (flare, one_process)]  # a site's own only in one process
        if kept[0] is not None and kept[1] is not None:
            assert kept[0].server.keys() == kept[1].server.keys()
            assert all(torch.equal(kept[0].server[name], tensor) for name, tensor in kept[1].server.items())
            for each in tensors:
                del each[PROTOTYPES]
        assert tensors[0] == tensors[1]
        assert not (flare / LOCK).exists()
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
