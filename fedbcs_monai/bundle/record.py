"""Run record: method, sites, scores, data and versions of a run, for the model card."""

import hashlib
from collections.abc import Iterable, Mapping
from math import isfinite, nan
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.data import SiteData, read_sites
from fedbcs_monai.data.check import read_image
from fedbcs_monai.errors import UserError
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.metrics.tables import average, cases_in, mean_sd
from fedbcs_monai.predict.mask_statistics import plane_of
from fedbcs_monai.runs.reader import read_environment, read_scores, read_summary
from fedbcs_monai.runs.schema import ModelScore
from fedbcs_monai.settings import Settings

MEASURES = ("dice", "hd95_mm", "assd_mm")


class Record(NamedTuple):
    """What is known of a run. Nothing here identifies a single case."""

    name: str
    task: str
    method: Mapping[str, Any]
    """Class and fields that differ from its defaults."""
    rounds: int
    round: int
    """Of the weights."""
    cases: Mapping[str, Mapping[str, int]]
    """Of each site, in ``train``, ``val`` and ``test``."""
    unseen: tuple[str, ...]
    """Sites that no training case came from."""
    scores: Mapping[str, Mapping[str, Any]]
    """Of each site with test cases: how many, and the mean of every measure where it is defined, else None."""
    modalities: frozenset[str]
    """That the site list names."""
    planes: frozenset[str]
    """Of the slices of the first training image of every site; empty of pictures."""
    data_sha256: Mapping[str, str]
    """Of each site, over its images and labels. Like the two before, empty if the site list is not at hand."""
    versions: Mapping[str, str]

    @property
    def mean_dice(self) -> float | None:
        """Unweighted mean over the sites that trained; over the others where those have no test cases.

        None where there are no test cases, or one of the sites has no number.
        """
        dices = {site: self.scores[site]["dice"] for site in self._averaged}
        mean = average({site: nan if dice is None else dice for site, dice in dices.items()})
        return mean if isfinite(mean) else None

    @property
    def test_cases(self) -> int:
        """How many test cases the mean Dice is of."""
        return sum(self.scores[site]["cases"] for site in self._averaged)

    @property
    def _averaged(self) -> list[str]:
        return [site for site in self.scores if site not in self.unseen] or list(self.scores)


def read_record(folder: Path, settings: Settings, which: str) -> Record:
    """Read what a finished run has left.

    Args:
        folder: of the run.
        settings: of the run.
        which: the ``selected`` or the ``last`` model.

    Raises:
        UserError: the run is not finished, or its files cannot be read.
    """
    summary, environment = read_summary(folder), read_environment(folder)
    sites = _sites(settings)
    planes = _planes(sites, settings)
    try:
        return Record(
            name=summary.name,
            task=summary.task,
            method=settings.method,
            rounds=summary.rounds,
            round=summary.rounds if which == "last" else summary.selected_round,
            cases={site: counts._asdict() for site, counts in summary.sites.items()},
            unseen=summary.unseen,
            scores=_means(row for row in read_scores(folder) if row.model == which),
            modalities=frozenset(site.modality for site in sites.values()) - {""},
            planes=planes,
            data_sha256={name: _digest(site) for name, site in sorted(sites.items())},
            versions={key: environment[key] for key in ("fedbcs_monai", "monai", "torch", "numpy", "nibabel", "itk")},
        )
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: cannot be read ({error!r}); was the run of another version?") from None


def _means(rows: Iterable[ModelScore]) -> dict[str, dict[str, Any]]:
    of_site: dict[str, list[CaseScore]] = {}
    for row in rows:
        of_site.setdefault(row.site, []).append(row.score)
    return {
        site: {
            "cases": sum(cases_in(score.case) for score in found),
            **{name: _mean([getattr(score, name) for score in found]) for name in MEASURES},
        }
        for site, found in sorted(of_site.items())
    }


def _mean(values: list[float]) -> float | None:
    """Of those that are defined; None if none is."""
    mean = mean_sd(values).mean
    return round(mean, 6) if isfinite(mean) else None


def _sites(settings: Settings) -> Mapping[str, SiteData]:
    """The site list of a run; empty if it or its files are not where they were."""
    try:
        return read_sites(Path(settings.sites)) if settings.sites else {}
    except UserError:
        return {}


def _planes(sites: Mapping[str, SiteData], settings: Settings) -> frozenset[str]:
    cut = "" if settings.slice_plane == "file" else settings.slice_plane
    firsts = (site.items("train", settings.fold)[:1] for site in sites.values())
    affines = (read_image(Path(item["image"])).affine for first in firsts for item in first)
    return frozenset(plane_of(affine, cut) for affine in affines if affine is not None)


def _digest(site: SiteData) -> str:
    files = sorted(f"{kind} {digest}" for case in site.cases for kind, digest in case.sha256.items())
    return hashlib.sha256("\n".join(files).encode()).hexdigest()
