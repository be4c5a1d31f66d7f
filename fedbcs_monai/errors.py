"""Errors: `UserError` for what the user can correct, and one-line explanations of other errors."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """What the user can correct: the command line prints it and exits with 2."""


def user_error_behind(error: BaseException) -> UserError | None:
    """The `UserError` that `error` was raised from, if there is one.

    MONAI's `Compose` wraps what a transform raises in a `RuntimeError` about the transform; the user wants the cause.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    return cause


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn any error in what a configuration describes into one line.

    Args:
        what: went wrong, with the site or the file.

    Raises:
        UserError: the one behind the error, or ``what`` and the first line of the error's cause.
    """
    try:
        yield
    except Exception as error:
        correctable = user_error_behind(error)
        if correctable is not None:
            raise correctable from None
        raise UserError(f"{what}: {_reason(error)}") from error


def nearest(name: str, known: Iterable[str]) -> str:
    """The likely meaning of a misspelt name, or else all known names."""
    by_lower = {str(one).lower(): str(one) for one in known}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f", did you mean {by_lower[near[0]]!r}?" if near else f"; there are: {', '.join(sorted(by_lower.values()))}"


def _reason(error: BaseException) -> str:
    """Kind and first line of the error that began it, and what to do where that is known."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = next(iter(str(error).strip().splitlines()), "")
    if line.startswith("Expected more than 1"):  # of torch's batch and instance norm
        return f"a norm sees a single pixel at the bottleneck; take larger images, or network_def::norm group ({line})"
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def discreet_reason(error: Exception) -> str:
    """What to tell of any error: of one that nobody foresaw its kind and place, as its text may quote a scan.

    >>> discreet_reason(UserError("a.nii: is empty")), discreet_reason(OSError(28, "No space left on device"))
    ('a.nii: is empty', 'No space left on device')
    """
    if (known := user_error_behind(error)) is not None:
        return str(known)
    if isinstance(error, MemoryError):
        return "does not fit into memory"
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" at {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place is not None else ""
    return f"failed with {type(error).__name__}{where}"
