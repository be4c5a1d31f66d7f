"""Components: a configuration builds what is in the allow-list, whatever it says and by whichever door it comes."""

import json
import pickle
import re
import sys
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import yaml

import fedbcs_monai
from fedbcs_monai.allowlist import ALLOWLIST, Trust
from fedbcs_monai.backends.monai import FederatedClient, FederatedServer
from fedbcs_monai.cli.main import main
from fedbcs_monai.components import build, permitted
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.trust import load_job
from fedbcs_monai.runs.model_io import load_trained
from fedbcs_monai.settings import SLOTS, plain

MARKER = "MARKER"
"""Stands for the file that an attack would write."""

TOUCH = f"touch '{MARKER}'"
RUN = {"_target_": "os.system", "command": TOUCH}
PYTHON = f"__import__('pathlib').Path(r'{MARKER}').touch()"
EXPRESSION = f"${PYTHON}"


class Touch:
    """Unpickled, it writes the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def transform(target, /, **arguments):
    return {"augmentation": {"_target_": "Compose", "transforms": [{"_target_": target, "keys": "image", **arguments}]}}


def dice(**arguments):
    return {"loss": {"_target_": "DiceLoss", **arguments}}


def network(**arguments):
    return {"network_def": {"_target_": "fedbcs_monai.networks.build_segmenter", **arguments}}


ATTACKS = {
    # What is called.
    "function": {"loss": RUN},
    "function by its real module": {"loss": {"_target_": "posix.system", "command": TOUCH}},
    "function that ours import": {"loss": {**RUN, "_target_": "fedbcs_monai.federated.memory.os.system"}},
    "function that a module of MONAI imports": {"loss": {**RUN, "_target_": "monai.utils.module.os.system"}},
    "shell of MONAI": {"loss": {"_target_": "monai.utils.misc.run_cmd", "cmd_list": ["touch", MARKER]}},
    "shell of MONAI, bare": {"loss": {"_target_": "run_cmd", "cmd_list": ["touch", MARKER]}},
    "process": {"loss": {"_target_": "subprocess.run", "args": ["touch", MARKER]}},
    "class": {"loss": {"_target_": "subprocess.Popen", "args": ["touch", MARKER]}},
    "eval": {"loss": {"_target_": "builtins.eval", "source": PYTHON}},
    "exec": {"loss": {"_target_": "builtins.exec", "source": PYTHON}},
    "method": {"loss": {"_target_": "pathlib.Path.touch", "self": MARKER}},
    "import": {"loss": {"_target_": "importlib.import_module", "name": "evil"}},
    "module that runs when imported": {"loss": {"_target_": "evil.Loss"}},
    "script": {"loss": {"_target_": "runpy.run_path", "path_name": "FOLDER/evil.py"}},
    "torch.load": {"loss": {"_target_": "torch.load", "f": "FOLDER/evil.pt", "weights_only": False}},
    "pickle of numpy": {"loss": {"_target_": "numpy.load", "file": "FOLDER/evil.pt", "allow_pickle": True}},
    "joblib": {"loss": {"_target_": "pandas.read_pickle", "filepath_or_buffer": "FOLDER/evil.pt"}},
    "bundle of MONAI": {"loss": {"_target_": "monai.bundle.run", "config_file": "FOLDER/evil.json"}},
    "parser of MONAI": {"loss": {"_target_": "monai.bundle.ConfigParser", "config": {"x": EXPRESSION}}},
    "partial": {"loss": {"_target_": "functools.partial", "func": EXPRESSION}},
    "writer of ours": {"loss": {"_target_": "fedbcs_monai.files.write_whole", "path": MARKER, "content": ""}},
    "synthetic data": {"loss": {"_target_": "fedbcs_monai.demo.synthetic.synthesise", "folder": MARKER}},
    "expression as a target": {"loss": {"_target_": EXPRESSION}},
    "component as a target": {"loss": {"_target_": RUN}},
    "list as a target": {"loss": {"_target_": ["os.system"], "command": TOUCH}},
    "right component in the wrong place": {"loss": {"_target_": "LoadImaged", "keys": "image"}},
    # Every key that holds a component.
    **{f"at {key}": {key: RUN} for key in SLOTS},
    **{f"expression at {key}": {key: EXPRESSION} for key in SLOTS},
    # Every other key.
    **{f"expression at {key}": {key: EXPRESSION} for key in ("classes", "rounds", "seed", "name", "task", "device")},
    "component at a plain key": {"classes": RUN},
    "component inside a plain key": {"classes": ["background", RUN]},
    "expression inside a plain key": {"classes": ["background", {"x": [EXPRESSION]}]},
    # Inside a component.
    "nested": {"augmentation": {"_target_": "Compose", "transforms": [RUN]}},
    "nested deeper": {
        "augmentation": {"_target_": "Compose", "transforms": [{"_target_": "Compose", "transforms": RUN}]},
    },
    "expression in a list": {"augmentation": {"_target_": "Compose", "transforms": [EXPRESSION]}},
    "argument": dice(reduction=RUN),
    "expression as an argument": dice(reduction=EXPRESSION),
    "expression behind a blank": dice(reduction=f" {EXPRESSION}"),
    "expression as a number": dice(smooth_nr=EXPRESSION),
    "expression as a name": dice(**{EXPRESSION: 1}),
    "function as an argument": dice(other_act=EXPRESSION),
    "name inside a name": dice(**{"weight::_target_": "os.system"}),
    "network that is handed in": {"network_def": {"_target_": "fedbcs_monai.networks.Segmenter", "backbone": RUN}},
    "settings of a network": network(style={"gate": RUN}),
    "expression in settings": network(style={"gate": EXPRESSION}),
    "expression in a list of numbers": network(features=[8, EXPRESSION]),
    "field of a method": {"method": {"_target_": "fedbcs_monai.methods.FedProx", "mu": RUN}},
    "expression in a field of a method": {"method": {"_target_": "fedbcs_monai.methods.FedProx", "mu": EXPRESSION}},
    "argument of an optimizer": {"optimizer": {"_target_": "torch.optim.SGD", "lr": 1, "params": EXPRESSION}},
    # Marks.
    "_mode_": dice(_mode_="debug"),
    "_mode_ callable": {"loss": {**RUN, "_mode_": "callable"}},
    "_requires_": dice(_requires_=[EXPRESSION]),
    "_requires_ of a component": dice(_requires_=RUN),
    "_disabled_": dice(_disabled_=EXPRESSION),
    "_desc_": dice(_desc_=RUN),
    "_imports_": dice(_imports_=[EXPRESSION]),
    "_debug_": dice(_debug_=True),
    # References and macros.
    "reference to an expression": {"classes": [EXPRESSION], **dice(weight="@classes::0")},
    "reference to a component": {"classes": [RUN], **dice(weight="@classes::0")},
    "reference in a reference": {"task": "@name", "name": EXPRESSION, **dice(reduction="@task")},
    "reference to an attribute": dice(reduction="@loss.__class__"),
    "reference in a circle": {"augmentation": {"_target_": "Compose", "transforms": ["@augmentation"]}},
    "relative reference": dice(reduction="@#x"),
    "macro": dice(reduction="%FOLDER/evil.json::x"),
    "macro for a component": {"loss": "%FOLDER/evil.json::loss"},
    "macro at a plain key": {"name": "%FOLDER/evil.json::x"},
    # Transforms and readers that call, read or write.
    "Lambdad": transform("Lambdad", func=EXPRESSION),
    "Lambda": transform("monai.transforms.Lambda", func=EXPRESSION),
    "RandLambdad": transform("RandLambdad", func=EXPRESSION),
    "TorchVisiond": transform("TorchVisiond", name="Lambda", lambd=EXPRESSION),
    "SaveImaged": transform("SaveImaged", output_dir=MARKER),
    "WriteFileMappingd": transform("WriteFileMappingd", mapping_file_path=MARKER),
    "selection": transform("CropForegroundd", source_key="image", select_fn=EXPRESSION),
    "after inversion": transform("Invertd", transform="@preprocessing", post_func=EXPRESSION),
    "activation": transform("Activationsd", other=EXPRESSION),
    "path as an argument": transform("LoadImaged", dtype=MARKER),
    "log file": {"augmentation": {"_target_": "Compose", "transforms": [], "log_stats": MARKER}},
    "reader by name": transform("LoadImaged", reader="subprocess.Popen"),
    "readers by name": transform("LoadImaged", reader=["subprocess.Popen"]),
    "reader that unpickles": transform("LoadImaged", reader="NumpyReader", allow_pickle=True),
    "reader": transform("LoadImaged", reader=RUN),
    "writer": transform("LoadImaged", reader={"_target_": "monai.data.PILReader", "converter": EXPRESSION}),
}  # fmt: skip


def filled_in(content, folder):
    text = json.dumps(content).replace(MARKER, (folder / MARKER).as_posix()).replace("FOLDER", folder.as_posix())
    return json.loads(text)


@pytest.fixture(scope="module")
def sound():
    return plain(load_config("nuclei"))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of files that an attack may use, where modules are found too."""
    (tmp_path / "evil.py").write_text(f"import pathlib; pathlib.Path(r'{tmp_path / MARKER}').touch(); Loss = print")
    (tmp_path / "evil.json").write_text(json.dumps(filled_in({"x": EXPRESSION, "loss": RUN}, tmp_path)))
    (tmp_path / "evil.pt").write_bytes(pickle.dumps(Touch(tmp_path / MARKER)))
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("evil", None)


def as_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def run_folder(folder, content):
    (folder / "run").mkdir(exist_ok=True)
    (folder / "run" / "model.safetensors").touch()
    as_json(folder / "run" / "config.json", content)
    return folder / "run"


def bundle_folder(folder, content):
    as_json(folder / "bundle" / "configs" / "train.json", content)
    (folder / "bundle" / "models").mkdir()
    torch.save({}, folder / "bundle" / "models" / "model.pt")
    return folder / "bundle"


def by_yaml(folder, content, changes):
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"stack": ["nuclei"], **changes}))
    build_all(load_config(path))


def build_all(config):
    for key in SLOTS:
        build(config, key, **({"params": [torch.zeros(1, requires_grad=True)]} if key == "optimizer" else {}))


def build_and_read_all(config):
    """As by somebody who forgets to check, and uses the other keys as well."""
    build_all(config)
    for key in set(config) - set(SLOTS):
        build(config, key)


DOORS = {
    "unchecked": lambda folder, content, changes: build_and_read_all(content),
    "yaml": by_yaml,
    "run": lambda folder, content, changes: load_trained(run_folder(folder, content), device="cpu"),
    "bundle": lambda folder, content, changes: load_trained(bundle_folder(folder, content), device="cpu"),
    "job": lambda folder, content, changes: build_all(load_job(as_json(folder / "experiment.json", content), {})),
}


OF_THE_READER = {"expression at device": ("unchecked", "yaml")}
"""What readers of a run, a bundle or a job say themselves, so that it does not matter what these say."""


@pytest.mark.parametrize(
    ("attack", "door"), [(attack, door) for attack in ATTACKS for door in OF_THE_READER.get(attack, DOORS)]
)
def test_nothing_runs_but_what_is_in_the_allow_list(attack, door, sound, folder):
    changes = filled_in(ATTACKS[attack], folder)
    with pytest.raises(UserError) as refusal:
        DOORS[door](folder, {**deepcopy(sound), **changes}, changes)
    assert not (folder / MARKER).exists()
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("door", ["run", "bundle", "job"])
@pytest.mark.parametrize(
    "changes",
    [
        {"loss": {}, "loss::_target_": "os.system", "loss::command": TOUCH},
        {"preprocessing::transforms::1": RUN},
        {"stack": ["more.json"]},
        {"stack": ["FOLDER/evil.json"]},
    ],
    ids=["dotted key", "dotted key in a list", "second file", "file elsewhere"],
)
def test_what_has_travelled_is_resolved(changes, door, sound, folder):
    as_json(folder / "more.json", filled_in({"loss": RUN}, folder))
    changes = filled_in(changes, folder)
    with pytest.raises(UserError, match="is resolved"):
        DOORS[door](folder, {**sound, **changes}, changes)
    assert not (folder / MARKER).exists()


@pytest.mark.parametrize(
    "changes",
    [{"loss": {}, "loss::_target_": "os.system", "loss::command": TOUCH}, {"stack": ["nuclei", "more.json"]}],
    ids=["dotted key", "second file"],
)
def test_what_is_put_together_is_checked_as_a_whole(changes, folder):
    as_json(folder / "more.json", filled_in({"loss": RUN}, folder))
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump({"stack": ["nuclei"], **filled_in(changes, folder)}))
    with pytest.raises(UserError, match=r"loss: .*'os\.system' is not permitted"):
        build(load_config(path), "loss")
    assert not (folder / MARKER).exists()


@pytest.mark.parametrize("key", ["sites", "output", "trust", "datalist", "initialize"])
def test_a_job_has_no_say_about_folders_and_workflows(key, sound, folder):
    path = as_json(folder / "experiment.json", {**sound, key: "/etc"})
    with pytest.raises(UserError, match=f"a job may not set '{key}'"):
        load_job(path, {"sites": "mine.json"})


def test_a_file_of_weights_that_would_run_something_is_refused(sound, folder):
    bundle = bundle_folder(folder, sound)
    torch.save(Touch(folder / MARKER), bundle / "models" / "model.pt")
    with pytest.raises(UserError, match="not weights"):
        load_trained(bundle, device="cpu")
    assert not (folder / MARKER).exists()


@pytest.mark.parametrize("command", ["train", "benchmark", "predict", "evaluate", "bundle", "ood", "export"])
def test_every_command_refuses_in_one_line_with_the_way_out(command, sound, folder, nuclei_sites, capsys, monkeypatch):
    if command == "export":
        pytest.importorskip("nvflare")
    monkeypatch.chdir(folder)
    evil = filled_in({"loss": RUN, "reading": RUN}, folder)
    run = str(run_folder(folder, {**sound, **evil}))
    (folder / "mine.yaml").write_text(yaml.safe_dump({"stack": ["nuclei"], "sites": str(nuclei_sites), **evil}))
    tasks = {"nuclei": {"sites": str(nuclei_sites), "config": "mine.yaml"}}
    suite = {"tasks": tasks, "methods": ["fedavg"]}
    (folder / "suite.yaml").write_text(yaml.safe_dump(suite))
    words = {
        "train": ["train", "mine.yaml", "--dry-run"],
        "benchmark": ["benchmark", "suite.yaml", "--dry-run"],
        "predict": ["predict", run, "-i", str(nuclei_sites.parent / "Alder" / "images"), "-o", "masks"],
        "evaluate": ["evaluate", run, "--sites", str(nuclei_sites)],
        "bundle": ["bundle", run, "-o", "made", "-q"],
        "ood": ["ood", run, "--sites", str(nuclei_sites)],
        "export": ["flare", "export", "mine.yaml", "-o", "job"],
    }[command]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "'os.system' is not permitted; if you trust it, let it in with --trust os.system" in said
    assert not (folder / MARKER).exists()


@pytest.mark.parametrize("party", [FederatedClient, FederatedServer])
def test_a_platform_s_parties_refuse_too(party, sound, folder, nuclei_sites):
    as_json(folder / "train.json", {**sound, **filled_in({"loss": RUN}, folder)})
    with pytest.raises(UserError, match=r"'os\.system' is not permitted"):
        made = party(folder, ["train.json"], {"sites": str(nuclei_sites), "device": "cpu"})
        made.initialize()
    assert not (folder / MARKER).exists()


def test_no_source_file_evaluates_or_unpickles():
    package = Path(fedbcs_monai.__file__).parent
    texts = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    loads = [call for text in texts.values() for call in re.findall(r"torch\.load\([^\n]*", text)]
    assert loads
    assert all("weights_only=True" in call for call in loads)
    assert {name for name, text in texts.items() if "ConfigParser(" in text} == {"bundle/write.py"}
    for pattern in (
        r"(?<![\w.])eval\(",
        r"(?<![\w.])exec\(",
        r"pickle\.loads?\(",
        r"allow_pickle=True",
        r"__import__\(",
    ):
        assert [name for name, text in texts.items() if re.search(pattern, text)] == [], pattern


# What is in the list.


def test_every_component_of_the_list_is_there_and_has_the_arguments_that_are_listed():
    for listed in ALLOWLIST.values():
        for name in listed:
            assert name in permitted(), name
    for target in ("CropForegroundd", "SliceInferer", "SpatialPadd"):
        assert "select_fn" not in permitted()[target].arguments


@pytest.mark.parametrize(
    "name",
    [
        "RandFlipd",
        "RandFlipD",
        "RandFlipDict",
        "monai.transforms.RandFlipd",
        "monai.transforms.RandFlipDict",
        "monai.transforms.spatial.dictionary.RandFlipd",
    ],
)
def test_every_name_of_a_component_means_the_same(name, sound):
    change = {"augmentation": {"_target_": "Compose", "transforms": [{"_target_": name, "keys": "image", "prob": 1}]}}
    built = build({**sound, **change}, "augmentation")
    assert type(built.transforms[0]) is permitted()["monai.transforms.RandFlipd"].target


@pytest.mark.parametrize(
    "change",
    [
        {"optimizer": {"_target_": "torch.optim.AdamW", "lr": 1e-3, "betas": [0.8, 0.9]}},
        {"method": {"_target_": "fedbcs_monai.methods.FedProx", "mu": 1}},
        {"loss": {"_target_": "TverskyLoss", "softmax": True, "alpha": 0.3}},
        network(backbone="UNet", dropout=0.5, style={"gate": "scalar"}),
        transform("RandGaussianNoised", prob=0.5, dtype="float32"),
        transform("LoadImaged", reader="NibabelReader"),
        transform("RandAffined", mode=["bilinear"], rotate_range=[[0.1, 0.2]], _desc_="turn", _disabled_=False),
        {"preprocessing": {"_target_": "Compose", "transforms": ["@reading"]}},
        {"inferer": {"_target_": "SlidingWindowInferer", "roi_size": "@augmentation::transforms::0::roi_size"}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_other_numbers_and_words_are_permitted(change, sound):
    build({**sound, **change}, next(iter(change)), **({"params": [torch.zeros(1)]} if "optimizer" in change else {}))


def test_what_is_referred_to_twice_is_built_once(sound):
    twice = build(
        {**sound, "augmentation": {"_target_": "Compose", "transforms": ["@reading", "@reading"]}}, "augmentation"
    )
    assert twice.transforms[0] is twice.transforms[1]


def test_what_is_disabled_is_left_out(sound):
    off = {"_target_": "RandFlipd", "keys": "image", "_disabled_": True}
    built = build(
        {**sound, "augmentation": {"_target_": "Compose", "transforms": [off, {**off, "_disabled_": False}]}},
        "augmentation",
    )
    assert len(built.transforms) == 1


# Trust.


def counted(**trust):
    return load_config("nuclei", {"loss": {"_target_": "collections.Counter", "softmax": 1}}, **trust)


@pytest.mark.parametrize("names", [["collections.Counter"], ["collections"], "collections.Counter"])
def test_a_component_or_its_package_can_be_trusted(names):
    assert build(counted(trust=names), "loss") == {"softmax": 1}


@pytest.mark.parametrize("names", [["collections.Count"], ["collection"], ["os"], ["Counter"]])
def test_other_names_trust_something_else(names):
    with pytest.raises(UserError, match=r"--trust collections\.Counter \(in Python trust=\['collections\.Counter'\]\)"):
        counted(trust=names)


def test_what_a_trusted_package_imports_is_not_trusted_with_it(folder):
    overrides = filled_in({"loss": {**RUN, "_target_": "monai.utils.module.os.system"}, "name": "x"}, folder)
    with pytest.raises(UserError, match=r"there is no .* to be built"):
        load_config("nuclei", overrides, trust=["monai"])
    overrides["loss"] = {"_target_": "shutil.os.system", "command": "true"}
    with pytest.raises(UserError):
        load_config("nuclei", overrides, trust=["shutil"])
    overrides["loss"] = {"_target_": "tempfile._shutil.rmtree", "path": str(folder)}
    with pytest.raises(UserError):
        load_config("nuclei", overrides, trust=["tempfile"])
    overrides["loss"] = {"_target_": "glob.iglob", "pathname": "x"}
    assert load_config("nuclei", overrides, trust=["glob"])
    overrides["loss"] = {"_target_": "pickle.partial", "func": "x"}
    with pytest.raises(UserError, match=r"'pickle\.partial' is functools\.partial, which is not permitted"):
        load_config("nuclei", overrides, trust=["pickle"])


def test_trust_does_not_reach_into_arguments_or_expressions(folder):
    for inner in (RUN, EXPRESSION, [RUN], {"x": EXPRESSION}):
        loss = filled_in({"_target_": "collections.Counter", "softmax": inner}, folder)
        with pytest.raises(UserError):
            load_config("nuclei", {"loss": loss}, trust=["collections"])
    assert not (folder / MARKER).exists()


def test_no_file_can_trust_itself(folder):
    for trust in (["os.system"], {"names": ["os.system"]}):
        path = folder / "mine.yaml"
        path.write_text(yaml.safe_dump({"stack": ["nuclei"], "trust": trust, "loss": RUN}))
        with pytest.raises(UserError, match="unknown key 'trust'"):
            load_config(path)
        with pytest.raises(UserError, match="not permitted"):
            build({"trust": trust, "loss": RUN}, "loss")


def test_trust_is_of_names(sound):
    for name in ("$print(1)", "os.", "", "a b"):
        with pytest.raises(UserError, match="is not the name of a component or package"):
            load_config("nuclei", trust=[name])


def test_trust_is_not_written_down():
    config = counted(trust=["collections"])
    assert isinstance(config.trust, Trust)
    assert "trust" not in plain(config)


def test_a_party_says_what_jobs_may_use(sound, folder):
    path = as_json(folder / "experiment.json", {**sound, "loss": {"_target_": "collections.Counter"}})
    with pytest.raises(UserError, match=r"add collections\.Counter to `allow` in the site's fedbcs\.yaml"):
        load_job(path, {})
    assert build(load_job(path, {}, ["collections"]), "loss") == {}


def test_a_bundle_cannot_name_a_site_list_here(sound, folder, nuclei_sites):
    bundle = bundle_folder(folder, {**sound, "sites": str(nuclei_sites), "output": str(folder)})
    torch.save(build(sound, "network_def").state_dict(), bundle / "models" / "model.pt")
    settings = load_trained(bundle, device="cpu").settings
    assert (settings.sites, settings.output) == ("", "")
