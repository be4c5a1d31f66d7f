"""Registry: methods and networks by name, our own and those registered by installed packages.

A package registers a class or function with an entry point of the group ``fedbcs_monai.methods`` or
``fedbcs_monai.networks``. Whoever runs this Python has installed it, so it is permitted like ours. It is imported
when it is asked for by name; no other module is ever imported because a configuration names it.
"""

from collections.abc import Mapping
from copy import deepcopy
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple

from fedbcs_monai.allowlist import METHODS
from fedbcs_monai.errors import UserError, nearest

GROUPS = {"method": "fedbcs_monai.methods", "network": "fedbcs_monai.networks"}
"""From a category of components to the group of entry points that register more of it."""


class Registered(NamedTuple):
    """A component that an installed package registers.

    Args:
        category: ``method`` or ``network``.
        target: its dotted name, as a configuration has it.
        component: the class or function.
    """

    category: str
    target: str
    component: Any


def own_methods() -> dict[str, type]:
    """Our methods by the name of their class: FedAvg first, then in alphabetical order."""
    module = import_module(METHODS)
    names = sorted(module.__all__, key=lambda name: (name != "FedAvg", name.lower()))
    found = {name: getattr(module, name) for name in names}
    return {name: one for name, one in found.items() if issubclass(one, module.Method) and one is not module.Method}


def method_names() -> list[str]:
    """Every method that may be named: ours, and those that installed packages register."""
    return [*own_methods(), *(point.name for point in _points("method"))]


def is_method(name: str) -> bool:
    """Whether a method goes by this name, in capital letters or not."""
    return name.lower() in {known.lower() for known in method_names()}


def method_target(name: str) -> str:
    """The dotted name of a method; one with a dot in it is taken as it stands.

    Raises:
        UserError: there is no such method.
    """
    by_lower = {known.lower(): f"{METHODS}.{known}" for known in own_methods()}
    by_lower = {point.name.lower(): _dotted(point) for point in _points("method")} | by_lower
    if "." in name or name.lower() in by_lower:
        return by_lower.get(name.lower(), name)
    raise UserError(f"unknown method {name!r}{nearest(name, method_names())}")


def registered(target: str) -> Registered | None:
    """What an installed package registers under a name or a dotted name; None: nothing.

    Raises:
        UserError: the package cannot be imported.
    """
    for category in GROUPS:
        for point in _points(category):
            if target in (point.name, _dotted(point)):
                try:
                    return Registered(category, _dotted(point), point.load())
                except Exception as error:
                    raise UserError(f"{target}: the installed package that registers it fails: {error}") from error
    return None


def network_layers(method: type, *, own: bool = False) -> dict[str, Any]:
    """The arguments of `build_segmenter` that a method brings; those of a class win over those of its bases.

    Args:
        method: a class.
        own: leave out those of every method, which a task may choose otherwise.
    """
    found: dict[str, Any] = {}
    for base in reversed(method.__mro__):
        if own and base.__name__ == "Method":
            continue
        found |= deepcopy(dict(vars(base).get("network_layers", {})))
    return found


def first_line(documented: Any) -> str:
    """The first line of a docstring."""
    return next(iter((documented.__doc__ or "").strip().splitlines()), "")


def described_methods() -> Mapping[str, str]:
    """Every method by its name, with one line about it; what other packages register says which package it is of."""
    more = {point.name: f"of the package {point.dist.name}" for point in _points("method") if point.dist}
    return more | {name: first_line(method) for name, method in own_methods().items()}


def _points(category: str) -> tuple[EntryPoint, ...]:
    return tuple(sorted(entry_points(group=GROUPS[category])))


def _dotted(point: EntryPoint) -> str:
    return point.value.partition("[")[0].strip().replace(":", ".")
