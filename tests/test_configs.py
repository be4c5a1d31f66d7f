"""Configurations: every shipped one can be built, and what is misspelt is named with what was meant."""

import json
import re
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fedbcs_monai.benchmark.read_plan import NAMES as BENCHMARK_NAMES
from fedbcs_monai.catalog import shipped, sizes, tasks, variants
from fedbcs_monai.cli.overrides import overrides_of
from fedbcs_monai.components import build
from fedbcs_monai.config import load_config, read_yaml, settings_of, value_of
from fedbcs_monai.errors import UserError
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.registry import own_methods
from fedbcs_monai.runs.setup import build_segmentation, compute_of
from fedbcs_monai.settings import plain

CONFIGS = shipped() / "configs"
SMALL = {"network_def::features": [8, 8, 8, 8, 8], "device": "cpu", "threads": 1}
SIZED = [(task, size) for task in tasks() for size in sizes(task)]
MISSING = object()


def written(folder: Path, name: str = "mine.yaml", **content) -> Path:
    """A configuration on top of a shipped one."""
    path = folder / name
    path.write_text(yaml.safe_dump({"stack": [str(CONFIGS / "tasks" / "nuclei" / "full.yaml")], **content}))
    return path


def inside(config, key: str):
    """What ``a::b::0`` names, or MISSING."""
    for name in key.split("::"):
        if isinstance(config, list) and name.isdigit() and int(name) < len(config):
            config = config[int(name)]
        elif isinstance(config, dict) and name in config:
            config = config[name]
        else:
            return MISSING
    return config


# What is shipped.


def check_built(settings):
    """Build every component."""
    network = build(settings, "network_def")
    assert isinstance(network, Segmenter)
    build_segmentation(settings, compute_of(settings))
    build(settings, "optimizer", params=list(network.parameters())).step()
    for key in ("method", "loss", "slicing", "augmentation"):
        assert (build(settings, key) is None) == (getattr(settings, key) == {})


@pytest.mark.parametrize(("task", "size"), SIZED)
@pytest.mark.parametrize("method", own_methods())
def test_every_task_of_every_size_can_be_built_with_every_method(task, size, method):
    check_built(load_config(task, {"method": method, **SMALL}, size=size))


@pytest.mark.filterwarnings("ignore:tau 0.005")  # the paper's
@pytest.mark.parametrize("variant", variants())
@pytest.mark.parametrize("task", tasks())
def test_every_variant_of_a_task_can_be_built(task, variant):
    check_built(load_config(task, SMALL, variant=variant))


FILES = sorted([*(CONFIGS / "tasks").rglob("*.yaml"), *(CONFIGS / "variants").glob("*.yaml")])


@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(CONFIGS).as_posix() for path in FILES])
def test_no_key_is_set_to_the_value_it_has_beneath(path):
    content = value_of(path.read_text())
    below = [path.parent / name for name in content.pop("stack", [])]
    task = path.stem.rpartition("_")[2] if path.parent.name == "variants" else path.parent.name
    known = [task if task in tasks() else "nuclei"] if path.parent.name == "variants" else []
    beneath = plain(load_config([*known, *below])) if known or below else {}
    assert [key for key, value in content.items() if inside(beneath, key) == value] == []


@pytest.mark.parametrize("task", ["nuclei", "prostate"])
def test_every_method_has_the_paper_s_protocol(task):
    """400 rounds of one epoch, batch 6, weight decay 1e-4; SGD 0.01 at 256 x 256, Adam 1e-4 at 384 x 384."""
    optimizer, side = {"nuclei": (("torch.optim.SGD", 0.01), 256), "prostate": (("torch.optim.Adam", 1e-4), 384)}[task]
    config = load_config(task)
    assert (config.rounds, config.epochs, config.batch_size) == (400, 1, 6)
    assert (config.optimizer["_target_"], config.optimizer["lr"]) == optimizer
    assert config.optimizer["weight_decay"] == 1e-4
    assert config.optimizer.get("momentum", 0) == 0
    assert f"[{side}, {side}" in json.dumps([config.preprocessing, config.augmentation])
    for variant in ("paper", "authors"):
        method = load_config(task, variant=variant).method
        assert method.get("tau") == {"nuclei": 0.005, "prostate": 0.4}[task]


# The layers of a method.


def network_of(*arguments, **options):
    """What is set of the layers that methods bring."""
    network = load_config(*arguments, **options).network_def
    return {key: network[key] for key in ("norm", "recalibrate", "context", "harmonize") if key in network}


def test_a_method_that_is_named_brings_its_layers():
    levels = [1, 2, 3, 4]
    assert network_of("nuclei") == {"norm": "group"}
    assert network_of("nuclei", {"method": "fedbn"}) == {"norm": "batch"}
    assert network_of("nuclei", {"method": "HarmoFL"}) == {"norm": "group", "harmonize": {}}
    both = {"norm": "group", "recalibrate": levels, "context": {"width": 256}}
    assert network_of("nuclei", {"method": "FedBCS"}) == network_of("nuclei", {"method": "FedBCSM"}) == both


def test_what_a_configuration_or_an_override_sets_is_left_as_it_is(tmp_path):
    overrides = {"network_def::norm": "instance", "network_def::recalibrate": [2], "network_def::context::width": 8}
    expected = {"norm": "instance", "recalibrate": [2], "context": {"width": 8}}
    assert network_of("nuclei", {"method": "FedBCS", **overrides}) == expected
    assert network_of("nuclei", {**overrides, "network_def::context": {"width": 8}, "method": "FedBCS"}) == expected
    assert network_of(written(tmp_path, **{"network_def::norm": "instance"}), {"method": "FedBN"})["norm"] == "instance"


def test_the_last_method_that_is_named_counts():
    assert network_of("nuclei", {"method": "FedAvg"}, variant="authors")["norm"] == "batch_statistics"
    assert "context" not in network_of("nuclei", {"method": "FedAvg"}, variant="authors")


def test_a_method_with_its_target_is_taken_as_it_stands(tmp_path):
    fedbcs = {"_target_": "fedbcs_monai.methods.FedBCS"}
    assert network_of("nuclei", {"method": fedbcs}) == {}
    run = load_config("nuclei", {"method": fedbcs, "network_def::context": {"width": 8}})
    (tmp_path / "config.json").write_text(json.dumps(plain(run)))
    assert load_config(tmp_path / "config.json") == run


def test_a_network_of_another_kind_is_given_no_layers():
    net = {"_target_": "fedbcs_monai.networks.Segmenter", "in_channels": 3}
    assert load_config("nuclei", {"method": "FedBCS", "network_def": net}).network_def == net


@pytest.mark.parametrize(
    ("key", "value", "least"),
    [
        *(("rounds", 0, 1), ("batch_size", 2.5, 1), ("evaluate_every", 0, 1), ("checkpoint_every", "x", 1)),
        *(("epochs", None, 1), ("workers", -1, 0), ("seed", True, 0)),
    ],
)
def test_what_must_be_a_whole_number_is_refused_if_it_is_not_one(key, value, least):
    with pytest.raises(UserError, match=f"{key} is {value!r}: it must be a whole number, {least} or more"):
        load_config("nuclei", {key: value})


def test_what_a_run_writes_down_can_be_loaded_again(tmp_path):
    config = load_config("prostate", {"method": "FedBCS", "rounds": 3})
    (tmp_path / "config.json").write_text(json.dumps(plain(config)))
    assert load_config(tmp_path / "config.json") == config


# Names.

WORDS = [
    "NO",
    "no",
    "on",
    "off",
    "yes",
    "true",
    "001",
    "1e5",
    "2024-01-01",
    "0o17",
    "1_000",
    "12:30",
    "1.0",
    "0x1F",
    ".5",
]


@pytest.mark.parametrize("word", WORDS)
def test_a_name_stays_the_text_that_it_is(word, tmp_path):
    path = tmp_path / "mine.yaml"
    keys = ("task", "name", "leave_out", "output")
    lines = [f"{key}: {word}" for key in keys]
    path.write_text("\n".join(["stack: [nuclei]", *lines, f"classes: [background, {word}]"]))
    config = load_config(path)
    assert [getattr(config, key) for key in keys] == [word] * 4
    assert config.classes == ["background", word]
    given = overrides_of([f"--{key}={word}" for key in keys] + ["--classes", f"[background, {word}]"])
    assert given == {**dict.fromkeys(keys, word), "classes": ["background", word]}


@pytest.mark.parametrize("word", WORDS)
def test_a_benchmark_s_names_stay_the_text_that_they_are(word):
    text = f"{{tasks: {{{word}: {{sites: {word}}}}}, methods: [{word}], trainings: {{{word}: {{label: {word}}}}}}}"
    expected = {"tasks": {word: {"sites": word}}, "methods": [word], "trainings": {word: {"label": word}}}
    assert read_yaml(text, BENCHMARK_NAMES) == expected


@settings(deadline=None)
@example("0E0A")
@given(st.from_regex(r"[A-Za-z0-9_.][A-Za-z0-9_.+-]{0,12}", fullmatch=True))
def test_whatever_a_name_looks_like_it_stays_text(word):
    expected = None if word in ("null", "Null", "NULL") else word
    assert read_yaml(f"leave_out: {word}") == {"leave_out": expected}
    assert value_of(word, "leave_out") == expected
    assert list(read_yaml(f"{word}: 1")) == [expected]


def test_numbers_and_switches_stay_what_they_are():
    text = "{rounds: 10, cache: no, shuffle: yes, lr: 1e-4, slicing: null, style: {gate: scalar}, when: 2024-01-01}"
    assert read_yaml(text) == {
        "rounds": 10, "cache": False, "shuffle": True, "lr": 1e-4, "slicing": None, "style": {"gate": "scalar"},
        "when": "2024-01-01",
    }  # fmt: skip
    assert read_yaml("inner: {_target_: A, method: 3, name: no}") == {
        "inner": {"_target_": "A", "method": 3, "name": False}
    }
    assert (value_of("null", "leave_out"), value_of("5", "rounds"), value_of("")) == (None, 5, None)


@pytest.mark.parametrize("key", ["cache", "compile", "shuffle", "best_on_test", "ood", "channels_last"])
@pytest.mark.parametrize("value", ["maybe", None, 1])
def test_a_switch_is_true_or_false(key, value):
    with pytest.raises(UserError, match=f"{key} is {value!r}: it must be true or false"):
        load_config("nuclei", {key: value})


@pytest.mark.parametrize("key", ["output", "sites", "device", "leave_out", "name", "task"])
def test_a_name_is_one_text(key):
    with pytest.raises(UserError, match=rf"{key} is \['a'\]: it must be text"):
        load_config("nuclei", {key: ["a"]})


# Stacking.


def test_a_later_file_wins_and_the_command_line_over_all(tmp_path):
    path = written(tmp_path, rounds=7, epochs=2)
    config = load_config(path, {"rounds": 9})
    assert (config.rounds, config.epochs, config.batch_size) == (9, 2, 6)


def test_a_stack_may_name_a_shipped_task(tmp_path):
    (tmp_path / "mine.yaml").write_text("stack: [nuclei]\nrounds: 5")
    assert load_config(tmp_path / "mine.yaml") == load_config("nuclei", {"rounds": 5})


def test_a_stack_that_loops_is_refused(tmp_path):
    for name, beneath in (("a", "b"), ("b", "a")):
        (tmp_path / f"{name}.yaml").write_text(f"stack: [{beneath}.yaml]")
    with pytest.raises(UserError, match=r"a\.yaml: includes itself"):
        load_config(tmp_path / "a.yaml")


def test_the_same_file_may_stand_beneath_two_others(tmp_path):
    for name, content in (("base", "rounds: 5"), ("a", "stack: [base.yaml]"), ("b", "stack: [base.yaml]")):
        (tmp_path / f"{name}.yaml").write_text(content)
    (tmp_path / "top.yaml").write_text("stack: [a.yaml, b.yaml]")
    assert load_config(tmp_path / "top.yaml").rounds == 5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stack: [beneath.yaml]", "names beneath.yaml: no file beside this one, and no configuration"),
        ("stack: [nuclei_small_fedbcs]", "write `nuclei --size short --method FedBCS`"),
        ("stack: beneath.yaml", "must be a list of files"),
        ("[rounds, 5]", "is a mapping of keys to values, got list"),
        ("rounds: [5", "not a readable configuration"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=rf"mine\.yaml.*{message}") as error:
        load_config(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


def test_a_site_list_lies_beside_its_configuration_or_in_the_working_folder(tmp_path):
    (tmp_path / "sites.json").touch()
    assert load_config(written(tmp_path, sites="sites.json")).sites == str(tmp_path / "sites.json")
    assert load_config(written(tmp_path, sites="elsewhere.json")).sites == str(Path("elsewhere.json").absolute())


# Overrides.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rounds", 5),
        ("optimizer::lr", 0.5),
        ("optimizer::momentum", 0.9),
        ("augmentation::transforms::0::roi_size", [8, 8]),
        ("preprocessing::transforms::1", {"_target_": "Identityd", "keys": "image"}),
        ("augmentation::transforms::4", {"_target_": "Identityd", "keys": "image"}),  # one more than there are
    ],
)
def test_an_override_changes_what_it_names_and_nothing_else(key, value):
    before, after = plain(load_config("nuclei")), plain(load_config("nuclei", {key: value}))
    assert inside(after, key) == value != inside(before, key)
    changed = deepcopy(after)
    holder = inside(changed, key.rpartition("::")[0]) if "::" in key else changed
    last = int(key.rpartition("::")[2]) if isinstance(holder, list) else key.rpartition("::")[2]
    if inside(before, key) is MISSING:
        del holder[last]
    else:
        holder[last] = inside(before, key)
    assert changed == before


def test_what_is_appended_runs_last():
    clip = {"_target_": "ScaleIntensityd", "keys": "image"}
    transforms = build(load_config("nuclei", {"augmentation::transforms::4": clip}), "augmentation").transforms
    assert [type(transform).__name__ for transform in transforms][-2:] == ["RandFlipd", "ScaleIntensityd"]


def test_a_setting_of_a_method_named_bare_can_be_overridden():
    config = load_config("nuclei", {"method": "fedbcs", "method::tau": 0.2})
    assert build(config, "method").tau == 0.2


def test_scientific_notation_is_a_number_with_and_without_a_point(tmp_path):
    (tmp_path / "mine.yaml").write_text("stack: []\noptimizer: {lr: 1e-4, weight_decay: 1.0e-4}")
    assert load_config(tmp_path / "mine.yaml").optimizer == {"lr": 1e-4, "weight_decay": 1e-4}
    assert value_of("2E5") == 2e5
    assert value_of("1e") == "1e"


# What is misspelt.


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"round": 5}, "command line: unknown key 'round', did you mean 'rounds'?"),
        ({"optimiser::lr": 5}, "unknown key 'optimiser', did you mean 'optimizer'?"),
        ({"network_def::feature": [8]}, r"network_def .*unknown argument 'feature', did you mean 'features'?"),
        ({"optimizer::learning_rate": 1}, r"optimizer \(torch.optim.SGD\): unknown argument 'learning_rate'"),
        ({"method": "fedbc"}, "unknown method 'fedbc', did you mean 'FedBCS'?"),
        ({"method": "fedbcs", "method::tou": 1}, "unknown argument 'tou', did you mean 'tau'?"),
        ({"loss::_target_": "DiceCLoss"}, "loss: there is no .*DiceCLoss' to be built"),
        ({"method::_target_": "fedbcs_monai.methods.FedBC"}, "method: there is no .*FedBC' to be built"),
        ({"augmentation::transforms::9": {}}, "names something that does not exist: '9'"),
        ({"optimizer::lr::deep": 1}, "'optimizer::lr::deep' names something"),
        ({"rounds::deep": 1}, "'rounds::deep' names something inside 'rounds', which is 400"),
        ({"augmentation::transforms::first": {}}, "names something that does not exist: 'first'"),
    ],
    ids=lambda case: "-".join(case) if isinstance(case, dict) else "",
)
def test_what_is_misspelt_is_named_with_the_nearest(overrides, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        load_config("nuclei", overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nucleii", "no configuration 'nucleii'.* did you mean 'nuclei'"),
        ("qqqqqq", "no configuration 'qqqqqq'; give a file, or the name of a task; there are: nuclei, prostate"),
        ("missing/nuclei.yaml", "no configuration 'missing/nuclei.yaml': there is no such file"),
        ("nuclei/huge", "nuclei has no size 'huge'; there are: full, demo, short, small"),
    ],
)
def test_a_configuration_that_is_not_there_is_named_with_what_is(name, message):
    with pytest.raises(UserError, match=message):
        load_config(name)


@pytest.mark.parametrize(
    ("overrides", "key", "message"),
    [
        ({"method": "FedBCS", "method::tau": -1}, "method", "cannot build 'method': tau is -1"),
        ({"network_def::norm": "groups"}, "network_def", "cannot build 'network_def': unknown norm 'groups'"),
        ({"optimizer::lr": -1}, "optimizer", "cannot build 'optimizer': Invalid learning rate"),
    ],
    ids=str,
)
def test_what_a_constructor_refuses_names_the_key(overrides, key, message):
    filled = {"params": [torch.zeros(1, requires_grad=True)]} if key == "optimizer" else {}
    with pytest.raises(UserError, match=message):
        build(load_config("nuclei", overrides), key, **filled)


# What is said of images.


@pytest.mark.parametrize(
    ("task", "changes", "said"),
    [
        (
            "nuclei",
            {"reads": "volumes"},
            "reads is 'volumes', and `reading` makes it pictures; give reads:",
        ),
        ("prostate", {"reads": "pictures"}, "`reading` makes it volumes; give reads: volumes"),
        ("prostate", {"slice_plane": "sagittal"}, "`preprocessing` makes it axial; give slice_plane: axial"),
        ("nuclei", {"slice_plane": "axial"}, "`preprocessing` makes it file; give slice_plane: file"),
        ("prostate", {"slice_plane": "oblique"}, "slice_plane is 'oblique': it must be one of file, axial, cor"),
        (
            "prostate",
            {"preprocessing::transforms::0::transforms::1::axcodes": "LSP"},
            "slice_plane is 'axial', and `preprocessing` makes it coronal; give slice_plane: coronal",
        ),
        ("prostate", {"preprocessing::transforms::0": "@reading"}, "makes it file; give slice_plane: file"),
    ],
)
def test_what_is_said_of_images_and_what_transforms_do_must_agree(task, changes, said):
    with pytest.raises(UserError, match=re.escape(said)):
        load_config(task, changes)


def test_a_step_of_another_package_may_turn_volumes_as_it_is_said():
    own = {"preprocessing": {"_target_": "mine.Turnd"}}
    assert settings_of({**own, "slice_plane": "coronal"}).slice_plane == "coronal"
    assert settings_of(own).slice_plane == "file"
