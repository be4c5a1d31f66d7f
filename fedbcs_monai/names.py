"""Site names: which names are valid, since they become names of files, rows and certificates."""

import unicodedata

from fedbcs_monai.errors import UserError

MARKS = frozenset(" ._-,()&'+")
"""Characters besides letters and digits."""

LONGEST = 100
"""Characters; in bytes twice as many, so that a file name has room for it."""

WAY_OUT = f"use up to {LONGEST} letters, digits, spaces and ._-,()&'+, beginning and ending with a letter or digit"


def is_site_name(name: object) -> bool:
    r"""Whether a text may be the name of a site: letters and digits of any script, and `MARKS` between them.

    >>> [is_site_name(name) for name in ("Älder 2", "St. Mary's (north)", "../evil", "a\nb", "")]
    [True, True, False, False, False]
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST:
        return False
    return (
        all(_is_letter(c) or c in MARKS for c in name)
        and (name[0].isalnum() or name[0] == "_")
        and (_is_letter(name[-1]) or name[-1] in "_)")
        and len(name.encode()) <= 2 * LONGEST
    )


def checked_site_name(name: object) -> str:
    """A site's name as it is.

    Raises:
        UserError: it may not be one.
    """
    if not is_site_name(name):
        raise UserError(f"{shortened(name)} is not a valid site name: {WAY_OUT}")
    return str(name)


def shortened(name: object) -> str:
    """Any name, shortened for a one-line message."""
    return repr(name if len(name) <= 40 else f"{name[:40]}...") if isinstance(name, str) else f"a {type(name).__name__}"


def _is_letter(character: str) -> bool:
    return character.isalnum() or unicodedata.category(character) in ("Mn", "Mc")  # accents that stand by themselves
