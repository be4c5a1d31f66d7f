"""The command line: exit codes, messages, and what a newcomer types."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fedbcs_monai
from fedbcs_monai.backends.local import train
from fedbcs_monai.cli import main
from fedbcs_monai.cli.main import app
from fedbcs_monai.cli.overrides import overrides_of
from fedbcs_monai.errors import UserError

COMMANDS = ("demo", "sites", "train", "evaluate", "predict", "report")
TINY = [
    *("--rounds", "1", "--evaluate_every", "1", "--examples", "1", "--device", "cpu", "--batch_size", "2"),
    *("--network_def::features", "[8, 8, 16, 16, 16]", "--augmentation::transforms::0::roi_size", "[32, 32]"),
]


@pytest.fixture(scope="module")
def run(tiny):
    return train(tiny("FedBCS"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command, capsys):
    assert main([command, "--help"]) == 0
    assert command in capsys.readouterr().out


def test_no_command_at_all_is_answered_with_the_help(capsys):
    assert main([]) == 0
    said = capsys.readouterr().out
    assert "fedbcs demo" in said
    assert all(command in said for command in COMMANDS)


def test_bare_flare_is_answered_with_its_help(capsys):
    assert main(["flare"]) == 0
    said = capsys.readouterr().out
    assert all(action in said for action in ("simulate", "export", "site-policy"))


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"], ["flare", "export", "--help"], ["--version"]])
def test_help_imports_nothing_that_takes_seconds(words):
    code = f"import sys; from fedbcs_monai.cli import main; main({words}); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = eval(done.stderr)
    assert "fedbcs_monai.cli.main" in modules
    assert {"torch", "monai", "numpy", "nvflare", "scipy"}.isdisjoint(modules)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_complete_commands_and_options(shell):
    script = app.generate_completion(shell=shell)
    assert all(word in script for word in ("predict", "output-type", "site-policy", "min-responses"))


def test_the_package_is_the_command_without_a_name_on_the_path(tmp_path):
    command = [sys.executable, "-m", "fedbcs_monai"]
    named = {**os.environ, "PATH": "", "PYTHONPATH": str(Path(fedbcs_monai.__file__).parents[1])}
    done = subprocess.run([*command, "--version"], cwd=tmp_path, env=named, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"fedbcs {fedbcs_monai.__version__}\n")
    done = subprocess.run([*command, "sites", "nowhere"], cwd=tmp_path, env=named, capture_output=True, text=True)
    assert done.returncode == 2


def test_help_for_training_names_every_key(capsys):
    assert main(["train", "--help"]) == 0
    assert "--rounds" in (said := capsys.readouterr().out)
    assert "--optimizer" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "nucleii"], "no configuration 'nucleii'"),
        (["train", "nuclei"], "lacks sites"),
        (["train", "nuclei", "--sites", "nowhere.json"], "nowhere.json"),
        (["train", "nuclei", "--roundz", "3"], "did you mean 'rounds'"),
        (["train", "nuclei", "--rounds"], "--rounds has no value"),
        (["train", "nuclei", "--method", "FedBCS", "--method::tua", "3"], "did you mean 'tau'"),
        (["train", "nuclei", "--method", "fedbc"], "did you mean 'FedBCS'"),
        (["sites", "nowhere"], "nowhere"),
        (["evaluate", "nowhere"], "nowhere"),
        (["predict", "nowhere", "-i", __file__, "-o", "y"], "nowhere"),
        (["predict", "model", "-i", "nowhere", "-o", "y"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_from_a_folder_of_sites_to_masks_and_a_page(nuclei_sites, tmp_path, capsys):
    folder = nuclei_sites.parent
    sites, run, masks = tmp_path / "sites.json", tmp_path / "run", tmp_path / "masks"
    assert main(["sites", str(folder), "-o", str(sites), "--unseen", "Elm", "-q"]) == 0
    assert main(["train", "nuclei", "--sites", str(sites), "-o", str(run), *TINY, "-q"]) == 0
    assert (run / "report.html").is_file()
    assert main(["evaluate", str(run), "-o", str(tmp_path / "scores.csv"), "-q"]) == 0
    assert len((tmp_path / "scores.csv").read_text().splitlines()) > 1
    assert main(["predict", str(run), "-i", str(folder / "Elm" / "images"), "-o", str(masks), "-q"]) == 0
    assert np.asarray(Image.open(masks / "case_000_mask.png")).shape == (64, 64)
    assert main(["report", str(run), "-o", str(tmp_path / "page.html"), "-q"]) == 0
    assert capsys.readouterr().out == ""


def test_a_dry_run_writes_nothing(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sites = tiny().sites
    assert main(["train", "nuclei", "--sites", sites, *TINY, "--dry-run"]) == 0
    assert "would write" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_failure_is_a_record_too(capsys):
    assert main(["evaluate", "nowhere", "--json"]) == 2
    said = capsys.readouterr()
    (record,) = map(json.loads, said.out.splitlines())
    assert record["event"] == "failure"
    assert f"{record['command']}: {record['text']}\n" == said.err


def test_json_is_one_object_a_line(run, capsys):
    assert main(["evaluate", str(run), "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {"event", "site", "dice_percent"} <= lines[-1].keys()


def test_a_run_is_not_replaced_by_accident(run, tiny, capsys):
    before = {path: path.stat().st_mtime_ns for path in Path(run).rglob("*")}
    assert main(["train", "nuclei", "--sites", tiny().sites, "-o", str(run), *TINY]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in Path(run).rglob("*")} == before


def test_evaluation_again_gives_the_scores_of_the_run(run, capsys):
    assert main(["evaluate", str(run), "-o", str(run.parent / "again.csv"), "-q"]) == 0
    again = (run.parent / "again.csv").read_text().splitlines()[1:]
    first = [line for line in (run / "scores.csv").read_text().splitlines() if line.startswith("selected")]
    assert sorted(row.split(",")[1:3] for row in again) == sorted(row.split(",")[3:5] for row in first)


def test_an_interrupted_demo_says_so(tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("fedbcs_monai.demo.synthetic.synthesise", interrupt)
    assert main(["demo", "-o", str(tmp_path / "demo")]) == 130
    assert "interrupted" in capsys.readouterr().err


def test_overrides_are_pairs():
    assert overrides_of(["--rounds", "5", "--method::tau=1e-1"]) == {"rounds": 5, "method::tau": 0.1}
    with pytest.raises(UserError, match="an override is --key value"):
        overrides_of(["rounds", "5"])
