"""Configuration: stack files, apply overrides, and validate the result into `Settings`."""

import re
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from fedbcs_monai.allowlist import METHODS, Trust, trusting
from fedbcs_monai.catalog import find_task, find_variant, is_shipped_task, tasks
from fedbcs_monai.components import TRUST, check_permitted, components, resolved, trusted_target
from fedbcs_monai.errors import UserError
from fedbcs_monai.registry import method_target, network_layers, own_methods, registered
from fedbcs_monai.settings import (
    KEYS,
    OLD_FIELDS,
    OLD_NAMES,
    SLOTS,
    TEXTS,
    Key,
    Settings,
    check_classes,
    check_keys,
    check_value,
)

Content = dict[str, Any]
"""The content of a file, before it is checked."""

PASSED_BY = {
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "optimizer::params": "$@network.parameters()",
}
"""Keys of a bundle's workflow that we neither evaluate nor need."""

WORKFLOW = frozenset(
    ("bundle_root", "ckpt_dir", "output_dir", "dataset_dir", "datalist", "site", "suffixes", "saving", "network")
) | frozenset(("val_interval", "train", "validate", "initialize", "run"))
"""Keys of a bundle's own workflows, which `monai.bundle` reads and a federation ignores."""

SEGMENTER = "fedbcs_monai.networks.build_segmenter"
"""The network that takes the layers of a method."""

NAMES = TEXTS | {"stack"}
"""Keys of a run's files whose values are names or paths, so that a NO or a 001 in YAML is text."""


IMAGE_KEYS = {"reads": "reading", "slice_plane": "preprocessing"}
"""Keys that say of images what prediction must know, and whose transforms must agree."""

PLANES = {"L": "sagittal", "R": "sagittal", "P": "coronal", "A": "coronal", "I": "axial", "S": "axial"}
"""Of slices, by the side of the patient that they follow each other towards."""


class _Loader(yaml.SafeLoader):
    """YAML as one expects it: ``1e-4`` is a number, dates are text, and so is whatever stands where a name is expected.

    A name is a key of any mapping, and the value of a key that is known to hold a name, unless the mapping describes an
    object to build.

    Args:
        text: of the document.
        names: keys that hold names.
    """

    def __init__(self, text: str, names: Collection[str]) -> None:
        super().__init__(text)
        self.names = names

    def get_single_node(self) -> yaml.Node | None:
        """The whole document, before anything of it is taken for a number."""
        node: yaml.Node | None = super().get_single_node()
        _keep_names(node, self.names)
        return node


_TEXT, _NOTHING = "tag:yaml.org,2002:str", "tag:yaml.org,2002:null"
_NO_KEYS = (_TEXT, _NOTHING, "tag:yaml.org,2002:merge")

_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag != "tag:yaml.org,2002:timestamp"]
    for first, forms in _Loader.yaml_implicit_resolvers.items()
}


def _keep_names(node: yaml.Node | None, names: Collection[str]) -> None:
    """Make the names in a document text again."""
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _keep_names(part, names)
    if isinstance(node, yaml.MappingNode):
        built = any(key.value == "_target_" for key, _ in node.value)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag not in _NO_KEYS:
                key.tag = _TEXT
            if key.value in names and not built:
                _as_text(value)
            _keep_names(value, names)


def _as_text(node: yaml.Node) -> None:
    """Make a value, or every value of a list, text as it is written; nothing stays nothing."""
    for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(part, yaml.ScalarNode) and part.tag != _NOTHING:
            part.tag = _TEXT


def read_yaml(text: str, names: Collection[str] = NAMES) -> Any:
    """The content of a YAML or JSON document.

    >>> read_yaml("{leave_out: NO, rounds: 10, tasks: {001: {sites: 1e5}}}")
    {'leave_out': 'NO', 'rounds': 10, 'tasks': {'001': {'sites': '1e5'}}}

    Args:
        text: of the document.
        names: keys that hold names or paths, whose values stay text.

    Raises:
        yaml.YAMLError: it is none.
    """
    loader = _Loader(text, names)
    try:
        return loader.get_single_data()
    finally:
        loader.dispose()


def value_of(text: str, key: str = "") -> Any:
    """What a value on the command line stands for, read as YAML; the value of a name is text.

    >>> value_of("1e-4"), value_of("[2, 3]"), value_of("group")
    (0.0001, [2, 3], 'group')
    >>> value_of("no", "cache"), value_of("no", "leave_out"), value_of("[001, on]", "classes")
    (False, 'no', ['001', 'on'])
    """
    try:
        value = read_yaml(text)
    except yaml.YAMLError:
        return text
    if key not in NAMES or value is None or isinstance(value, dict):
        return value
    return read_yaml(f"{key}: {text}")[key] if isinstance(value, list) else text


def renamed(content: Mapping[str, Any], where: str, *, warn: bool = True) -> Content:
    """The content of a file, with its keys under their present names.

    Args:
        content: of the file.
        where: what a warning begins with.
        warn: warn once about renamed keys.
    """
    old = {key: OLD_NAMES[first] for key in content if (first := key.partition("::")[0]) in OLD_NAMES}
    old |= {key: f"method::{OLD_FIELDS[field]}" for key in content if (field := _field(key)) in OLD_FIELDS}
    method = content["method"] if isinstance(content.get("method"), Mapping) else {}
    fields = {name: new for name, new in OLD_FIELDS.items() if name in method}
    if (old or fields) and warn:
        said = {**old, **{f"method::{name}": f"method::{new}" for name, new in fields.items()}}
        warnings.warn(f"{where}: {', '.join(f'{key} is now {new}' for key, new in sorted(said.items()))}", stacklevel=2)
    found = {old.get(key, key): value for key, value in content.items()}
    return {**found, "method": {fields.get(name, name): value for name, value in method.items()}} if fields else found


def _field(key: str) -> str:
    """The field of the method that a key such as ``method::tau`` names."""
    return key.removeprefix("method::") if key.startswith("method::") else ""


class Line(NamedTuple):
    """One key of a file or of the command line, and where it is written."""

    where: str
    key: str
    value: Any


def load_config(
    config: str | Path | Sequence[str | Path],
    overrides: Mapping[str, Any] | None = None,
    trust: Iterable[str] | Trust = (),
    *,
    size: str = "",
    variant: str = "",
) -> Settings:
    """Read the configuration of a run with all files beneath it, and check it.

    A file's `stack` names the files beneath it, or shipped tasks (``nuclei``, ``nuclei/small``). A key of a later file
    replaces the same key of an earlier one; a key such as ``optimizer::lr`` replaces what it names inside, and the
    number after the last of a list appends. The variant comes after the files, overrides come last. The workflow of a
    bundle is passed by.

    A method that is given by its name brings the layers that it adds to the network (`Method.network_layers`), where
    nothing but a shipped task sets them. One that is given by its `_target_` is taken as it stands, as in a run folder.

    >>> load_config("prostate", size="small", overrides={"method": "FedBCS"}).network_def["context"]
    {'width': 256}

    Args:
        config: name of a shipped task, or path of a YAML or JSON file; of several, later ones win.
        overrides: from keys to values, as the command line gives them.
        trust: names of components, or of packages of them, that it may use besides those of the allow-list.
        size: of a task; by default its full size.
        variant: name of a shipped variant, or a file.

    Raises:
        UserError: an unknown key, file or argument, or what is not permitted; in one line, with the way out.
    """
    several = [config] if isinstance(config, str | Path) else config
    lines = [line for one in several for line in _lines(find_task(one, size), NAMES, find_task)]
    if variant:
        task = str(config) if str(config) in tasks() else str(_last(lines, "task") or "")
        lines += _lines(find_variant(variant, task), NAMES, find_task)
    lines += _command_line(overrides)
    content = _without_workflow(_laid(lines, KEYS, _layers_of_method(_last(lines, "method"), trusting(trust))))
    settings = settings_of(content, trust)
    if settings.reading and (missing := [key for key in IMAGE_KEYS if key not in content]):
        defaults = ", ".join(f"{key}: {getattr(settings, key)}" for key in missing)
        warnings.warn(f"{config}: an earlier version wrote it, without {defaults}; these are taken", stacklevel=2)
    check_permitted({**content, "method": settings.method, TRUST: settings.trust})
    return settings


def run_name(config: str | Path, size: str, variant: str, settings: Settings) -> str:
    """The name of a run's folder where none is given: ``prostate_small_fedbcs``.

    Args:
        config: as in `load_config`, as are ``size`` and ``variant``.
        size: of the task.
        variant: of the run.
        settings: of the run.
    """
    method = str(settings.method.get("_target_", "")).rpartition(".")[2].lower()
    return "_".join(part for part in (Path(config).stem, size, Path(variant).stem or method) if part)


def settings_of(content: Mapping[str, Any], trust: Iterable[str] | Trust = ()) -> Settings:
    """The settings of a run, from its stacked files; whether their components are permitted is not checked.

    Raises:
        UserError: a value of another type.
    """
    check_keys(content, KEYS, "configuration")
    values = {key: check_value(key, value) for key, value in content.items() if key not in (*SLOTS, "classes")}
    check_classes(content.get("network_def"), content.get("classes"))
    if isinstance(content.get("method"), str):
        content = {**content, "method": {"_target_": method_target(content["method"])}}
    parts: dict[str, Any] = {
        key: resolved(content, key) if isinstance(content[key], str) else content[key] or {}
        for key in SLOTS
        if key in content
    }
    if values.get("sites"):
        values["sites"] = str(Path(values["sites"]).absolute())
    values |= _image_keys(values, parts)
    return Settings(**values, **parts, classes=content.get("classes") or [], trust=trusting(trust))


def _image_keys(values: Mapping[str, Any], parts: Mapping[str, Any]) -> dict[str, str]:
    """Image keys derived from the transforms where they are missing, as in older configurations.

    Raises:
        UserError: a transform contradicts its key.
    """
    found = {"reads": _read_by(parts.get("reading")), "slice_plane": _turned_by(parts.get("preprocessing"))}
    for key, said in found.items():
        if said and values.get(key, said) != said:
            raise UserError(f"{key} is {values[key]!r}, and `{IMAGE_KEYS[key]}` makes it {said}; give {key}: {said}")
    return {key: said for key, said in found.items() if said and key not in values}


def _read_by(reading: Any) -> str | None:
    """What our readers in ``reading`` read; None where it has others."""
    named = {str(step["_target_"]).rpartition(".")[2] for _, step in components(reading)}
    return "pictures" if "PictureReader" in named else "volumes" if "VolumeReader" in named else None


def _turned_by(preprocessing: Any) -> str | None:
    """The plane to which ``preprocessing`` turns volumes; None where a component of another package may do so."""
    steps = [step for _, step in components(preprocessing)]
    targets = [str(step["_target_"]) for step in steps]
    codes = [str(step.get("axcodes") or "") for step in steps if step["_target_"].rpartition(".")[2] == "Orientationd"]
    if codes:
        return PLANES.get(codes[-1][-1:], "file")
    ours = all("." not in target or target.startswith(("monai.", "fedbcs_monai.")) for target in targets)
    return "file" if targets and ours else None


def stacked(path: Path, known: Mapping[str, Any], names: Collection[str], find: Callable[[str], Path]) -> Content:
    """A file of another kind than a run's, and all that is beneath it, laid over each other.

    Args:
        path: of the file.
        known: the keys that there are.
        names: as in `read_yaml`.
        find: from a name in `stack` to the file that is shipped under it.

    Raises:
        UserError: an unknown key, or a file that cannot be read.
    """
    return _laid(_lines(path, names, find), known)


def _command_line(overrides: Mapping[str, Any] | None) -> list[Line]:
    return [Line("command line", key, value) for key, value in renamed(overrides or {}, "command line").items()]


def _lines(path: Path, names: Collection[str], find: Callable[[str], Path]) -> list[Line]:
    """Every line of a file and of those beneath it, the lowest first, without the bundle workflow's own keys."""
    return [
        Line(str(file), key, value)
        for file, content in _layers(path, (), names, find)
        for key, value in renamed(content, str(file)).items()
        if key.partition("::")[0] not in WORKFLOW
    ]


def _last(lines: Iterable[Line], key: str) -> Any:
    """The last value of a key; of a method also of its `_target_`, as a mapping."""
    found: Any = None
    for line in lines:
        if line.key == key:
            found = line.value
        elif line.key == f"{key}::_target_":
            found = {"_target_": line.value}
    return found


class _MethodLayers(NamedTuple):
    """Arguments of the network that a method brings.

    Fields:
        every: set where no line sets them.
        own: those of this method alone, which also win over a shipped task: FedBN needs batch norm on every task.
    """

    every: Mapping[str, Any]
    own: Mapping[str, Any]


NO_LAYERS = _MethodLayers({}, {})


def _laid(lines: Sequence[Line], known: Mapping[str, Any], layers: _MethodLayers = NO_LAYERS) -> Content:
    """Lines one over the other, and the layers of a method where no line but a shipped task's sets them."""
    shipped = max((number for number, line in enumerate(lines) if is_shipped_task(line.where)), default=-1)
    content: Content = {}
    for number, line in enumerate(lines):
        if line.key.startswith("network_def::"):  # it may lie inside a layer of the method
            _add_layers(content, layers.every)
        _set(content, line.key, line.value, line.where, known)
        if number == shipped:
            _add_layers(content, layers.own, over=True)
    _add_layers(content, layers.every)
    return content


def _add_layers(content: Content, layers: Mapping[str, Any], *, over: bool = False) -> None:
    network = content.get("network_def")
    if isinstance(network, dict) and network.get("_target_") == SEGMENTER:
        for argument, value in layers.items():
            if over or argument not in network:
                network[argument] = deepcopy(value)


def _layers_of_method(method: Any, trust: Trust) -> _MethodLayers:
    """The layers that a method brings, if it is given by name; without any it is FedAvg."""
    if isinstance(method, dict):
        return NO_LAYERS
    target = method_target(str(method or "FedAvg"))
    own = own_methods().get(target.rpartition(".")[2]) if target.startswith(f"{METHODS}.") else None
    found = own or (more.component if (more := registered(target)) else None)
    if found is None and trust.covers(target):
        found = trusted_target(target, trust, "method")
    if not isinstance(found, type):
        return NO_LAYERS
    return _MethodLayers(network_layers(found), network_layers(found, own=True))


def _without_workflow(content: Content) -> Content:
    """A configuration without the bundle workflow's own keys."""
    for path, text in PASSED_BY.items():
        key, _, argument = path.partition("::")
        holder = content.get(key) if argument else content
        if isinstance(holder, dict) and holder.get(argument or key) == text:
            kept = {name: value for name, value in holder.items() if name != (argument or key)}
            content = {**content, key: kept} if argument else kept
    return content


def _layers(
    path: Path, above: tuple[Path, ...], names: Collection[str], find: Callable[[str], Path]
) -> Iterator[tuple[Path, Content]]:
    """The files of a stack with their contents, the lowest first."""
    path = path.resolve()
    if path in above:
        raise UserError(f"{path}: includes itself in `stack`")
    content = read_config(path, names)
    below = content.pop("stack", [])
    if not isinstance(below, list):
        raise UserError(f"{path}: `stack` must be a list of files, got {below!r}")
    for name in below:
        beneath = path.parent / str(name)
        if not beneath.is_file():
            try:
                beneath = find(str(name))
            except UserError as error:
                raise UserError(f"{path}: `stack` names {name}: no file beside this one, and {error}") from None
        yield from _layers(beneath, (*above, path), names, find)
    if content.get("sites"):
        content["sites"] = str(beside(path, content["sites"]))
    yield path, content


def beside(path: Path, name: str) -> Path:
    """A file named in a configuration: relative to the configuration if it is there, else to the working directory."""
    return path.parent / name if (path.parent / name).exists() else Path(name)


def read_config(path: Path, names: Collection[str] = NAMES) -> Content:
    """One file, as it stands.

    Raises:
        UserError: it cannot be read.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"), names)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable configuration ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a configuration is a mapping of keys to values, got {type(content).__name__}")
    return content


def _set(config: Content, key: str, value: Any, where: str, known: Mapping[str, Any]) -> None:
    first, *inner = key.split("::")
    check_keys({first: value}, known, where)
    if not inner:
        config[first] = deepcopy(value)
        return
    if first == "method" and not isinstance(config.get(first), dict):
        config[first] = {"_target_": method_target(config.get(first) or "FedAvg")}
    holder = config.get(first, (known[first].default or None) if isinstance(known[first], Key) else None)
    at: Any = holder
    for name in inner[:-1]:
        at = at[_index(at, name, key, where)]
    if isinstance(at, list) and inner[-1] == str(len(at)):
        at.append(value)
    elif isinstance(at, list):
        at[_index(at, inner[-1], key, where)] = value
    elif isinstance(at, dict):
        at[inner[-1]] = value
    else:
        raise UserError(f"{where}: {key!r} names something inside {first!r}, which is {at!r}")


def _index(holder: Any, name: str, key: str, where: str) -> Any:
    if isinstance(holder, list) and name.isdigit() and int(name) < len(holder):
        return int(name)
    if isinstance(holder, dict) and name in holder:
        return name
    raise UserError(f"{where}: {key!r} names something that does not exist: {name!r}")
