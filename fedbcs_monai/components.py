"""Components: resolve, check against the allow-list, and build the objects that a configuration names."""

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from monai.bundle import ComponentLocator
from monai.utils import optional_import
from msgspec import structs

from fedbcs_monai.allowlist import ALLOWLIST, METHODS, READER_NAMES, SETTINGS, Arguments, Kind, Part, Trust
from fedbcs_monai.errors import UserError, nearest
from fedbcs_monai.registry import own_methods, registered
from fedbcs_monai.settings import SLOTS, Settings

TRUST = "trust"
"""The field of `Settings` that code alone may set, never a file."""

_EVALUATED = ("$", "%", "@")
"""How MONAI marks expressions, macros and references."""

_REFERENCE = re.compile(r"@[A-Za-z_]\w*(::\w+)*")
_NAME = re.compile(r"[A-Za-z_]\w*")
_PLAIN = (str, bool, int, float, type(None), Path)

_LOCATOR = ComponentLocator()
"""Where MONAI's bare names are looked up; it goes through all of MONAI once, at the first question."""


class Entry(NamedTuple):
    """A component of the allow-list."""

    category: str
    target: Any
    arguments: Arguments


def build(
    settings: Settings | Mapping[str, Any], key: str, made: Mapping[str, Any] | None = None, **arguments: Any
) -> Any:
    """The object that a key of the settings describes, with arguments filled in; None where the key is empty.

    References are resolved first; then everything that would be built is checked; only then is anything built.

    Args:
        settings: of `load_config`, or any mapping of keys: nothing in it is trusted.
        key: a key of it.
        made: objects that code has made already, in place of what the keys describe; they are not checked.
        arguments: of the object, made by code and not checked.

    Raises:
        UserError: what is not permitted, or what its constructor refused.
    """
    made = made or {}
    config = {**_content(settings), **made}
    content = None if config.get(key) == {} else _Resolver(config).of(config.get(key), key)
    _Checker(config, made).key(key, content)
    try:
        return _Builder(config).of(content, arguments)
    except Exception as error:  # whatever a constructor raises, it is about what the configuration says
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise UserError(f"cannot build {key!r}: {cause}") from error


def resolved(config: Mapping[str, Any], key: str) -> Any:
    """What a key holds, without references.

    Raises:
        UserError: a reference to something that is not there, or to itself.
    """
    return _Resolver(config).of(config[key], key)


def check_permitted(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that names what is neither in the allow-list nor trusted; nothing is built.

    Raises:
        UserError: which entry, and the way out.
    """
    resolver, checker = _Resolver(config), _Checker(config)
    for key, value in config.items():
        if key != TRUST:
            checker.key(key, resolver.of(value, key) if key in SLOTS else value)


def _content(settings: Settings | Mapping[str, Any]) -> Mapping[str, Any]:
    return structs.asdict(settings) if isinstance(settings, Settings) else settings


def components(content: Any, where: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Whatever has a `_target_` in a configuration or a part of one, and where it stands."""
    if isinstance(content, dict):
        if "_target_" in content:
            yield where, content
        for name, inner in content.items():
            yield from components(inner, f"{where}::{name}" if where else name)
    elif isinstance(content, list):
        for n, inner in enumerate(content):
            yield from components(inner, f"{where}::{n}")


def check_plain(value: Any, where: str) -> None:
    """Refuse what is more than numbers and text, by name or in lists: what MONAI would evaluate, read or build.

    Raises:
        UserError: which entry.
    """
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_name(name, where)
            if name == "_target_":
                raise UserError(f"{where}: nothing is built here, so there is no place for a `_target_`")
            check_plain(inner, f"{where}::{name}")
    elif isinstance(value, list | tuple):
        for n, inner in enumerate(value):
            check_plain(inner, f"{where}::{n}")
    else:
        _check_text(value, where)


@dataclass
class _Resolver:
    """Puts what a reference names in the reference's place: the same object each time, so that it is built once."""

    config: Mapping[str, Any]
    done: dict[int, Any] = field(default_factory=dict)
    under_way: set[int] = field(default_factory=set)
    followed: list[str] = field(default_factory=list)

    def of(self, value: Any, where: str) -> Any:
        """A value without references."""
        if isinstance(value, str) and value.startswith("@"):
            return self.named(value, where)
        if not isinstance(value, Mapping | list | tuple):
            return value
        if id(value) in self.under_way:
            raise UserError(f"{where}: refers to itself")
        if id(value) not in self.done:
            self.under_way.add(id(value))
            self.done[id(value)] = (
                {name: self.of(inner, f"{where}::{name}") for name, inner in value.items()}
                if isinstance(value, Mapping)
                else [self.of(inner, f"{where}::{n}") for n, inner in enumerate(value)]
            )
            self.under_way.remove(id(value))
        return self.done[id(value)]

    def named(self, reference: str, where: str) -> Any:
        """What a reference names."""
        if not _REFERENCE.fullmatch(reference):
            raise UserError(f"{where}: {reference!r} is not a reference to a key, such as '@reading'")
        if reference in self.followed:
            raise UserError(f"{where}: {reference!r} refers to itself")
        found: Any = {key: value for key, value in self.config.items() if key != TRUST}
        for name in reference[1:].split("::"):
            inside = {str(n): one for n, one in enumerate(found)} if isinstance(found, list) else found
            if not isinstance(inside, Mapping) or name not in inside:
                raise UserError(f"{where}: {reference!r} refers to something that does not exist")
            found = inside[name]
        self.followed.append(reference)
        resolved = self.of(found, reference[1:])
        self.followed.pop()
        return resolved


@dataclass
class _Checker:
    """Checks resolved content against the allow-list and what is trusted."""

    config: Mapping[str, Any]
    made_by_code: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take what code has put into the configuration, as no file could."""
        trust = self.config.get(TRUST)
        self.trust = trust if isinstance(trust, Trust) else Trust()
        self.made = set(map(id, self.made_by_code.values()))

    def key(self, key: str, content: Any) -> None:
        """Check what a key holds."""
        if key not in SLOTS or (isinstance(content, Mapping) and "_target_" not in content):
            check_plain(content, key)
        elif not isinstance(content, list):
            self.part(content, key, SLOTS[key])
        else:
            raise UserError(f"{key}: must be one component with a `_target_`, got a list")

    def part(self, value: Any, where: str, category: str) -> None:
        """Check a component, or a list of them."""
        if isinstance(value, list):
            for n, inner in enumerate(value):
                self.part(inner, f"{where}::{n}", category)
        elif isinstance(value, Mapping) and "_target_" in value:
            self.component(value, where, category)
        elif not (value is None or id(value) in self.made or (category == "reader" and value in READER_NAMES)):
            if isinstance(value, str):
                _check_text(value, where)
            raise UserError(f"{where}: must be a component with a `_target_`, got {value!r}")

    def component(self, content: Mapping[str, Any], where: str, category: str) -> None:
        """Check one component: what it is, and every argument."""
        target = content["_target_"]
        if not isinstance(target, str):
            raise UserError(f"{where}: `_target_` must be the name of a component, got {target!r}")
        arguments = {name: value for name, value in content.items() if not self.is_mark(name, value, where)}
        if self.trust.covers(target) or (self.trust.names and self.trust.covers(_full_name(target))):
            _check_arguments(trusted_target(target, self.trust, where), arguments, target, where)
            for name, value in arguments.items():
                self.anything(value, f"{where}::{name}")
            return
        entry = self.entry(target, where, category)
        _check_arguments(entry.target, arguments, target, where)
        for name, value in arguments.items():
            kind = entry.arguments.get(name)
            if kind is None:
                raise self.refused(where, f"the argument {name!r} of {target}", target)
            if isinstance(kind, Part):
                self.part(value, f"{where}::{name}", kind.category)
            else:
                self.fits(value, kind, f"{where}::{name}", target)

    def is_mark(self, name: Any, value: Any, where: str) -> bool:
        """Whether a key of a component is one of MONAI's marks, of which few are permitted."""
        _check_name(name, where)
        if name == "_target_" or (name == "_desc_" and isinstance(value, str)):
            return True
        if name == "_disabled_" and isinstance(value, bool):
            return True
        if name.startswith("_"):
            raise UserError(f"{where}: {name!r} with {value!r} is not permitted in a component; leave it out")
        return False

    def entry(self, target: str, where: str, category: str) -> Entry:
        """The component of the allow-list that goes by a name."""
        found = permitted().get(target) or _of_a_package(target)
        if found is None:
            if not _might_be_there(target):
                raise UserError(
                    f"{where}: there is no {target!r} to be built; check its spelling and that it is installed"
                )
            raise self.refused(where, f"the component {target!r}", target)
        if found.category != category:
            raise UserError(f"{where}: {target!r} is no {category}")
        return found

    def fits(self, value: Any, kind: Kind, where: str, target: str) -> None:
        """Refuse a value of another kind."""
        if not kind.fits(value):
            if isinstance(value, str):
                _check_text(value, where)
            said = self.trust.remedy.format(target=target)
            raise UserError(
                f"{where}: {target} takes {kind.said} here, got {value!r}; correct it, or if you trust it, {said}"
            )

    def anything(self, value: Any, where: str) -> None:
        """Check an argument of what is trusted: any value, and components that are permitted themselves."""
        if isinstance(value, Mapping) and "_target_" in value:
            named = value["_target_"]
            found = (permitted().get(named) or _of_a_package(named)) if isinstance(named, str) else None
            self.component(value, where, found.category if found else "component")
        elif isinstance(value, Mapping):
            for name, inner in value.items():
                _check_name(name, where)
                self.anything(inner, f"{where}::{name}")
        elif isinstance(value, list):
            for n, inner in enumerate(value):
                self.anything(inner, f"{where}::{n}")
        elif id(value) not in self.made:
            _check_text(value, where)

    def refused(self, where: str, what: str, target: str) -> UserError:
        """An error that says how to let a component in."""
        return UserError(
            f"{where}: {what} is not permitted; if you trust it, {self.trust.remedy.format(target=target)}"
        )


@dataclass
class _Builder:
    """Builds what has been checked; what is referred to more than once is built once."""

    config: Mapping[str, Any]
    built: dict[int, Any] = field(default_factory=dict)

    def of(self, content: Any, arguments: Mapping[str, Any] | None = None) -> Any:
        """The object that resolved content describes."""
        if isinstance(content, list):
            return [self.of(inner) for inner in content if not _is_disabled(inner)]
        if not isinstance(content, dict):
            return content
        if id(content) not in self.built:
            self.built[id(content)] = self.new(content, arguments or {})
        return self.built[id(content)]

    def new(self, content: dict[str, Any], arguments: Mapping[str, Any]) -> Any:
        """A component with its arguments, or a mapping."""
        if _is_disabled(content):
            return None
        is_component = "_target_" in content
        inner = {name: self.of(value) for name, value in content.items() if not (is_component and name.startswith("_"))}
        return self.target(content["_target_"])(**{**inner, **arguments}) if is_component else inner

    def target(self, target: str) -> Any:
        """What a name stands for; the allow-list comes first, as no trust can change what it means."""
        found = permitted().get(target) or _of_a_package(target)
        return found.target if found else trusted_target(target, self.config[TRUST], target)


@lru_cache
def permitted() -> Mapping[str, Entry]:
    """From every name of a component of the allow-list to what it is: public, bare if MONAI's, alias, and defining."""
    found: dict[str, Entry] = {}
    for category, listed in ALLOWLIST.items():
        for public, arguments in listed.items():
            target = _located(public)
            if target is not None:  # else of another version
                found |= dict.fromkeys(_names(public, target), Entry(category, target, arguments))
    for name, target in own_methods().items():
        found |= dict.fromkeys(_names(f"{METHODS}.{name}", target), Entry("method", target, _settings_of(target)))
    return found


def _of_a_package(target: str) -> Entry | None:
    """What an installed package registers under a name: permitted, as whoever runs this Python has installed it."""
    found = registered(target)
    return Entry(found.category, found.component, _settings_of(found.component)) if found else None


def _settings_of(target: Any) -> Arguments:
    """Words and numbers for every argument of a method, or of a network of another package."""
    return dict.fromkeys(inspect.signature(target).parameters, SETTINGS)


def trusted_target(target: str, trust: Trust, where: str) -> Any:
    """What a trusted name stands for.

    Raises:
        UserError: there is no such thing, or it lies in a trusted package by name only, as whatever a module imports.
    """
    full = _full_name(target)
    found = _located(full)
    if found is None:
        raise UserError(f"{where}: there is no {target!r} to be built; check its spelling and that it is installed")
    real = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    if not {target, full}.intersection(trust.names) and not trust.covers(real):
        said = trust.remedy.format(target=target)
        raise UserError(f"{where}: {target!r} is {real}, which is not permitted; if you trust it, {said}")
    return found


def _names(public: str, target: Any) -> list[str]:
    """All names under which a component may stand in a configuration."""
    package, _, name = public.rpartition(".")
    aliases = [name, f"{name[:-1]}D", f"{name[:-1]}Dict"] if name.endswith("d") else [name]
    same = [alias for alias in aliases if getattr(import_module(package), alias, None) is target]
    bare = same if package.startswith("monai.") else []
    return [*(f"{package}.{alias}" for alias in same), f"{target.__module__}.{target.__qualname__}", *bare]


def _full_name(target: str) -> str:
    """A name with its module; a bare name is one of MONAI's."""
    module = _LOCATOR.get_component_module_name(target) if "." not in target else None
    return f"{module[0] if isinstance(module, list) else module}.{target}" if module else target


def _might_be_there(target: str) -> bool:
    """Whether a component may be installed; of another package's this is not known, as to import it is to run it."""
    if target.startswith("fedbcs_monai."):
        return _located(target) is not None
    return "." in target or _full_name(target) != target


def _located(target: str) -> Any:
    module, _, name = target.rpartition(".")
    found, there = optional_import(module, name=name) if module else (None, False)
    return found if there else None


def _check_arguments(target: Any, arguments: Mapping[str, Any], name: str, where: str) -> None:
    """Refuse an unknown argument."""
    try:
        parameters = inspect.signature(target).parameters
    except (TypeError, ValueError):  # it does not say
        return
    if any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters.values()):
        return
    for argument in arguments:
        if argument not in parameters:
            raise UserError(f"{where} ({name}): unknown argument {argument!r}{nearest(argument, parameters)}")


def _check_name(name: Any, where: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(f"{where}: {name!r} cannot be the name of a key here; it takes letters, digits and _")


def _check_text(value: Any, where: str) -> None:
    if isinstance(value, str) and value.lstrip().startswith(_EVALUATED):
        raise UserError(
            f"{where}: {value!r} is an expression, a macro or a reference, which has no place here; write its value"
        )
    if not isinstance(value, _PLAIN):
        raise UserError(f"{where}: must be a number, text, a list or a mapping, got {type(value).__name__}")


def _is_disabled(content: Any) -> bool:
    return isinstance(content, dict) and content.get("_disabled_") is True and "_target_" in content
