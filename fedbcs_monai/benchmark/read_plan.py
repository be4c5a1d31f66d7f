"""Reading a plan: a benchmark file and the options of the command line become a `BenchmarkPlan`."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_choice
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from fedbcs_monai import config
from fedbcs_monai.benchmark.plan import BenchmarkPlan, PlannedRun, Row, Sweep, TaskPlan
from fedbcs_monai.catalog import find_benchmark
from fedbcs_monai.config import Content, beside, load_config, read_config, stacked
from fedbcs_monai.data import read_sites
from fedbcs_monai.errors import UserError, nearest
from fedbcs_monai.registry import is_method, method_names
from fedbcs_monai.settings import KEYS, Settings, check_keys, name_of, plain

BENCHMARK_KEYS = {
    "title": "heading of the page",
    "tasks": "the tasks, by name",
    "overrides": "keys of a run, laid over every training",
    "seeds": "seeds of a training that names none",
    "folds": "folds of the site lists",
    "trainings": "the trainings that are more than a method and the seeds, by name",
    "methods": "trainings compared: Tables 1 and 3, Figure 4 a",
    "bounds": "trainings that the methods are compared with: every site alone, all cases in one place",
    "ablation": "trainings with and without style recalibration and prototype alignment: Table 2",
    "sweep": "one training under several values of one key: Figure 3",
    "style": "trainings that normalise style in different places: Figure 4 b",
    "leave_one_out": "trainings repeated once without each site, which is then tested as an unseen one",
}

TASK_KEYS = {
    "sites": "site list (JSON), written by `fedbcs sites`",
    "config": "shipped task or file that its trainings start from, if not the shipped task of its own name",
    "size": "size of the shipped task",
    "trainings": "trainings that are otherwise on this task, by name",
    "overrides": "keys of a run, laid over every training of this task",
}

TRAINING_KEYS = {
    "method": "its method, if not the one of its own name",
    "variant": "its variant, which may bring a method",
    "label": "how its row is called, if not by its name or its method",
    "seeds": "its seeds",
    "overrides": "keys of a run, laid over the others",
}

SWEEP_KEYS = {
    "training": "which training",
    "key": "the key of a run that varies, such as method::tau",
    "values": "its values",
    "base": "a training to compare with",
    "seeds": "seeds, if not those of the benchmark",
}

TABLES = ("methods", "bounds", "ablation", "style", "leave_one_out")
NAMES = config.NAMES | {*TABLES, "title", "config", "size", "variant", "label", "training", "key", "base"}
"""Keys of a benchmark's file whose values are names or paths."""

PARTS = (*TABLES, "sweep")
"""What a benchmark can be asked for, one by one."""


@dataclass(frozen=True)
class Choice:
    """What the command line asks of a benchmark; None leaves it as it stands in the file.

    Args:
        sites: from a task's name to its site list; the empty name stands for the only task.
        tasks: names of the tasks.
        seeds: of every training.
        folds: of the site lists.
        methods: names of trainings; no others are run, and nothing is swept.
        parts: some of `PARTS`.
        leave_one_out: repeat every method without each site in turn.
        overrides: keys of a run, over those of the file.
        trust: as in `load_config`.
    """

    sites: Mapping[str, Path] = field(default_factory=dict)
    tasks: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    folds: Sequence[int] | None = None
    methods: Sequence[str] | None = None
    parts: Sequence[str] | None = None
    leave_one_out: bool = False
    overrides: Mapping[str, Any] = field(default_factory=dict)
    trust: Sequence[str] = ()


def read_suite(name: str | Path, output: Path, choice: Choice | None = None) -> BenchmarkPlan:
    """Read a benchmark's file, and resolve and check the configuration of every run.

    Args:
        name: of a YAML file, or of a shipped benchmark.
        output: folder of the benchmark; its runs go into ``runs`` in it.
        choice: of the command line.

    Raises:
        UserError: what is misspelt, missing or contradictory, in one line.
    """
    choice = choice or Choice()
    file = find_benchmark(name)
    if not {"methods", "tasks", "stack"} & read_config(file).keys():
        raise UserError(f"{name}: is not a benchmark: it has no `tasks`; `fedbcs train` takes a single run")
    content = stacked(file, BENCHMARK_KEYS, NAMES, find_benchmark)
    _check(content, str(name))
    for task in content["tasks"].values():
        if task.get("sites"):
            task["sites"] = beside(file, task["sites"])
    if choice.leave_one_out:
        content["leave_one_out"] = content.get("leave_one_out") or content["methods"]
    content, choice = _with_methods(content, choice)
    trainings = [training for part in TABLES for training in content.get(part, [])]
    _choose("method", choice.methods, dict.fromkeys(trainings), str(name))
    tasks = _choose("task", choice.tasks, content["tasks"], str(name))
    plans = [_Planner(task, content, _site_list(task, tasks, content, choice), output, choice).plan() for task in tasks]
    benchmark = BenchmarkPlan(str(content.get("title", "Benchmark")), output, tuple(plans))
    if not benchmark.runs:
        raise UserError(f"{name}: nothing is left to train; choose other --methods or --parts")
    return benchmark


class _Planner:
    """Plans one task; two trainings that turn out to be the same share their runs."""

    def __init__(self, task: str, content: Content, sites: Path, output: Path, choice: Choice) -> None:
        self.task, self.content, self.sites, self.output, self.choice = task, content, sites, output, choice
        self.seeds = content.get("seeds", [0])
        self.folds = list(dict.fromkeys(choice.folds or content.get("folds", [0])))
        self.planned: dict[str, PlannedRun] = {}

    def plan(self) -> TaskPlan:
        """The whole task."""
        methods, bounds, ablation, style = ([self.row(name) for name in self.names(part)] for part in TABLES[:4])
        plan = TaskPlan(
            self.task, tuple(methods), tuple(bounds), tuple(ablation), tuple(style), self.sweep(), self.left_out()
        )
        for rows in (plan.inside, *plan.left_out.values()):
            self.tell_apart(rows)
        if len({str(run.settings.leave_out) for row in plan.inside for run in row.runs}) > 1:
            raise UserError(f"tasks: {self.task}: trainings differ in leave_out; tables compare the same sites")
        return plan

    def tell_apart(self, rows: Iterable[Row]) -> None:
        """Refuse two rows of one name: tables could not tell them apart."""
        found: dict[str, Row] = {}
        for row in rows:
            other = found.setdefault(row.label, row)
            if other.key != row.key:
                names = " and ".join(one.key.removeprefix(f"{self.task}_") for one in (other, row))
                raise UserError(
                    f"tasks: {self.task}: {names} are both labelled {row.label!r}; give one another `label`"
                )

    def names(self, part: str) -> list[str]:
        """The trainings of a part that were not ruled out."""
        if self.choice.parts is not None and part not in self.choice.parts:
            return []
        wanted = self.choice.methods
        return [name for name in self.content.get(part, []) if wanted is None or name in wanted]

    def about(self, name: str, **more: Any) -> Content:
        """A training's entry in the file, and more overrides."""
        of_task = self.content["tasks"][self.task].get("trainings") or {}
        found = {"seeds": self.seeds, **self.content.get("trainings", {}).get(name, {}), **of_task.get(name, {})}
        own = found.get("overrides", {})
        if not (found.get("method") or found.get("variant") or "method" in own):
            found["method"] = _method_called(name, self.content)
        return {**found, "overrides": {**own, **more}}

    def sweep(self) -> Sweep | None:
        """The training under every value of the key."""
        asked = self.content.get("sweep")
        if not asked or self.choice.methods is not None or "sweep" not in (self.choice.parts or PARTS):
            return None
        short, seeds = asked["key"].rpartition("::")[2], asked.get("seeds", self.seeds)
        self.row(asked["training"], {**self.about(asked["training"]), "seeds": seeds})  # a value may be its own
        rows = []
        for value in asked["values"]:
            about = self.about(asked["training"], **{asked["key"]: value})
            about |= {"seeds": seeds, "label": f"{short} {value}"}
            rows.append(self.row(f"{asked['training']}_{short}_{value}", about))
        base = self.row(asked["base"]) if asked.get("base") else None
        return Sweep(asked["key"], tuple(asked["values"]), tuple(rows), base)

    def left_out(self) -> dict[str, tuple[Row, ...]]:
        """The trainings once without each site that trains."""
        names = self.names("leave_one_out")
        if names and "leave_out" in self.choice.overrides:
            raise UserError("command line: leave_out and --leave-one-site-out exclude each other; choose one")
        sites = sorted(read_sites(self.sites).items()) if names else []
        return {
            site: tuple(self.row(f"{name}_without_{site}", self.about(name, leave_out=site)) for name in names)
            for site, data in sites
            if data.split("train", self.folds[0])
        }

    def refuse_command_line(self, name: str, about: Content) -> None:
        """Refuse a key of the command line that would contradict a row's label."""
        for given, value in self.choice.overrides.items() if about.get("label") else ():
            for key, own in {**_method_of(about), **about["overrides"]}.items():
                if value != own and (f"{key}::".startswith(f"{given}::") or f"{given}::".startswith(f"{key}::")):
                    raise UserError(
                        f"command line: {given} is what {name} ({about['label']}) sets itself; "
                        "leave that out with --methods or --parts"
                    )

    def row(self, name: str, about: Content | None = None) -> Row:
        """A training and its runs."""
        about = about or self.about(name)
        self.refuse_command_line(name, about)
        of_task: Content = self.content["tasks"][self.task]
        below = (self.content.get("overrides", {}), of_task.get("overrides", {}))
        layers = (_method_of(about), *below, about["overrides"])
        overrides: Content = {}
        for layer in (*layers, self.choice.overrides):  # later layers win
            overrides = {key: value for key, value in overrides.items() if key not in layer} | dict(layer)
        settings = load_config(
            of_task.get("config") or self.task,
            {**overrides, "sites": str(self.sites)},
            self.choice.trust,
            size=of_task.get("size") or "",
            variant=about.get("variant") or "",
        )
        label = about.get("label") or name_of(settings)
        settings = replace(settings, name=label, task=self.task)
        seeds = dict.fromkeys(self.choice.seeds or about["seeds"])
        return Row(
            f"{self.task}_{name}",
            label,
            tuple(self.run(name, replace(settings, seed=seed, fold=fold)) for fold in self.folds for seed in seeds),
        )

    def run(self, name: str, settings: Settings) -> PlannedRun:
        """A run, or the one with the same configuration that is planned already."""
        same = json.dumps(plain(replace(settings, name="")), sort_keys=True)
        if same not in self.planned:
            fold = f"_fold{settings.fold}" if settings.fold else ""
            full = f"{self.task}_{name}{fold}_seed{settings.seed}"
            self.planned[same] = PlannedRun(full, replace(settings, output=str(self.output / "runs" / full)))
        return self.planned[same]


def _method_of(about: Content) -> Content:
    """The method of a training as an override; none where its variant or its own overrides bring one."""
    return {"method": about["method"]} if about.get("method") else {}


def _method_called(name: str, content: Content) -> str:
    """The name of a training, where it is that of a method."""
    if is_method(name):
        return name
    known = sorted({*content.get("trainings", {}), *(known.lower() for known in method_names())})
    raise UserError(f"{name}: no method and no training of this name{nearest(name, known)}")


def _with_methods(content: Content, choice: Choice) -> tuple[Content, Choice]:
    """The benchmark with the methods that the command line names and the file does not."""
    listed = {training for part in TABLES for training in content.get(part, [])}
    more = [name for name in choice.methods or () if name not in listed and ("." in name or is_method(name))]
    short = {name: name.rpartition(".")[2].lower() for name in more}
    trainings = {**content.get("trainings", {}), **{short[name]: {"method": name} for name in more}}
    methods = [*content["methods"], *short.values()]
    chosen = None if choice.methods is None else [short.get(name, name) for name in choice.methods]
    return {**content, "trainings": trainings, "methods": methods}, replace_choice(choice, methods=chosen)


def _site_list(task: str, tasks: Sequence[str], content: Content, choice: Choice) -> Path:
    """A task's site list: that of the command line, or of the file."""
    _choose("task", [name for name in choice.sites if name], content["tasks"], "--sites")
    if "" in choice.sites and len(tasks) > 1:
        raise UserError(f"{', '.join(tasks)} have a site list each; name both: --sites {task}=FILE")
    found = choice.sites.get(task) or choice.sites.get("") or content["tasks"][task].get("sites")
    if not found:
        raise UserError(
            f"task {task!r} has no site list; `fedbcs sites FOLDER` writes one, --sites {task}=FILE names it"
        )
    if not Path(found).is_file():
        raise UserError(f"{found}: no such site list for {task!r}; name it with --sites {task}=FILE, or choose --tasks")
    return Path(found)


def _choose(what: str, wanted: Sequence[str] | None, there: Iterable[str], where: str) -> list[str]:
    """Those of the names that are wanted; all if none are named."""
    names = list(there)
    for name in wanted or ():
        if name not in names:
            raise UserError(f"{where}: no {what} {name!r}; there are: {', '.join(names)}")
    return [name for name in names if wanted is None or name in wanted]


def _check(content: Content, where: str) -> None:
    """Refuse unknown keys, and values of another kind."""
    for key in ("tasks", "methods"):
        if not content.get(key):
            raise UserError(f"{where}: is not a benchmark: it has no `{key}`; `fedbcs train` takes a single run")
    for key, known in (("tasks", TASK_KEYS), ("trainings", TRAINING_KEYS)):
        for name, inner in _mapping(content, key, where).items():
            _check_name(name, f"{where}: {key}")
            check_keys(inner, known, f"{where}: {key}: {name}")
            _check_overrides(inner, f"{where}: {key}: {name}")
            _list(inner, "seeds", int, f"{where}: {key}: {name}")
            if not isinstance(inner.get("label") or "", str):
                said = f"`label` must be text, got {inner['label']!r}; put it in quotes"
                raise UserError(f"{where}: {key}: {name}: {said}")
    for key in ("seeds", "folds"):
        _list(content, key, int, where)
    for key in TABLES:
        _list(content, key, str, where)
        for name in content.get(key) or ():
            _check_name(name, f"{where}: {key}")
    _check_overrides(content, where)
    sweep = _mapping(content, "sweep", where)
    check_keys(sweep, SWEEP_KEYS, f"{where}: sweep")
    missing = [key for key in ("training", "key", "values") if sweep and not sweep.get(key)]
    if missing:
        raise UserError(f"{where}: sweep: lacks {', '.join(missing)}")
    if sweep and not isinstance(sweep["values"], list):
        raise UserError(f"{where}: sweep: `values` must be a list, got {sweep['values']!r}")
    _list(sweep, "seeds", int, f"{where}: sweep")


def _check_name(name: Any, where: str) -> None:
    """Refuse what cannot be part of a folder's name."""
    if not isinstance(name, str) or not name or set(name) & set("/\\"):
        raise UserError(
            f"{where}: {name!r} names a folder, so it is text without slashes; a path goes into the `variant` of a "
            "training of another name"
        )


def _check_overrides(content: Content, where: str) -> None:
    overrides = _mapping(content, "overrides", where)
    check_keys({str(key).partition("::")[0]: value for key, value in overrides.items()}, KEYS, f"{where}: overrides")


def _mapping(content: Content, key: str, where: str) -> Content:
    found = content.get(key) or {}
    if not isinstance(found, dict):
        raise UserError(f"{where}: `{key}` must be a mapping, got {found!r}")
    return found


def _list(content: Content, key: str, kind: type, where: str) -> None:
    found = content.get(key, [])
    if not isinstance(found, list) or any(type(value) is not kind for value in found):
        raise UserError(f"{where}: `{key}` must be a list of {'names' if kind is str else 'numbers'}, got {found!r}")
