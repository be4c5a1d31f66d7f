"""Configuration: stack files, apply overrides, and check the whole before anything is built from it."""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from fedbcs_monai.allowlist import METHODS, PASSED_BY
from fedbcs_monai.components import TRUST, Trust, check_permitted, nearest, trusting
from fedbcs_monai.errors import UserError
from fedbcs_monai.keys import KEYS, LEAST, NAMES, SWITCHES, TEXTS, WORKFLOW

Config = dict[str, Any]

ONE_STRUCTURE = "only background and one structure can be segmented, each in a channel of its own"
"""Why another number of classes is refused."""


class _Loader(yaml.SafeLoader):
    """YAML as one expects it: ``1e-4`` is a number, dates are text, and so is whatever stands where a name is expected.

    A name is a key of any mapping, and what belongs to one of `NAMES` unless the mapping describes an object to build.
    """

    def get_single_node(self) -> yaml.Node | None:
        """The whole document, before anything of it is taken for a number."""
        node: yaml.Node | None = super().get_single_node()
        _keep_names(node)
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


def _keep_names(node: yaml.Node | None) -> None:
    """Make the names in a document text again."""
    if isinstance(node, yaml.SequenceNode):
        for part in node.value:
            _keep_names(part)
    if isinstance(node, yaml.MappingNode):
        built = any(key.value == "_target_" for key, _ in node.value)
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag not in _NO_KEYS:
                key.tag = _TEXT
            if key.value in NAMES and not built:
                _as_text(value)
            _keep_names(value)


def _as_text(node: yaml.Node) -> None:
    """Make a value, or every value of a list, text as it is written; nothing stays nothing."""
    for part in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        if isinstance(part, yaml.ScalarNode) and part.tag != _NOTHING:
            part.tag = _TEXT


def read_yaml(text: str) -> Any:
    """What a YAML or JSON document says.

    >>> read_yaml("{leave_out: NO, rounds: 10, tasks: {001: {sites: 1e5}}}")
    {'leave_out': 'NO', 'rounds': 10, 'tasks': {'001': {'sites': '1e5'}}}

    Raises:
        yaml.YAMLError: it is none.
    """
    return yaml.load(text, _Loader)


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


def shipped() -> Path:
    """The folder that holds `bundle` and `configs`: in the installed package, or the repository's root."""
    package = Path(__file__).parent
    inside = package / "_shipped"
    return inside if inside.is_dir() else package.parent


def find_config(name: str | Path) -> Path:
    """A configuration by its path, or a shipped experiment by its bare name."""
    path = Path(name)
    if path.is_file():
        return path
    if len(path.parts) > 1:
        raise UserError(f"no configuration {str(name)!r}: there is no such file")
    experiments = shipped() / "configs" / "experiments"
    named = experiments / f"{name}.yaml"
    if named.is_file():
        return named
    there = sorted(file.stem for file in experiments.glob("*.yaml"))
    near = difflib.get_close_matches(path.stem, there, n=5) or there
    raise UserError(f"no configuration {str(name)!r}; give a path, or a shipped experiment: {', '.join(near)}")


def load_config(
    path: str | Path | Sequence[str | Path],
    overrides: Mapping[str, Any] | None = None,
    trust: Iterable[str] | Trust = (),
) -> Config:
    """Read a configuration with all files beneath it, and check it.

    A file's `stack` names the files beneath it, or shipped experiments. A key of a later file replaces the same key of
    an earlier one; a key such as ``optimizer::lr`` replaces what it names inside, and the number after the last of a
    list appends. Overrides come last. A method may be given by its bare name. The workflow of a bundle is passed by.

    Args:
        path: of a YAML or JSON file, or the name of a shipped experiment; of several, later ones win.
        overrides: from keys to values, as the command line gives them.
        trust: names of components, or of packages of them, that it may use besides those of the allow-list.

    Raises:
        UserError: an unknown key, file or argument, or what is not permitted; in one line, with the way out.
    """
    config = _without_workflow(stacked(path, KEYS, overrides))
    if trust:
        config[TRUST] = trusting(trust)
    if isinstance(config.get("method"), str):
        config["method"] = {"_target_": f"{METHODS}.{_method_named(config['method'])}"}
    _check_kinds(config)
    if config.get("sites"):
        config["sites"] = str(Path(config["sites"]).absolute())
    _check(config)
    return config


def stacked(
    path: str | Path | Sequence[str | Path], known: Mapping[str, str], overrides: Mapping[str, Any] | None = None
) -> Config:
    """Files and all that is beneath them laid over each other, and the overrides over them.

    Args:
        path: as in `load_config`.
        known: the keys that there are.
        overrides: as in `load_config`.

    Raises:
        UserError: an unknown key, or a file that cannot be read.
    """
    config: Config = {}
    for top in [path] if isinstance(path, str | Path) else path:
        for file, content in _layers(find_config(top), ()):
            for key, value in content.items():
                if key.split("::")[0] not in WORKFLOW:
                    _set(config, key, value, str(file), known)
    for key, value in (overrides or {}).items():
        _set(config, key, value, "command line", known)
    return config


def check_keys(content: Any, known: Mapping[str, str], where: str) -> None:
    """Refuse what is no mapping, and a key that there is not.

    Raises:
        UserError: which, and the nearest that would have worked.
    """
    if not isinstance(content, Mapping):
        raise UserError(f"{where}: must be a mapping with {', '.join(known)}, got {content!r}")
    for key in content:
        if key not in known:
            raise UserError(f"{where}: unknown key {key!r}{nearest(key, known)}")


def require(config: Mapping[str, Any], keys: Iterable[str], remedy: str) -> None:
    """Refuse a configuration that lacks keys.

    Raises:
        UserError: which, and the remedy.
    """
    missing = [key for key in keys if config.get(key) is None]
    if missing:
        raise UserError(f"the configuration lacks {', '.join(missing)}; {remedy}")


def name_of(config: Mapping[str, Any]) -> str:
    """What a run goes by: its name, or else its method's class; empty if the configuration has neither.

    >>> name_of({"method": {"_target_": "fedbcs_monai.methods.FedAvg"}})
    'FedAvg'
    """
    return str(config.get("name") or config.get("method", {}).get("_target_", "").rpartition(".")[2])


def plain(config: Mapping[str, Any]) -> Config:
    """The configuration as it can be written to JSON: without the stack, which has been resolved, and without trust."""
    kept = {key: value for key, value in config.items() if key not in ("stack", TRUST)}
    resolved: Config = json.loads(json.dumps(kept, default=str))
    return _without_workflow(resolved)


def _without_workflow(config: Config) -> Config:
    """A configuration without what the workflow of a bundle says for itself."""
    for path, text in PASSED_BY.items():
        key, _, argument = path.partition("::")
        holder, name = (config.get(key), argument) if argument else (config, key)
        if isinstance(holder, dict) and holder.get(name) == text:
            del holder[name]
    return config


def check_classes(config: Mapping[str, Any], where: str = "") -> None:
    """Refuse anything but background and one structure: several would be scored as their union.

    Args:
        config: of a run.
        where: what the message begins with, such as the file of the configuration and a colon.

    Raises:
        UserError: which key, its value, and the way out.
    """
    network = config.get("network_def")
    channels = network.get("out_channels", 2) if isinstance(network, Mapping) else 2
    if channels != 2:
        raise UserError(f"{where}network_def::out_channels is {channels!r}: {ONE_STRUCTURE}; give 2")
    named = config.get("classes")
    if named is not None and (not isinstance(named, list) or len(named) != 2):
        raise UserError(f"{where}classes is {named!r}: {ONE_STRUCTURE}; give two names, background first")


def _layers(path: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, Config]]:
    """The files of a stack with their contents, the lowest first."""
    path = path.resolve()
    if path in above:
        raise UserError(f"{path}: stands beneath itself in `stack`")
    content = read_config(path)
    below = content.pop("stack", [])
    if not isinstance(below, list):
        raise UserError(f"{path}: `stack` must be a list of files, got {below!r}")
    for name in below:
        beneath = path.parent / str(name)
        if not beneath.is_file():
            beneath = shipped() / "configs" / "experiments" / f"{name}.yaml"
        if not beneath.is_file():
            raise UserError(f"{path}: `stack` names {name}: no file beside this one, and no shipped experiment")
        yield from _layers(beneath, (*above, path))
    if content.get("sites"):
        content["sites"] = str(beside(path, content["sites"]))
    yield path, content


def beside(path: Path, name: str) -> Path:
    """A file named in a configuration: relative to the configuration if it is there, else to the working directory."""
    return path.parent / name if (path.parent / name).exists() else Path(name)


def read_config(path: Path) -> Config:
    """One file, as it stands.

    Raises:
        UserError: it cannot be read.
    """
    try:
        content = read_yaml(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: not a readable configuration ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: a configuration is a mapping of keys to values, got {type(content).__name__}")
    return content


def _set(config: Config, key: str, value: Any, where: str, known: Mapping[str, str]) -> None:
    first, *inner = key.split("::")
    check_keys({first: value}, known, where)
    if not inner:
        config[first] = value
        return
    holder = config.get(first)
    if first == "method" and isinstance(holder, str):
        holder = config["method"] = {"_target_": f"{METHODS}.{_method_named(holder)}"}
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
    raise UserError(f"{where}: {key!r} names something that is not there: {name!r}")


def _method_named(name: str) -> str:
    names = [known for known in import_module(METHODS).__all__ if known not in ("Local", "Method")]
    by_lower = {known.lower(): known for known in names}
    if name.lower() not in by_lower:
        raise UserError(f"unknown method {name!r}{nearest(name, names)}")
    return str(by_lower[name.lower()])


def _check_kinds(config: Config) -> None:
    """Refuse a switch that is neither true nor false, and a name or path that is no text."""
    for key in SWITCHES:
        value = config.get(key, False)
        if not isinstance(value, bool):
            raise UserError(f"{key} is {value!r}: it must be true or false")
    for key in TEXTS:
        value = config.get(key)
        if not isinstance(value, str | Path | None):
            raise UserError(f"{key} is {value!r}: it must be text, one name or one path")


def _check(config: Config) -> None:
    for key, least in LEAST.items():
        value = config.get(key, least)
        if type(value) is not int or value < least:
            raise UserError(f"{key} is {value!r}: it must be a whole number, {least} or more")
    check_classes(config)
    check_permitted(config)
