"""SiteStatistics: per-case numbers of a site for NVFlare's federated statistics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.statistics_spec import (
    Bin,
    DataType,
    Feature,
    Histogram,
    HistogramType,
    Statistics,
)

from fedbcs_monai.backends.nvflare.layout import EXPERIMENT
from fedbcs_monai.backends.nvflare.site_file import read_site_file
from fedbcs_monai.components import build
from fedbcs_monai.data.sites import PARTS, read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.trust import load_job
from fedbcs_monai.files import check_case
from fedbcs_monai.settings import Settings

FEATURES = ("intensity_mean", "intensity_sd", "foreground_fraction", "pixels")
"""Of an image as it is read: mean and standard deviation of its intensities, how much of it is labelled, its size."""


class SiteStatistics(Statistics):  # type: ignore[misc]
    """Numbers of the cases in each part of a site's data; a case without a label has no foreground fraction."""

    def initialize(self, fl_ctx: FLContext) -> None:
        """Read the site's cases."""
        workspace = fl_ctx.get_prop(FLContextKey.WORKSPACE_OBJECT)
        site = read_site_file(Path(workspace.get_root_dir()))
        file = Path(workspace.get_app_config_dir(fl_ctx.get_job_id())) / EXPERIMENT
        settings = load_job(file, site.overrides, site.allow)
        self._values = values_of(settings, site.name or fl_ctx.get_identity_name())

    def features(self) -> dict[str, list[Feature]]:
        """Every feature of every part that has cases."""
        return {
            part: [Feature(name, DataType.FLOAT) for name in FEATURES if len(values[name])]
            for part, values in self._values.items()
        }

    def count(self, dataset_name: str, feature_name: str) -> int:
        """Cases."""
        return len(self._values[dataset_name][feature_name])

    def sum(self, dataset_name: str, feature_name: str) -> float:
        """Sum over cases."""
        return float(self._values[dataset_name][feature_name].sum())

    def mean(self, dataset_name: str, feature_name: str) -> float:
        """Mean over cases."""
        return float(self._values[dataset_name][feature_name].mean())

    def stddev(self, dataset_name: str, feature_name: str) -> float:
        """Standard deviation over cases."""
        return float(self._values[dataset_name][feature_name].std())

    def variance_with_mean(
        self, dataset_name: str, feature_name: str, global_mean: float, global_count: float
    ) -> float:
        """This site's part of the variance over all sites."""
        values = self._values[dataset_name][feature_name]
        return float(np.square(values - global_mean).sum() / max(global_count - 1, 1))

    def histogram(
        self, dataset_name: str, feature_name: str, num_of_bins: int, global_min_value: float, global_max_value: float
    ) -> Histogram:
        """Cases in bins of equal width."""
        values = self._values[dataset_name][feature_name]
        counts, edges = np.histogram(values, num_of_bins, (global_min_value, global_max_value))
        bins = zip(edges.tolist(), edges[1:].tolist(), counts.tolist(), strict=False)
        return Histogram(HistogramType.STANDARD, [Bin(*one) for one in bins])

    def max_value(self, dataset_name: str, feature_name: str) -> float:
        """The largest, to which NVFlare's cleanser adds noise before it leaves."""
        return float(self._values[dataset_name][feature_name].max())

    def min_value(self, dataset_name: str, feature_name: str) -> float:
        """The smallest, to which NVFlare's cleanser adds noise before it leaves."""
        return float(self._values[dataset_name][feature_name].min())

    def failure_count(self, dataset_name: str, feature_name: str) -> int:
        """Cases that could not be read: none, they are read or the job fails."""
        return 0


def values_of(settings: Settings, name: str) -> dict[str, dict[str, NDArray[np.float64]]]:
    """From a part of a site's data to each feature of its cases, (cases,).

    Raises:
        UserError: the site is not in its list.
    """
    sites = read_sites(Path(settings.sites))
    if name not in sites:
        raise UserError(f"{settings.sites}: there is no site {name!r}; there are: {', '.join(sorted(sites))}")
    reading = build(settings, "reading")
    rows: dict[str, list[dict[str, float]]] = {part: [] for part in PARTS}
    for part, cases in rows.items():
        for item in sites[name].items(part, settings.fold):
            check_case(item)
            cases.append(_features(reading(dict(item))))
    return {part: _columns(cases) for part, cases in rows.items() if cases}


def _features(case: Mapping[str, Any]) -> dict[str, float]:
    image = np.asarray(case["image"], dtype=np.float64)
    found = {"intensity_mean": image.mean(), "intensity_sd": image.std(), "pixels": float(image[0].size)}
    if "label" in case:
        found["foreground_fraction"] = float((np.asarray(case["label"]) > 0).mean())
    return found


def _columns(cases: Sequence[Mapping[str, float]]) -> dict[str, NDArray[np.float64]]:
    return {name: np.array([case[name] for case in cases if name in case]) for name in FEATURES}
