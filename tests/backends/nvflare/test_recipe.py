"""Jobs: what an experiment becomes, and what never travels."""

import json
import re
from pathlib import Path

import pytest
import yaml

from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.trust import load_job
from fedbcs_monai.settings import plain

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def recipe():
    from fedbcs_monai.backends.nvflare.recipe import FedBCSRecipe

    return FedBCSRecipe


def exported(recipe, folder):
    recipe.export(str(folder))
    return folder / recipe.name


def arguments(job, part):
    config = json.loads((job / "app" / "config" / f"config_fed_{part}.json").read_text())
    return config["workflows"][0]["args"] if part == "server" else config["executors"][0]["executor"]["args"]


def test_there_is_neither_code_nor_a_path_in_a_job(recipe, tiny, tmp_path):
    config = tiny("FedBCS")
    job = exported(recipe(config), tmp_path)
    files = {str(path.relative_to(job)) for path in job.rglob("*") if path.is_file()}
    assert files == {
        "meta.json",
        *(f"app/config/{name}.json" for name in ("config_fed_client", "config_fed_server", "experiment")),
    }
    for path in (config.sites, config.output, str(Path.home()), str(Path.cwd())):
        assert not any(path in file.read_text() for file in job.rglob("*.json"))


@pytest.mark.parametrize(
    ("task", "method"),
    [("nuclei", "FedBCS"), ("nuclei", "FedHPro"), ("prostate", "HarmoFL"), ("prostate", "FedAvg")],
)
def test_sites_trust_the_jobs_of_shipped_tasks(recipe, task, method, tmp_path):
    settings = load_config(task, {"method": method})
    job = exported(recipe(settings), tmp_path)
    experiment = job / "app" / "config" / "experiment.json"
    assert plain(load_job(experiment, {})) == plain(settings)
    assert not set("$%") & set(experiment.read_text())
    assert set(re.findall("@[a-z:]+", experiment.read_text())) <= {"@reading", "@preprocessing"}


def test_every_argument_reaches_the_job(recipe, tiny, tmp_path):
    options = {"min_responses": 3, "round_timeout_s": 11, "wait_s": 12, "cross_site": True, "offload_mib": 13}
    job = exported(recipe(tiny(), run_id="mine", restarts=14, poll_s=0.7, **options), tmp_path)
    assert arguments(job, "server") == {"run_id": "mine", **options}
    assert arguments(job, "client") == {"run_id": "mine", "restarts": 14}
    assert json.loads((job / "meta.json").read_text())["min_clients"] == 3
    server = json.loads((job / "app" / "config" / "config_fed_server.json").read_text())
    assert server["server"] == {"task_request_interval": 0.7}


def test_two_runs_have_two_ids_and_server_and_sites_the_same(recipe, tiny, tmp_path):
    jobs = [exported(recipe(tiny()), tmp_path / str(n)) for n in range(2)]
    ids = [{arguments(job, part)["run_id"] for part in ("server", "client")} for job in jobs]
    assert all(len(found) == 1 for found in ids)
    assert ids[0] != ids[1]


def test_what_has_no_place_in_a_federation_is_refused(recipe, tiny):
    with pytest.raises(UserError, match="centralized trains in one place"):
        recipe(tiny(centralized=True))


@pytest.mark.parametrize("option", [{"min_responses": 0}, {"round_timeout_s": 0}, {"wait_s": -1}], ids=str)
def test_nobody_is_waited_for_without_end(option, recipe, tiny):
    with pytest.raises(UserError, match=f"{next(iter(option))} is .* or more"):
        recipe(tiny(), **option)


def test_sites_stream_to_trackers_through_the_server(recipe, tiny, tmp_path):
    job = exported(recipe(tiny(), track=["tensorboard"]), tmp_path)
    names = {
        part: {component["path"].rpartition(".")[2] for component in json.loads(file.read_text())["components"]}
        for part in ("server", "client")
        for file in [job / "app" / "config" / f"config_fed_{part}.json"]
    }
    assert names == {"server": {"TBAnalyticsReceiver"}, "client": {"ConvertToFedEvent"}}


def test_one_tracker_may_be_named_without_a_list(recipe, tiny, tmp_path):
    job = exported(recipe(tiny(), track="tensorboard"), tmp_path)
    assert "TBAnalyticsReceiver" in (job / "app" / "config" / "config_fed_server.json").read_text()


@pytest.mark.parametrize(
    ("track", "said"),
    [
        ("a_tracker", "choose one of tensorboard, mlflow$"),
        ("wandb", "choose one of tensorboard, mlflow$"),
        ("mlflow", "pip install 'fedbcs-monai"),
    ],
    ids=["unknown", "not offered", "not installed"],
)
@pytest.mark.parametrize("listed", [True, False])
def test_a_tracker_that_is_not_there_is_said(recipe, tiny, monkeypatch, track, said, listed):
    monkeypatch.setattr("fedbcs_monai.backends.nvflare.recipe.find_spec", lambda name: None)
    with pytest.raises(UserError, match=said):
        recipe(tiny(), track=[track] if listed else track)


def test_a_federation_on_this_machine_needs_a_site_list(recipe, tmp_path):
    from nvflare.recipe import SimEnv

    with pytest.raises(UserError, match="needs a site list"):
        recipe(load_config("nuclei")).run(SimEnv(num_clients=2, workspace_root=str(tmp_path)))


def test_a_proof_of_concept_has_the_sites_of_the_list(recipe, tiny):
    from nvflare.recipe import PocEnv

    made = recipe(tiny())
    env = PocEnv(username="me@here.org")
    made.process_env(env)
    project = yaml.safe_load(Path(env.project_conf_path).read_text())
    names = {kind: [p["name"] for p in project["participants"] if p["type"] == kind] for kind in ("client", "admin")}
    assert names == {"client": ["Alder", "Birch", "Cedar", "Elm"], "admin": ["me@here.org"]}
    assert project["builders"][-1]["args"] == {"sites": tiny().sites}
