"""Failures: the few words about a failure that leave a site; the rest of it is in the site's own log."""

import enum


class Failure(str, enum.Enum):
    """Why a site has not answered. Neither a path nor a name of a file or a case is ever part of it."""

    MENDABLE = "its settings or its data need mending"
    TRAINER = "its trainer could not answer"
    PROGRAM = "its program failed"
    FILTER = "a filter of the site failed or blocked the answer"
    UNKNOWN = "it could not answer"

    @classmethod
    def of(cls, name: object) -> "Failure":
        """The failure of a name that came from elsewhere.

        >>> Failure.of("MENDABLE").value
        'its settings or its data need mending'
        >>> Failure.of("/data/anna/mri.nii").value
        'it could not answer'
        """
        return next((one for one in cls if one.name == name), cls.UNKNOWN)


HEADER = "fedbcs_failure"
"""In a reply: the name of a `Failure`."""
