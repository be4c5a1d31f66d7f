"""System errors: an `OSError` as one line with the way out."""

import errno
import os
import sys

OUTPUT = "standard output"
"""The file name in errors about closed or full standard output."""

_ROOM = "make room there, then run it again (`fedbcs train` and `predict` with --resume)"
_ELSEWHERE = "name another place, or have this one made writable"
_NAME = "name another place"
_REMEDIES = {
    **dict.fromkeys([errno.ENOSPC, errno.EDQUOT, errno.EFBIG], _ROOM),
    **dict.fromkeys([errno.EROFS, errno.EACCES, errno.EPERM], _ELSEWHERE),
    **dict.fromkeys([errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG], _NAME),
    errno.ENOENT: "check the name",
    errno.EPIPE: "whoever read the output stopped before the work was done; run it again",
}


def explained_os_error(error: OSError) -> str:
    """One line with the file, what the system refused, and the way out."""
    if error.filename == OUTPUT:  # let go of it, or Python would fail at its end once more
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    said = error.strerror or str(error).partition("\n")[0] or type(error).__name__
    line = f"{error.filename}: {said}" if error.filename else said
    return f"{line}; {_REMEDIES.get(error.errno or 0, 'correct that, then run it again')}"
