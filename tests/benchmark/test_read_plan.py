"""Planning: a benchmark's file to runs: which there are, what they are called, and what is refused."""

from pathlib import Path

import pytest
import yaml

from fedbcs_monai.benchmark.read_plan import BENCHMARK_KEYS, NAMES, Choice, read_suite
from fedbcs_monai.catalog import find_benchmark, shipped
from fedbcs_monai.config import stacked
from fedbcs_monai.errors import UserError

BOUNDS = {"local": "Local only", "pooled_site": "Pooled, steps of one site", "pooled": "Pooled"}
SHIPPED = sorted((shipped() / "configs" / "benchmarks").glob("*.yaml"))


def plan(path, **choice):
    return read_suite(path, Path("out"), Choice(**choice))


def names(benchmark):
    return [run.name for run in benchmark.runs]


def labels(rows):
    return [row.label for row in rows]


def test_every_row_has_a_run_for_every_seed_and_the_first_of_all_come_first(tiny_suite):
    benchmark = plan(tiny_suite(seeds=[3], trainings={"fedavg": {"seeds": [0, 1]}}))
    assert names(benchmark) == ["nuclei_fedavg_seed0", "nuclei_fedbcs_seed3", "nuclei_fedavg_seed1"]
    assert [run.settings.seed for run in benchmark.runs] == [0, 3, 1]
    assert [run.folder for run in benchmark.runs] == [Path("out/runs") / name for name in names(benchmark)]


def test_every_fold_but_the_first_is_named(tiny_suite):
    path = tiny_suite(methods=["fedavg"], folds=[0, 2])
    assert names(plan(path)) == ["nuclei_fedavg_seed0", "nuclei_fedavg_fold2_seed0"]
    assert names(plan(path, folds=[2])) == ["nuclei_fedavg_fold2_seed0"]


def test_a_seed_or_fold_that_is_named_twice_counts_once(tiny_suite):
    assert names(plan(tiny_suite(methods=["fedavg"]), seeds=[1, 1], folds=[0, 0])) == ["nuclei_fedavg_seed1"]


def test_overrides_of_the_command_line_win_over_training_task_and_benchmark(tiny_suite):
    path = tiny_suite(
        overrides={"rounds": 3, "epochs": 3}, trainings={"fedavg": {"overrides": {"rounds": 4, "epochs": 4}}}
    )
    config = plan(path, overrides={"rounds": 5}).runs[0].settings
    assert (config.rounds, config.epochs, config.batch_size) == (5, 4, 2)
    assert config.optimizer["momentum"] == 0.9  # of the task


def test_the_command_line_wins_over_a_training_that_replaces_the_whole(tiny_suite):
    whole = {"optimizer": {"_target_": "torch.optim.SGD", "lr": 0.5}}
    path = tiny_suite(overrides={"optimizer::lr": 0.1}, trainings={"fedavg": {"overrides": whole}})
    assert plan(path).runs[0].settings.optimizer["lr"] == 0.5
    assert plan(path, overrides={"optimizer::lr": 0.2}).runs[0].settings.optimizer["lr"] == 0.2


def test_rows_are_called_by_label_or_by_the_method(tiny_suite):
    (task,) = plan(tiny_suite(bounds=["local", "pooled"])).tasks
    assert labels(task.methods) == ["FedAvg", "FedBCS"]
    assert labels(task.bounds) == ["Local only", "Pooled"]
    assert [run.settings.name for row in task.bounds for run in row.runs] == ["Local only", "Pooled"]


def test_a_training_in_two_tables_is_run_once(tiny_suite):
    benchmark = plan(tiny_suite(ablation=["fedavg", "fedbcs"], style=["fedavg"]))
    assert names(benchmark) == ["nuclei_fedavg_seed0", "nuclei_fedbcs_seed0"]
    assert labels(benchmark.tasks[0].ablation) == ["FedAvg", "FedBCS"]


def test_a_sweep_shares_the_run_that_has_its_value_already(tiny_suite):
    about = {"fedbcs": {"overrides": {"network_def::context::width": 4, "method::tau": 0.4}}}
    sweep = {"training": "fedbcs", "key": "method::tau", "values": [0.1, 0.4]}
    benchmark = plan(tiny_suite(methods=["fedbcs"], sweep=sweep, trainings=about))
    assert names(benchmark) == ["nuclei_fedbcs_seed0", "nuclei_fedbcs_tau_0.1_seed0"]
    assert labels(benchmark.tasks[0].sweep.rows) == ["tau 0.1", "tau 0.4"]
    alone = plan(tiny_suite(methods=["fedbcs"], sweep=sweep, trainings=about), parts=["sweep"])
    assert sorted(names(alone)) == sorted(names(benchmark))


def test_the_command_line_does_not_set_what_a_label_says_otherwise(tiny_suite):
    instance = {"method": "FedAvg", "label": "Instance norm", "overrides": {"network_def::norm": "instance"}}
    path = tiny_suite(methods=["fedavg", "instance"], trainings={"instance": instance})
    with pytest.raises(UserError, match=r"network_def::norm is what instance \(Instance norm\) sets itself"):
        plan(path, overrides={"network_def::norm": "batch"})
    assert len(plan(path, overrides={"network_def::norm": "instance"}).runs) == 1  # the same training twice
    assert len(plan(path, overrides={"rounds": 3}).runs) == 2
    assert len(plan(path, overrides={"network_def::norm": "batch"}, methods=["fedavg"]).runs) == 1


def test_the_command_line_does_not_set_what_a_sweep_varies(tiny_suite):
    path = tiny_suite(methods=["fedbcs"], sweep={"training": "fedbcs", "key": "method::tau", "values": [0.1]})
    for given in ({"method::tau": 1}, {"method": "FedBCSM"}):
        with pytest.raises(UserError, match=r"is what fedbcs_tau_0.1 \(tau 0.1\) sets itself; leave that out"):
            plan(path, overrides=given)
    assert plan(path, overrides={"method::tau": 1}, parts=["methods"]).runs[0].settings.method["tau"] == 1


def test_every_site_that_trains_is_left_out_once(tiny_suite):
    (task,) = plan(tiny_suite(methods=["fedavg"]), leave_one_out=True).tasks
    assert list(task.left_out) == ["Alder", "Birch", "Cedar"]
    assert [run.settings.leave_out for rows in task.left_out.values() for row in rows for run in row.runs] == [
        "Alder",
        "Birch",
        "Cedar",
    ]


def test_trainings_and_parts_can_be_chosen(tiny_suite):
    sweep = {"training": "fedbcs", "key": "method::tau", "values": [0.1]}
    path = tiny_suite(bounds=["local"], sweep=sweep)
    assert names(plan(path, methods=["fedbcs"], seeds=[5])) == ["nuclei_fedbcs_seed5"]
    assert names(plan(path, parts=["bounds"])) == ["nuclei_local_seed0"]
    assert names(plan(path, parts=["sweep"])) == ["nuclei_fedbcs_tau_0.1_seed0"]


def test_each_task_has_its_site_list(tiny_suite, nuclei_sites, tmp_path):
    path = tiny_suite()
    content = yaml.safe_load(path.read_text())
    content["tasks"]["other"] = {**content["tasks"]["nuclei"], "config": "nuclei", "sites": None}
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(UserError, match=r"task .other. has no site list.*--sites other=FILE"):
        plan(path)
    with pytest.raises(UserError, match="have a site list each; name both"):
        plan(path, sites={"": nuclei_sites})
    with pytest.raises(UserError, match=r"nowhere\.json: no such site list for 'other'"):
        plan(path, sites={"other": tmp_path / "nowhere.json"})
    assert [task.name for task in plan(path, sites={"other": nuclei_sites}).tasks] == ["nuclei", "other"]
    assert [task.name for task in plan(path, tasks=["nuclei"]).tasks] == ["nuclei"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"sweeps": {}}, "unknown key 'sweeps', did you mean 'sweep'"),
        ({"methods": ["fedavgg"]}, "fedavgg: no method and no training of this name, did you mean 'fedavg'?"),
        ({"methods": "fedavg"}, "`methods` must be a list of names"),
        ({"methods": []}, "is not a benchmark: it has no `methods`"),
        ({"seeds": [0.5]}, "`seeds` must be a list of numbers"),
        ({"tasks": {"nuclei": {"site": "x"}}}, "tasks: nuclei: unknown key 'site', did you mean 'sites'"),
        ({"tasks": {"lungs": {"sites": "x"}}}, "no such site list for 'lungs'"),
        ({"trainings": {"fedavg": {"seed": [1]}}}, "trainings: fedavg: unknown key 'seed', did you mean 'seeds'"),
        ({"trainings": {"fedavg": [1]}}, "trainings: fedavg: must be a mapping with method, variant, label"),
        (
            {"trainings": {"fedavg": {"overrides": {"roundz": 1}}}},
            "overrides: unknown key 'roundz', did you mean 'rounds'",
        ),
        ({"overrides": {"roundz": 1}}, "overrides: unknown key 'roundz', did you mean 'rounds'"),
        ({"sweep": {"training": "fedbcs"}}, "sweep: lacks key, values"),
        ({"sweep": {"training": "fedbcs", "key": "method::tau", "values": 3}}, "sweep: `values` must be a list"),
        ({"methods": ["a/b.yaml"]}, "methods: 'a/b.yaml' names a folder, so it is text without slashes"),
        ({"trainings": {"fedavg": {"label": [10]}}}, "trainings: fedavg: `label` must be text, got ['10']"),
        (
            {"methods": ["fedavg", "b"], "trainings": {"b": {"method": "FedAvg", "overrides": {"rounds": 9}}}},
            "tasks: nuclei: fedavg and b are both labelled 'FedAvg'; give one another `label`",
        ),
        ({"trainings": {"fedbcs": {"overrides": {"leave_out": "Alder"}}}}, "trainings differ in leave_out"),
        ({"overrides": {"rounds": 0}}, "rounds is 0: it must be a whole number, 1 or more"),
    ],
    ids=str,
)
def test_a_mistake_in_the_file_is_named(tiny_suite, content, said):
    path = tiny_suite()
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **content}))
    with pytest.raises(UserError) as error:
        plan(path)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"methods": ["fedavgg"]}, "no method 'fedavgg'; there are: fedavg, fedbcs"),
        ({"tasks": ["prostate"]}, "no task 'prostate'; there are: nuclei"),
        ({"sites": {"prostate": Path("x")}}, "--sites: no task 'prostate'"),
        ({"parts": ["bounds"]}, "nothing is left to train"),
        ({"overrides": {"roundz": 1}}, "command line: unknown key 'roundz'"),
        (
            {"overrides": {"leave_out": "Alder"}, "leave_one_out": True},
            "leave_out and --leave-one-site-out exclude each other",
        ),
    ],
    ids=str,
)
def test_a_mistake_on_the_command_line_is_named(tiny_suite, choice, said):
    with pytest.raises(UserError) as error:
        plan(tiny_suite(), **choice)
    assert said in str(error.value)


@pytest.mark.parametrize("path", SHIPPED, ids=[path.stem for path in SHIPPED])
def test_a_shipped_benchmark_plans_all_it_names(path, nuclei_sites, prostate_sites):
    content = stacked(path, BENCHMARK_KEYS, NAMES, find_benchmark)
    sites = {"nuclei": nuclei_sites, "prostate": prostate_sites}
    benchmark = read_suite(path.stem, Path("out"), Choice(sites={task: sites[task] for task in content["tasks"]}))
    for task in benchmark.tasks:
        assert len(task.methods) == len(content["methods"])
        assert labels(task.bounds) == [BOUNDS[name] for name in content["bounds"]]
        assert len(task.ablation) == len(content["ablation"])
        without = [row for rows in task.left_out.values() for row in rows]
        inside = [row for row in task.rows if row not in without]
        assert len({row.label for row in inside}) == len(inside)
        assert all(len(rows) == len(content["leave_one_out"]) for rows in task.left_out.values())
    assert len({run.folder for run in benchmark.runs}) == len(benchmark.runs)


@pytest.mark.parametrize("name", ["paper", "small"])
def test_the_paper_s_methods_and_parts_are_all_compared(name):
    content = stacked(find_benchmark(name), BENCHMARK_KEYS, NAMES, find_benchmark)
    assert len(content["methods"]) >= 11
    assert content["bounds"] == list(BOUNDS)
    assert content["ablation"] == ["fedavg", "cdpa", "fsr", "fedbcs"]
