"""Failures: the short reason that a site sends to the server; the details stay in the site's own log."""

import enum


class Failure(str, enum.Enum):
    """Why a site has not answered. Neither a path nor a name of a file or a case is ever part of it."""

    CORRECTABLE = "its settings or its data need correction"
    TRAINER = "its trainer could not answer"
    PROGRAM = "its program failed"
    FILTER = "a filter of the site failed or blocked the answer"
    UNKNOWN = "it could not answer"

    @classmethod
    def of(cls, name: object) -> "Failure":
        """The failure of a name that came from elsewhere.

        >>> Failure.of("CORRECTABLE").value
        'its settings or its data need correction'
        >>> Failure.of("/data/anna/mri.nii").value
        'it could not answer'
        """
        return next((one for one in cls if one.name == name), cls.UNKNOWN)


HEADER = "fedbcs_failure"
"""In a reply: the name of a `Failure`."""
