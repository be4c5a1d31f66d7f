"""Plateau: whether a training was long enough, judged by its validation Dice."""

import math
from collections.abc import Mapping

MAX_LATE_GAIN = 0.5
"""Points of Dice: a run at its plateau gains less than this over the last fifth of its rounds."""


def late_gain(sites: Mapping[str, Mapping[int, float]], rounds: int) -> float:
    """How much the best validation Dice of the last fifth of the rounds exceeds that of the fifth before.

    >>> round(late_gain({"A": {4: 0.60, 5: 0.62}, "B": {4: 0.70, 5: 0.74}}, 5), 1)
    3.0
    >>> late_gain({"A": {5: 0.62}}, 5)
    nan

    Args:
        sites: from a site to its Dice in [0, 1] by round.
        rounds: of the whole run.

    Returns:
        Points of Dice, of the unweighted mean over sites; NaN where one of the fifths has no evaluation.
    """
    means: dict[int, float] = {}
    for at in {number for line in sites.values() for number in line}:
        values = [line[at] for line in sites.values() if math.isfinite(line.get(at, math.nan))]
        if values:
            means[at] = 100 * sum(values) / len(values)
    last = [value for at, value in means.items() if 4 * rounds < 5 * at]
    before = [value for at, value in means.items() if 3 * rounds < 5 * at <= 4 * rounds]
    return max(last) - max(before) if last and before else math.nan


def still_rises(gain: float) -> bool:
    """Whether a `late_gain` says that more rounds would have helped; False where it is not known."""
    return gain >= MAX_LATE_GAIN
