"""Catalog: the shipped configurations by task, size, variant and benchmark, and the successors of old names."""

import re
from collections.abc import Mapping
from pathlib import Path

from fedbcs_monai.errors import UserError, nearest
from fedbcs_monai.registry import described_methods, is_method, own_methods

FULL = "full"
"""The size of a task that is meant where none is named."""

_OLD = re.compile(r"(nuclei|prostate)_(small_)?(?:(fedbcs)_(authors|paper)|(cdpa|fsr)|([a-z]+))")
_SETTINGS = {
    "fedplvm": " --method::weight 100",
    "feduv": " --method::gamma identity",
    "fpl": " --method::tau 0.02",
    "prostate harmofl": " --method::weighting equal",
}
"""What the experiments of the paper's size set besides the method, before they were tasks."""


def shipped() -> Path:
    """The folder that holds `bundle` and `configs`: in the installed package, or the repository's root."""
    package = Path(__file__).parent
    inside = package / "_shipped"
    return inside if inside.is_dir() else package.parent


def tasks() -> list[str]:
    """The tasks that are shipped."""
    return sorted(path.name for path in _tasks().iterdir() if path.is_dir())


def is_shipped_task(path: str) -> bool:
    """Whether a file is one of a shipped task."""
    return _tasks().resolve() in Path(path).parents


def sizes(task: str) -> list[str]:
    """The sizes of a task, the full one first."""
    return sorted((path.stem for path in (_tasks() / task).glob("*.yaml")), key=lambda size: (size != FULL, size))


def variants() -> list[str]:
    """The variants that are shipped; what one says of a single task is not another one."""
    stems = sorted(path.stem for path in _variants().glob("*.yaml"))
    return [stem for stem in stems if not any(stem.endswith(f"_{task}") for task in tasks())]


def benchmarks() -> list[str]:
    """The benchmarks that are shipped."""
    return sorted(path.stem for path in _benchmarks().glob("*.yaml"))


def available() -> dict[str, Mapping[str, str]]:
    """Everything that can be named, in five parts, each from a name to one line about it.

    The parts are ``tasks`` (with ``sizes`` as ``TASK --size SIZE``), ``methods``, ``variants`` and ``benchmarks``.
    """
    return {
        "tasks": {task: _about(_tasks() / task / f"{FULL}.yaml") for task in tasks()},
        "sizes": {
            f"{task} --size {size}": _about(_tasks() / task / f"{size}.yaml")
            for task in tasks()
            for size in sizes(task)
        },
        "methods": described_methods(),
        "variants": {name: _about(_variants() / f"{name}.yaml") for name in variants()},
        "benchmarks": {name: _about(_benchmarks() / f"{name}.yaml") for name in benchmarks()},
    }


def find_task(name: str | Path, size: str = "") -> Path:
    """The file of a shipped task, or any other file as it is.

    Args:
        name: of a task, or a path. In `stack` also of a size: ``nuclei/small``.
        size: of a task.

    Raises:
        UserError: there is no such task, size or file.
    """
    path = Path(name)
    if path.is_file():
        if size:
            raise UserError(f"--size {size}: goes with the name of a task, and {name} is a file; leave one of them out")
        return path
    if str(name) in tasks():
        return _known_size(str(name), size or FULL)
    if len(path.parts) == 2 and path.parts[0] in tasks() and not size:
        return _known_size(*path.parts)
    refuse_old(str(name))
    if len(path.parts) > 1:
        raise UserError(f"no configuration {str(name)!r}: there is no such file")
    raise UserError(f"no configuration {str(name)!r}; give a file, or the name of a task{nearest(str(name), tasks())}")


def find_variant(name: str, task: str) -> Path:
    """The file of a variant: that for the task where there is one, or any other file as it is.

    Raises:
        UserError: there is none.
    """
    found = [Path(name), _variants() / f"{name}_{task}.yaml", _variants() / f"{name}.yaml"]
    for path in found:
        if path.is_file():
            return path
    raise UserError(f"no variant {name!r}{nearest(name, variants())}")


def find_benchmark(name: str | Path) -> Path:
    """The file of a shipped benchmark, or any other file as it is.

    Raises:
        UserError: there is none.
    """
    path = Path(name)
    shipped_one = _benchmarks() / f"{name}.yaml"
    if path.is_file() or not shipped_one.is_file():
        if not path.is_file():
            refuse_old(str(name))
            if str(name) in tasks():
                raise UserError(f"{name}: is a task, not a benchmark; `fedbcs train` runs it")
            said = f"there are: {', '.join(benchmarks())}" if len(path.parts) == 1 else "there is no such file"
            raise UserError(f"no benchmark {str(name)!r}; {said}")
        return path
    return shipped_one


def refuse_old(name: str) -> None:
    """Refuse the name of an experiment of an earlier version, with what to write today.

    Raises:
        UserError: it is one.
    """
    today = written_today(name)
    if today:
        raise UserError(f"{name!r} is no longer a configuration: write `{today}`")


def written_today(name: str) -> str:
    """How the experiment of an earlier version is written today; empty if the name is none.

    >>> written_today("nuclei_small_fedbcs"), written_today("benchmark_small"), written_today("mine")
    ('nuclei --size short --method FedBCS', 'small', '')
    """
    kind, _, rest = name.partition("_")
    if kind == "benchmark" and rest in benchmarks():
        return rest
    if kind == "demo" and rest in tasks():
        return f"{rest} --size demo"
    found = _OLD.fullmatch(name)
    if not found:
        return ""
    task, small, _, variant, part, method = found.groups()
    size = " --size short" if small else ""
    if variant or part:
        return f"{task}{size} --variant {variant or part}"
    if not is_method(method):
        return f"{task}{size}" if not method else ""
    called = next(known for known in own_methods() if known.lower() == method)
    more = "" if small else _SETTINGS.get(method, _SETTINGS.get(f"{task} {method}", ""))
    return f"{task}{size} --method {called}{more}"


def _known_size(task: str, size: str) -> Path:
    path = _tasks() / task / f"{size}.yaml"
    if not path.is_file():
        raise UserError(f"{task} has no size {size!r}; there are: {', '.join(sizes(task))}")
    return path


def _about(path: Path) -> str:
    """The first line of a file, a comment that says what it is."""
    return path.read_text(encoding="utf-8").splitlines()[0].removeprefix("#").strip()


def _tasks() -> Path:
    return shipped() / "configs" / "tasks"


def _variants() -> Path:
    return shipped() / "configs" / "variants"


def _benchmarks() -> Path:
    return shipped() / "configs" / "benchmarks"
