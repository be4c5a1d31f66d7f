"""Choices: look up a name, or raise an error that lists the known names."""

import difflib
from collections.abc import Collection

from fedbcs_monai.errors import UserError


def known(kind: str, name: str, choices: Collection[str]) -> str:
    """Return `name` if it is one of `choices`.

    >>> known("gate", "scaler", ["scalar", "adaptive"])
    Traceback (most recent call last):
    fedbcs_monai.errors.UserError: unknown gate 'scaler', did you mean 'scalar'? There are: adaptive, scalar
    """
    if name in choices:
        return name
    near = difflib.get_close_matches(str(name), choices, n=1)
    hint = f", did you mean {near[0]!r}?" if near else "."
    raise UserError(f"unknown {kind} {name!r}{hint} There are: {', '.join(sorted(choices))}")
