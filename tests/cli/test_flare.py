"""``fedbcs flare``: mistakes are one line and exit code two, and change nothing."""

import json

import pytest

from fedbcs_monai.cli import main

pytest.importorskip("nvflare")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["simulate", "nuclei"], "lacks sites"),
        (["simulate", "nuclei", "--sites", "nowhere.json"], "nowhere.json"),
        (["simulate", "nuclei", "--roundz", "3"], "did you mean 'rounds'"),
        (["export", "nucleii", "-o", "job"], "no configuration 'nucleii'"),
        (["export", "nuclei", "-o", "job", "--centralized", "true"], "centralized trains in one place"),
        (["export", "nuclei", "-o", "job", "--statistics", "--cross-site"], "--statistics trains nothing"),
        (["submit", "nowhere", "--startup-kit", "kit"], "is not a job"),
        (["status", "nowhere"], "was not submitted"),
        (["abort", "nowhere"], "was not submitted"),
        (["download", "nowhere"], "was not submitted"),
        (["resume", "nowhere"], "was not submitted"),
        (["status", "nowhere", "--rounds", "3"], "Unknown option: --rounds"),
        (["site-policy", "nowhere"], "is not the startup kit"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["flare", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_kit_that_is_not_an_admins_is_refused(tmp_path, capsys):
    (tmp_path / "job").mkdir()
    (tmp_path / "job" / "meta.json").write_text("{}")
    (tmp_path / "kit" / "startup").mkdir(parents=True)
    arguments = [
        "flare",
        "submit",
        str(tmp_path / "job"),
        "--startup-kit",
        str(tmp_path / "kit"),
        "-o",
        str(tmp_path / "run"),
    ]
    assert main(arguments) == 2
    assert "is not an admin's startup kit" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_an_exported_job_is_not_replaced(tmp_path, capsys):
    assert main(["flare", "export", "nuclei", "-o", str(tmp_path / "job"), "--run-id", "mine", "--json"]) == 0
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0] == {"event": "run", "run_id": "mine"}
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    assert main(["flare", "export", "nuclei", "-o", str(tmp_path / "job")]) == 2
    assert "already exists" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before


def test_a_project_names_the_sites_that_are_asked_for(tmp_path):
    file = tmp_path / "project.yml"
    assert main(["flare", "project", "-o", str(file), "-q"]) == 0
    assert "Birch" in file.read_text()
    assert main(["flare", "project", "North", "South", "-o", str(file), "-q"]) == 2
    assert main(["flare", "project", "North", "South", "-o", str(file), "--overwrite", "-q"]) == 0
    assert "North" in file.read_text()
    assert "Birch" not in file.read_text()
    assert "SitePolicyBuilder" in file.read_text()
