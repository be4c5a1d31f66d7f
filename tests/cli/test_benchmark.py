"""``fedbcs benchmark``: exit codes, what is written, and what is only said."""

import json
from inspect import signature
from pathlib import Path

import pytest

from fedbcs_monai.cli import main
from fedbcs_monai.cli.benchmark import choice_of
from fedbcs_monai.cli.main import app


def choice(*words):
    given = app.parse_args(["benchmark", "x", *words])[1].arguments
    return choice_of(**{name: given[name] for name in given.keys() & signature(choice_of).parameters.keys()})


@pytest.fixture(scope="module")
def run(tiny_suite, tmp_path_factory):
    """A suite with one run that works and one that fails, and its exit code."""
    broken = {"broken": {"method": "FedAvg", "overrides": {"method": "LocalOnly", "centralized": True}}}
    path = tiny_suite(methods=["fedavg", "broken"], trainings=broken, overrides={"rounds": 1})
    output = tmp_path_factory.mktemp("benchmark") / "out"
    return path, output, main(["benchmark", str(path), "-o", str(output), "-j", "2", "-q"])


def test_a_run_that_failed_gives_exit_code_one_and_the_tables_of_the_others(run):
    _, output, code = run
    assert code == 1
    assert {path.name for path in output.iterdir()} == {
        *("benchmark.html", "tables.md", "tables.csv", "tables.tex"),
        *("runs", "logs"),
    }
    assert "| FedAvg |" in (output / "tables.md").read_text()
    assert "1 of 2 runs are not finished: nuclei_broken_seed0." in (output / "tables.md").read_text()


def test_where_every_run_failed_there_are_no_tables(run, tmp_path, capsys):
    path, _, _ = run
    assert main(["benchmark", str(path), "-o", str(tmp_path / "out"), "--methods", "broken", "-q"]) == 1
    error = capsys.readouterr().err
    assert "nuclei_broken_seed0 failed: centralized trains in one place" in error
    assert len(error.strip().splitlines()) == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"logs"}


def test_what_is_finished_alone_gives_exit_code_zero(run, capsys):
    path, output, _ = run
    assert main(["benchmark", str(path), "-o", str(output), "--methods", "fedavg", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(Path(line["path"]).name for line in lines if line["event"] == "wrote") == "benchmark.html"
    assert {"event": "begun", "runs": 1, "finished": 1} in lines


def test_tables_can_be_written_again_without_training(run):
    path, output, _ = run
    (output / "tables.md").unlink()
    assert main(["benchmark", str(path), "-o", str(output), "--tables-only", "-q"]) == 0
    assert (output / "tables.md").is_file()
    assert not (output / "runs" / "nuclei_broken_seed0").exists()


def test_a_dry_run_lists_the_work_and_writes_nothing(run, tmp_path, capsys):
    path, output, _ = run
    assert main(["benchmark", str(path), "-o", str(output), "--dry-run", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    rows = [line for line in lines if line["event"] == "runs"]
    assert [(row["run"], row["stage"], row["optimizer_steps"]) for row in rows] == [
        ("nuclei_fedavg_seed0", "finished", 6),
        ("nuclei_broken_seed0", "new", 6),
    ]
    assert {"event": "to_run", "runs": 1, "of": 2, "optimizer_steps": 6} in lines
    assert next(line for line in lines if line["event"] == "time")["left_s"] > 0
    assert main(["benchmark", str(path), "-o", str(tmp_path / "new"), "--dry-run", "-q"]) == 0
    assert not (tmp_path / "new").exists()


def test_a_dry_run_says_what_overwriting_would_do_and_refuses_what_training_would(run, tmp_path, capsys):
    path, output, _ = run
    words = ["benchmark", str(path), "-o", str(output), "--methods", "fedavg", "--batch_size", "3"]
    for more in (["--dry-run"], ["--tables-only"]):
        assert main([*words, *more]) == 2
        assert "was run with other values of batch_size" in capsys.readouterr().err
    assert main([*words, "--dry-run", "--overwrite"]) == 0
    assert "1 of 1 runs" in capsys.readouterr().out
    assert main([*words, "--dry-run", "-j", "0"]) == 2
    assert "jobs is 0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["larg"], "no benchmark 'larg'; there are: batch, long"),
        (["nuclei"], "is a task, not a benchmark; `fedbcs train` runs it"),
        (["small", "--tasks", "nuclei", "--sites", "nowhere.json"], "nowhere.json: no such site list"),
        (["small", "--tasks", "liver"], "no task 'liver'; there are: nuclei, prostate"),
        (["small", "--rounds"], "--rounds has no value"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_two(arguments, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["benchmark", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_options_are_what_is_asked_of_the_suite():
    asked = choice("--sites", "nuclei=a.json", "b.json", "--seeds", "0", "1", "--methods", "fedavg", "--rounds", "5")
    assert asked.sites == {"nuclei": Path("a.json"), "": Path("b.json")}
    assert (asked.seeds, asked.methods, asked.overrides) == ([0, 1], ["fedavg"], {"rounds": 5})
    assert (asked.tasks, asked.folds, asked.parts, asked.leave_one_out) == (None, None, None, False)


def test_leaving_sites_out_can_be_asked_for_in_two_ways():
    for words in (["--parts", "leave_one_out"], ["--parts", "methods", "--leave-one-site-out"]):
        asked = choice(*words)
        assert asked.leave_one_out
        assert "leave_one_out" in asked.parts
