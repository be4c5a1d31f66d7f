"""Trust: what a configuration from elsewhere may have a site build."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fedbcs_monai.config import components, read_config, shipped
from fedbcs_monai.errors import UserError
from fedbcs_monai.keys import KEYS

FREE = ("torch.optim.", "fedbcs_monai.methods.")
"""Where every class may be built with any argument."""

MARKS = ("_target_", "_desc_", "_disabled_")
"""Keys with a meaning of their own that a component may carry."""

RUNS = ("$", "%")
"""How MONAI marks what it evaluates or reads from another file."""

Known = dict[str, dict[str, bool]]
"""From a target to the arguments that are known of it, and whether they may be text."""


def check_trusted(config: Mapping[str, Any], allow: Iterable[str] = ()) -> None:
    """Refuse a configuration that would run more at a site than the shipped experiments do.

    A configuration names classes and their arguments, so whoever writes one could have a site run what they like. From
    elsewhere it may name optimizers, methods, and what the shipped configurations name, with the arguments that these
    use and text where these have text, and no expressions or macros but theirs.

    Args:
        config: as it came, before anything is built from it.
        allow: beginnings of further names that this site lets anyone build with any argument.

    Raises:
        UserError: which entry, and what the site can do about it.
    """
    shipped_files = list(_shipped_files())
    expressions = {text for content in shipped_files for _, text in _texts(content) if text.startswith(RUNS)}
    for where, text in _texts(config):
        if text.startswith(RUNS) and text not in expressions:
            raise _untrusted(where, f"the expression {text!r}")
    known = known_components(shipped_files)
    free = (*FREE, *allow)
    for where, component in components(config):
        target = component["_target_"]
        if not isinstance(target, str) or not (target.startswith(free) or target in known):
            raise _untrusted(where, repr(target))
        for name, value in component.items():
            if name.startswith("_") and name not in MARKS:
                raise _untrusted(f"{where}::{name}", repr(value))
            if target.startswith(("fedbcs_monai.", *free)) or name in MARKS:
                continue
            if name not in known[target]:
                raise _untrusted(where, f"{target} with the argument {name}")
            if not known[target][name] and any(True for _ in _plain_texts(value)):
                raise _untrusted(f"{where}::{name}", f"the text {value!r}")


def known_components(files: Iterable[Mapping[str, Any]]) -> Known:
    """What configurations build."""
    known: Known = {}
    for content in files:
        for _, component in components(content):
            arguments = known.setdefault(component["_target_"], {})
            for name, value in component.items():
                arguments[name] = arguments.get(name, False) or any(True for _ in _plain_texts(value))
    return known


def _shipped_files() -> Iterator[Mapping[str, Any]]:
    """The shipped experiments and the files of the bundle that they stand on, without what is not of a federation."""
    files = set((shipped() / "configs").rglob("*.yaml"))
    beneath = {file.parent / name for file in files for name in read_config(file).get("stack", [])}
    for file in sorted(files | {file for file in beneath if file.suffix == ".json"}):
        yield {key: part for key, part in read_config(file).items() if key.split("::")[0] in KEYS}


def _untrusted(where: str, what: str) -> UserError:
    return UserError(
        f"{where}: this site does not let a job use {what}; if it should, add it to `allow` in the site's fedbcs.yaml"
    )


def _texts(content: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a configuration, names of keys among them, and where it stands."""
    if isinstance(content, str):
        yield where, content
    elif isinstance(content, Mapping):
        for name, inner in content.items():
            yield where, str(name)
            yield from _texts(inner, f"{where}::{name}" if where else str(name))
    elif isinstance(content, list):
        for n, inner in enumerate(content):
            yield from _texts(inner, f"{where}::{n}")


def _plain_texts(value: Any) -> Iterator[str]:
    """The texts of an argument that are not in a component of their own."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _plain_texts(inner)
    elif isinstance(value, Mapping) and "_target_" not in value:
        for inner in value.values():
            yield from _plain_texts(inner)
