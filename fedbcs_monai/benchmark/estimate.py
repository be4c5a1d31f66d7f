"""Estimate: the work of a benchmark, and the time until it ends."""

import json
from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from fedbcs_monai.benchmark.plan import PlannedRun
from fedbcs_monai.data import Samples
from fedbcs_monai.runs.setup import pooling, samples_of, sites_of
from fedbcs_monai.settings import Settings

DATA = ("sites", "fold", "leave_out", "preprocessing", "slicing")
"""What the number of training samples depends on."""


class Estimate:
    """Expected seconds of a run: the mean over finished runs of its row, else of its task, else of all."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, ...], list[float]] = {}

    def learn(self, run: PlannedRun, seconds: float) -> None:
        """A run is done, and has taken so long."""
        for group in _groups(run):
            self.known.setdefault(group, []).append(seconds)

    def of(self, run: PlannedRun) -> float | None:
        """How long a run will take; None while nothing is known."""
        found = next((self.known[group] for group in _groups(run) if group in self.known), None)
        return sum(found) / len(found) if found else None

    def left(self, waiting: Iterable[PlannedRun], running: Mapping[str, tuple[PlannedRun, float]], jobs: int) -> float:
        """Remaining seconds with this many parallel runs; NaN while unknown.

        Args:
            waiting: runs that have not begun.
            running: runs that have, with the fraction of each that is done, by name.
            jobs: how many run at once.
        """
        parts = [(run, 1.0) for run in waiting] + [(run, 1.0 - done) for run, done in running.values()]
        seconds = [(self.of(run), part) for run, part in parts]
        known = [taking * part if taking is not None else float("nan") for taking, part in seconds]
        return max(sum(known) / jobs, max(known, default=0.0))


def steps_per_round(settings: Settings, known: dict[str, list[Samples]]) -> int:
    """Optimizer steps of one round at all sites; where slices are samples, cases are read to count them.

    Args:
        settings: of a run.
        known: the sites' samples that were counted before, to be added to.
    """
    pool = pooling(settings)
    key = json.dumps({name: getattr(settings, name) for name in DATA}, sort_keys=True, default=str)
    if key not in known:
        sites = [site for site in sites_of(settings).values() if site.split("train", settings.fold)]
        uncached = replace(settings, cache=False)
        known[key] = [samples_of(uncached, site) for site in sites]
    places = [pool(known[key])] if pool else known[key]
    return sum(len(place.batch_sizes(settings.batch_size)) for place in places) * settings.epochs


def _groups(run: PlannedRun) -> list[tuple[str, ...]]:
    return [(run.settings.task, run.settings.name), (run.settings.task,), ()]
