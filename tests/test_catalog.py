"""Catalog: what is shipped is found by name with one line about it, and older names are refused with today's."""

import math

import pytest
import torch

from fedbcs_monai.catalog import (
    available,
    benchmarks,
    find_benchmark,
    find_variant,
    sizes,
    tasks,
    variants,
    written_today,
)
from fedbcs_monai.config import load_config
from fedbcs_monai.errors import UserError
from fedbcs_monai.registry import own_methods
from fedbcs_monai.runs.setup import schedule_of


def test_everything_that_can_be_named_has_one_line():
    found = available()
    assert list(found["tasks"]) == tasks() == ["nuclei", "prostate"]
    assert list(found["variants"]) == variants() == ["authors", "cdpa", "fsr", "paper"]
    assert list(found["benchmarks"]) == benchmarks()
    assert own_methods().keys() <= found["methods"].keys()
    assert "prostate --size small" in found["sizes"]
    for part in found.values():
        for line in part.values():
            assert 20 < len(line) < 160
            assert "\n" not in line


def test_the_full_size_comes_first_and_is_meant_where_none_is_named():
    assert sizes("nuclei") == ["full", "demo", "short", "small"]
    assert load_config("nuclei") == load_config("nuclei", size="full") != load_config("nuclei", size="small")


@pytest.mark.parametrize(
    ("name", "today"),
    [
        ("nuclei_fedavg", "nuclei --method FedAvg"),
        ("nuclei_small_fedbcs", "nuclei --size short --method FedBCS"),
        ("prostate_small_fsr", "prostate --size short --variant fsr"),
        ("prostate_fedbcs_authors", "prostate --variant authors"),
        ("nuclei_fpl", "nuclei --method FPL --method::tau 0.02"),
        ("nuclei_small_fpl", "nuclei --size short --method FPL"),
        ("prostate_harmofl", "prostate --method HarmoFL --method::weighting equal"),
        ("nuclei_harmofl", "nuclei --method HarmoFL"),
        ("demo_prostate", "prostate --size demo"),
    ],
)
def test_an_experiment_of_an_earlier_version_is_refused_with_what_to_write(name, today):
    with pytest.raises(UserError, match=f"'{name}' is no longer a configuration: write `{today}`"):
        load_config(name)


def test_a_benchmark_of_an_earlier_version_is_refused_with_its_name_of_today():
    with pytest.raises(UserError, match="'benchmark_small' is no longer a configuration: write `small`"):
        find_benchmark("benchmark_small")


@pytest.mark.parametrize("name", ["mine", "nuclei", "nuclei_", "nuclei_small", "lungs_fedavg", "nuclei_fedxyz"])
def test_other_names_are_none_of_an_earlier_version(name):
    assert written_today(name) == ""


def test_a_variant_may_be_otherwise_on_one_task():
    assert find_variant("authors", "nuclei").stem == "authors_nuclei"
    assert find_variant("authors", "lungs").stem == "authors"
    with pytest.raises(UserError, match="no variant 'author', did you mean 'authors'"):
        find_variant("author", "nuclei")


def test_a_variant_of_a_file_is_that_of_its_task(tmp_path):
    (tmp_path / "mine.yaml").write_text("stack: [prostate/small]")
    assert load_config(tmp_path / "mine.yaml", variant="authors").method["tau"] == 0.4
    with pytest.raises(UserError, match="--size small: goes with the name of a task"):
        load_config(tmp_path / "mine.yaml", size="small")


@pytest.mark.parametrize("task", ["nuclei", "prostate"])
def test_a_method_s_own_layers_win_over_a_shipped_task_and_over_nothing_else(task, tmp_path):
    def norm(method, overrides=None, config=task, **more):
        return load_config(config, {"method": method, **(overrides or {})}, **more).network_def["norm"]

    assert norm("FedBN", size="small") == "batch"
    assert norm("FedBN", {"network_def::norm": "group"}, size="small") == "group"
    assert norm("FedAvg", size="small") == {"nuclei": "instance", "prostate": "batch_statistics"}[task]
    (tmp_path / "mine.yaml").write_text(f"stack: [{task}/small]\nnetwork_def::norm: instance\n")
    assert norm("FedBN", config=tmp_path / "mine.yaml") == "instance"


@pytest.mark.parametrize("task", ["nuclei", "prostate"])
def test_the_recipe_s_learning_rate_falls_to_a_fiftieth_over_the_rounds_that_are_asked_for(task):
    for rounds in (5, 40):
        settings = load_config(task, {"rounds": rounds}, size="small")
        schedule, rates = schedule_of(settings), []
        for round in (1, rounds):
            optimizer = torch.optim.SGD([torch.zeros(1)], lr=settings.optimizer["lr"])
            schedule(optimizer, round)
            rates.append(optimizer.param_groups[0]["lr"])
        step = (1 + math.cos(math.pi * (rounds - 1) / rounds)) / 2
        first = settings.optimizer["lr"]
        assert rates == pytest.approx([first, first * (0.02 + 0.98 * step)])
