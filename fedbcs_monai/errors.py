"""UserError: what the user can mend, and finding one that a library has wrapped."""


class UserError(ValueError):
    """What the user can mend: the command line prints it and exits with 2."""


def user_error_behind(error: BaseException) -> UserError | None:
    """The `UserError` that `error` was raised from, if there is one.

    MONAI's `Compose` wraps what a transform raises in a `RuntimeError` about the transform; the user wants the cause.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__
    return cause
