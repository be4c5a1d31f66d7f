"""Settings: every key explains itself, values are checked by type, and old names still load."""

import json
import subprocess
import sys

import pytest
from msgspec import structs

from fedbcs_monai.config import load_config, settings_of
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.trust import load_job
from fedbcs_monai.runs.status import changed_keys
from fedbcs_monai.settings import KEYS, SLOTS, Settings, keys_that, name_of, plain


def test_importing_the_settings_takes_no_library_that_takes_seconds():
    code = "import sys, fedbcs_monai.settings; print({'torch', 'monai', 'numpy', 'nvflare'} & sys.modules.keys())"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "set()"


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_every_key_says_what_it_is_for_in_one_line(key):
    assert key.help
    assert "\n" not in key.help
    assert key.kind
    assert getattr(Settings(), key.name) == key.default


def test_settings_cannot_be_changed():
    with pytest.raises(AttributeError):
        Settings().rounds = 5
    assert structs.replace(Settings(), rounds=5).rounds == 5


def test_a_site_decides_where_and_how_it_computes_and_nothing_else():
    assert keys_that("site") == ("sites", "ood", "device", "threads", "workers", "cache")


def test_data_and_results_never_travel():
    assert keys_that("travels", False) == ("output", "sites")


def test_a_run_may_be_resumed_longer_and_elsewhere_and_not_otherwise():
    assert keys_that("resume") == (
        *("name", "output", "rounds", "patience", "checkpoint_every", "keep_checkpoints"),
        *("device", "threads", "workers", "cache"),
    )


def test_every_component_has_a_category_of_the_allow_list():
    assert {key for key, about in KEYS.items() if about.kind.startswith("a component")} == SLOTS.keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"rounds": 0}, "rounds is 0: it must be a whole number, 1 or more"),
        ({"rounds": 2.0}, "rounds is 2.0: it must be a whole number"),
        ({"rounds": True}, "rounds is True: it must be a whole number"),
        ({"cache": 1}, "cache is 1: it must be true or false"),
        ({"precision": "float8"}, "precision is 'float8': it must be one of float32, bfloat16, float16"),
        ({"centralized": "sites"}, "centralized is 'sites': give true, or site for as many steps as one site makes"),
        ({"round": 5}, "unknown key 'round', did you mean 'rounds'"),
    ],
    ids=str,
)
def test_a_value_of_another_type_is_refused_with_what_it_must_be(content, said):
    with pytest.raises(UserError, match=said):
        settings_of(content)


def test_an_empty_key_is_its_default_and_is_not_written():
    settings = settings_of({"leave_out": None, "slicing": None, "classes": None, "centralized": None})
    assert settings == Settings()
    assert not {"leave_out", "slicing", "classes", "trust"} & plain(settings).keys()
    assert plain(settings)["rounds"] == 400


def test_what_is_written_is_read_back_the_same():
    settings = load_config("prostate", {"rounds": 3, "centralized": "site", "classes": ["rest", "gland"]})
    assert settings_of(json.loads(json.dumps(plain(settings)))) == settings


def test_a_run_without_a_name_goes_by_its_method():
    assert [name_of(Settings()), name_of(Settings(name="mine"))] == ["FedAvg", "mine"]


# Names of yesterday.


def test_old_names_of_keys_load_with_one_warning_each(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"pool": True, "familiarity": False}))
    with pytest.warns(UserWarning, match=r"config\.json: familiarity is now ood, pool is now centralized") as warned:
        settings = load_config(tmp_path / "config.json")
    assert len(warned) == 1
    assert (settings.centralized, settings.ood) == (True, False)
    with pytest.warns(UserWarning, match="command line: pool is now centralized"):
        assert load_config("nuclei", {"pool": "site"}).centralized == "site"


def test_an_old_field_of_a_method_loads_with_one_warning(tmp_path):
    method = {"_target_": "fedbcs_monai.methods.FedProto", "tap": "penultimate", "weight": 2}
    (tmp_path / "config.json").write_text(json.dumps({"method": method}))
    with pytest.warns(UserWarning, match="method::tap is now method::feature_layer") as warned:
        settings = load_config(tmp_path / "config.json")
    assert len(warned) == 1
    assert settings.method == {"_target_": method["_target_"], "feature_layer": "penultimate", "weight": 2}
    with pytest.warns(UserWarning, match="command line: method::tap is now method::feature_layer"):
        overridden = load_config("nuclei", {"method": "FedProto", "method::tap": "penultimate"})
    assert overridden.method["feature_layer"] == "penultimate"


def test_a_job_of_an_earlier_version_loads(tmp_path):
    (tmp_path / "experiment.json").write_text(json.dumps({"familiarity": False}))
    with pytest.warns(UserWarning, match="familiarity is now ood"):
        assert load_job(tmp_path / "experiment.json", {}).ood is False


def test_a_run_of_an_earlier_version_is_resumed_under_the_same_settings(tmp_path):
    written = {"pool": None, "familiarity": False, "rounds": 3, "epochs": 2}
    (tmp_path / "config.json").write_text(json.dumps(written))
    (tmp_path / "environment.json").write_text("{}")
    same = Settings(ood=False, rounds=9, epochs=2, sites="")
    assert changed_keys(tmp_path, same) == []
    assert changed_keys(tmp_path, structs.replace(same, epochs=1, centralized=True)) == ["centralized", "epochs"]


def test_a_schedule_over_all_rounds_does_not_go_on_to_more_of_them(tmp_path):
    """Its learning rate in every round depends on their number, so the run would not equal one straight through."""
    schedule = {"_target_": "torch.optim.lr_scheduler.CosineAnnealingLR", "T_max": "@rounds"}
    settings = Settings(schedule=schedule, rounds=3)
    (tmp_path / "config.json").write_text(json.dumps({"schedule": schedule, "rounds": 3}))
    (tmp_path / "environment.json").write_text("{}")
    assert changed_keys(tmp_path, settings) == []
    assert changed_keys(tmp_path, structs.replace(settings, rounds=9)) == ["rounds"]
