"""Benchmark execution: finished runs are kept, failures reported, and results independent of jobs and interruptions."""

import json
import multiprocessing
import shutil
from pathlib import Path

import pytest
from msgspec.structs import replace

from fedbcs_monai.backends.local import train
from fedbcs_monai.benchmark import BenchmarkCallbacks, Estimate, carry_out, run_benchmark, steps_per_round
from fedbcs_monai.benchmark.plan import BenchmarkPlan, PlannedRun
from fedbcs_monai.benchmark.read_plan import Choice, read_suite
from fedbcs_monai.benchmark.status import is_finished, status_of
from fedbcs_monai.data import Samples
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.runs.status import RunStatus
from fedbcs_monai.settings import Settings

BROKEN = {"broken": {"method": "FedAvg", "overrides": {"method": "LocalOnly", "centralized": True}}}
RESULTS = ("model.safetensors", "last.safetensors", "scores.csv")


class Noting(BenchmarkCallbacks):
    """Writes down what happens, and may do something about it."""

    def __init__(self, on_move=lambda done: None):
        self.events, self.on_move = [], on_move

    def on_run_start(self, run, status):
        self.events.append((status.value, run.name))

    def on_run_end(self, run, seconds, done, total, left_s):
        self.events.append(("finished", run.name, done, total))

    def on_run_failed(self, failure):
        self.events.append(("failed", failure.run.name))

    def on_progress(self, done, total):
        self.on_move(done)


def suite_of(path: Path, output: Path, **choice) -> BenchmarkPlan:
    return read_suite(path, output, Choice(**choice))


def bits(benchmark: BenchmarkPlan, name: str) -> list[bytes]:
    return [(benchmark.output / "runs" / name / file).read_bytes() for file in RESULTS]


@pytest.fixture(scope="module")
def together(tiny_suite, tmp_path_factory):
    """A suite of two that work and one that cannot, two at once; the suite, its failures and what was heard."""
    path = tiny_suite(methods=["broken", "fedavg", "fedbcs"], trainings=BROKEN)
    benchmark, callbacks = suite_of(path, tmp_path_factory.mktemp("together")), Noting()
    return path, benchmark, run_benchmark(benchmark, jobs=2, callbacks=callbacks), callbacks.events


def test_a_run_that_fails_is_told_and_stops_no_other(together):
    _, benchmark, failures, events = together
    assert [(failure.run.name, failure.reason) for failure in failures] == [
        ("nuclei_broken_seed0", "centralized trains in one place, and LocalOnly keeps tensors at sites; use FedAvg")
    ]
    assert failures[0].reason in failures[0].log.read_text()
    assert ("failed", "nuclei_broken_seed0") in events
    assert [status_of(run) for run in benchmark.runs] == [RunStatus.NEW, RunStatus.FINISHED, RunStatus.FINISHED]


def test_one_job_gives_the_bits_of_two(together, tmp_path):
    path, benchmark, _, _ = together
    alone = suite_of(path, tmp_path, methods=["fedbcs"])
    assert run_benchmark(alone, jobs=1) == []
    assert bits(alone, "nuclei_fedbcs_seed0") == bits(benchmark, "nuclei_fedbcs_seed0")


def test_what_is_finished_is_not_run_again(together):
    path, benchmark, _, _ = together
    before = {file: file.stat().st_mtime_ns for file in benchmark.output.rglob("*") if file.is_file()}
    callbacks = Noting()
    assert run_benchmark(suite_of(path, benchmark.output, methods=["fedavg", "fedbcs"]), callbacks=callbacks) == []
    assert callbacks.events == []
    assert {file: file.stat().st_mtime_ns for file in benchmark.output.rglob("*") if file.is_file()} == before


def test_interrupted_and_run_again_equals_straight_through(together, tmp_path):
    path, benchmark, _, _ = together
    again = suite_of(path, tmp_path, methods=["fedavg", "fedbcs"])

    def interrupt(done):
        if done > 0.4:  # a first round is done
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_benchmark(again, jobs=2, callbacks=Noting(interrupt))
    assert multiprocessing.active_children() == []
    assert RunStatus.BEGUN in {status_of(run) for run in again.runs}
    callbacks = Noting()
    assert run_benchmark(again, jobs=2, callbacks=callbacks) == []
    assert "begun" in {event[0] for event in callbacks.events}
    for name in ("nuclei_fedavg_seed0", "nuclei_fedbcs_seed0"):
        assert bits(again, name) == bits(benchmark, name)


def test_a_run_interrupted_in_its_test_is_tested_again(together, tmp_path):
    path, benchmark, _, _ = together
    again = suite_of(path, tmp_path, methods=["fedavg"])
    shutil.copytree(benchmark.output / "runs" / "nuclei_fedavg_seed0", again.runs[0].folder)
    for name in ("summary.json", "scores.csv", "last.safetensors"):
        (again.runs[0].folder / name).unlink()
    callbacks = Noting()
    assert run_benchmark(again, callbacks=callbacks) == []
    assert callbacks.events[-1] == ("finished", "nuclei_fedavg_seed0", 1, 1)
    assert bits(again, "nuclei_fedavg_seed0") == bits(benchmark, "nuclei_fedavg_seed0")


def test_a_process_that_is_killed_is_told(tiny_suite, tmp_path):
    benchmark = suite_of(tiny_suite(methods=["fedavg"], overrides={"rounds": 50}), tmp_path)

    def kill(done):
        for child in multiprocessing.active_children():
            child.kill()

    (failure,) = run_benchmark(benchmark, callbacks=Noting(kill))
    assert failure.reason == "its process ended with code -9; perhaps it ran out of memory"


# One run, in this process.


@pytest.fixture(scope="module")
def finished(tiny_suite, tmp_path_factory):
    """A run that is finished."""
    benchmark = suite_of(tiny_suite(methods=["fedavg"]), tmp_path_factory.mktemp("one"))
    carry_out(benchmark.runs[0])
    return benchmark.runs[0]


def moved(run: PlannedRun, folder: Path, **changes) -> PlannedRun:
    """A copy of a run, asked for with other settings."""
    shutil.copytree(run.folder, folder)
    return PlannedRun(run.name, replace(run.settings, output=str(folder), **changes))


def test_a_run_has_three_stages(finished, tmp_path):
    copy = moved(finished, tmp_path / "run")
    assert status_of(copy) is RunStatus.FINISHED
    (copy.folder / "summary.json").unlink()
    assert status_of(copy) is RunStatus.BEGUN
    shutil.rmtree(copy.folder / "checkpoints")
    assert status_of(copy) is RunStatus.NEW


def test_a_run_that_ended_early_is_finished(finished, tmp_path):
    """For the patience that it was given; with more it goes on."""
    copy = moved(finished, tmp_path / "run", rounds=9, patience=1)
    summary = json.loads((copy.folder / "summary.json").read_text())
    (copy.folder / "summary.json").write_text(json.dumps(summary | {"rounds": 2, "selected_round": 1}))
    assert status_of(copy) is RunStatus.FINISHED
    for patience in (0, 2):
        assert status_of(PlannedRun(copy.name, replace(copy.settings, patience=patience))) is RunStatus.BEGUN


def test_a_run_that_ended_before_its_first_checkpoint_begins_anew(finished, tmp_path):
    copy = moved(finished, tmp_path / "run")
    (copy.folder / "summary.json").unlink()
    shutil.rmtree(copy.folder / "checkpoints")
    carry_out(copy)
    assert (copy.folder / "last.safetensors").read_bytes() == (finished.folder / "last.safetensors").read_bytes()


def test_more_rounds_go_on_and_fewer_or_other_settings_are_refused(finished, tmp_path):
    assert status_of(moved(finished, tmp_path / "a", rounds=3)) is RunStatus.BEGUN
    assert status_of(moved(finished, tmp_path / "b", device="cuda", threads=7, name="x")) is RunStatus.FINISHED
    for n, changes in enumerate(({"rounds": 1}, {"seed": 1}, {"batch_size": 3})):
        with pytest.raises(UserError, match=rf"other values of {next(iter(changes))}; .*--overwrite"):
            status_of(moved(finished, tmp_path / str(n), **changes))


def test_fewer_rounds_than_a_checkpoint_has_are_refused(finished, tmp_path):
    copy = moved(finished, tmp_path / "run", rounds=1)
    (copy.folder / "summary.json").unlink()
    with pytest.raises(UserError, match="other values of rounds"):
        status_of(copy)
    with pytest.raises(UserError, match="resumes after round 2, and rounds is 1; ask for 2 or more"):
        train(copy.settings, resume=True)


def test_a_site_list_of_the_same_name_with_other_parts_is_another(finished, tmp_path):
    sites, listed = Path(finished.settings.sites), tmp_path / "sites.json"
    run = moved(finished, tmp_path / "run", sites=str(listed))
    content = json.loads(sites.read_text()) | {"root": str(sites.parent)}
    listed.write_text(json.dumps(content))
    assert status_of(run) is RunStatus.FINISHED  # the same cases, wherever they lie
    for case in content["sites"][0]["cases"]:
        case["split"] = case["split"].replace("test", "val")
    listed.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"other values of sites \(its cases or their parts\)"):
        status_of(run)
    listed.unlink()
    with pytest.raises(UserError, match="other values of sites;"):  # nobody can tell
        status_of(run)


def test_a_run_that_goes_on_has_no_result_until_it_ends(finished, tmp_path):
    class Stopping(Callbacks):
        def on_step_end(self, site, steps):
            raise KeyboardInterrupt

    copy = moved(finished, tmp_path / "run", rounds=3)
    assert not is_finished(copy)
    with pytest.raises(KeyboardInterrupt):
        carry_out(copy, callbacks=Stopping())
    assert not (copy.folder / "summary.json").exists()
    assert status_of(copy) is RunStatus.BEGUN
    carry_out(copy)
    assert is_finished(copy)


def test_nothing_starts_when_a_folder_holds_another_run(tiny_suite, finished, tmp_path):
    benchmark = suite_of(tiny_suite(methods=["fedbcs", "fedavg"], overrides={"batch_size": 3}), tmp_path)
    shutil.copytree(finished.folder, benchmark.runs[1].folder)
    with pytest.raises(UserError, match="was run with other values of batch_size"):
        run_benchmark(benchmark)
    assert not benchmark.runs[0].folder.exists()


def test_an_interrupted_run_stops_between_two_steps(tiny_suite, tmp_path):
    class Stopping(Callbacks):
        def on_step_end(self, site, steps):
            raise KeyboardInterrupt

    (run,) = suite_of(tiny_suite(methods=["fedavg"]), tmp_path).runs
    with pytest.raises(KeyboardInterrupt):
        carry_out(run, callbacks=Stopping())
    assert status_of(run) is RunStatus.NEW


def test_at_least_one_job_is_needed(tiny_suite, tmp_path):
    with pytest.raises(UserError, match="jobs is 0"):
        run_benchmark(suite_of(tiny_suite(), tmp_path), jobs=0)


# What is said of the work.


def planned(name: str, task: str = "nuclei") -> PlannedRun:
    return PlannedRun(f"{name}_seed0", Settings(name=name, task=task))


def test_the_time_left_is_taken_from_runs_of_the_same_row_then_task_then_any():
    estimate = Estimate()
    assert estimate.of(planned("A")) is None
    estimate.learn(planned("A"), 10)
    estimate.learn(planned("B"), 30)
    assert estimate.of(planned("A")) == 10
    assert estimate.of(planned("C")) == 20
    assert estimate.of(planned("A", "prostate")) == 20
    assert estimate.left([planned("A"), planned("B")], {"x": (planned("B"), 0.5)}, 1) == 10 + 30 + 15
    assert estimate.left([planned("A"), planned("B")], {}, 2) == 30  # no run is shorter for having company


@pytest.mark.parametrize(("pool", "steps"), [(False, 6), (True, 6), ("site", 2)])
def test_steps_are_those_that_will_be_taken(tiny, tiny_prostate, pool, steps):
    known: dict[str, list[Samples]] = {}
    assert steps_per_round(tiny(centralized=pool), known) == steps  # 4 pictures at each of three sites, two a step
    assert steps_per_round(replace(tiny(centralized=pool), epochs=3), known) == 3 * steps
    assert steps_per_round(tiny_prostate, known) > 0
