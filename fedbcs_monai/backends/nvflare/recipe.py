"""Recipe: turns a configuration into an NVFlare job that contains neither code nor paths."""

import json
import tempfile
import uuid
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from nvflare.apis.analytix import ANALYTIC_EVENT_TYPE
from nvflare.app_common.executors.statistics.statistics_executor import StatisticsExecutor
from nvflare.app_common.filters.statistics_privacy_filter import StatisticsPrivacyFilter
from nvflare.app_common.statistics.histogram_bins_cleanser import HistogramBinsCleanser
from nvflare.app_common.statistics.json_stats_file_persistor import JsonStatsFileWriter
from nvflare.app_common.statistics.min_count_cleanser import MinCountCleanser
from nvflare.app_common.statistics.min_max_cleanser import AddNoiseToMinMax
from nvflare.app_common.widgets.convert_to_fed_event import ConvertToFedEvent
from nvflare.app_common.workflows.statistics_controller import StatisticsController
from nvflare.job_config.api import FedJob
from nvflare.job_config.defs import FilterType
from nvflare.recipe import add_experiment_tracking
from nvflare.recipe.spec import ExecEnv, Recipe

from fedbcs_monai.backends.nvflare.controller import FederatedController
from fedbcs_monai.backends.nvflare.environments import prepare
from fedbcs_monai.backends.nvflare.executor import SiteExecutor
from fedbcs_monai.backends.nvflare.layout import EXPERIMENT, STATISTICS
from fedbcs_monai.backends.nvflare.statistics import SiteStatistics
from fedbcs_monai.errors import UserError
from fedbcs_monai.runs.setup import require_all
from fedbcs_monai.settings import Settings, keys_that, plain

TRACKERS = {
    "tensorboard": "pip install tensorboard",
    "mlflow": "pip install 'fedbcs-monai[track]'",
}
"""Trackers for the sites' metrics, and how each is installed. NVFlare's third, Weights & Biases, is left
out: it cannot be built without a project and an account of its own.
"""


class JobRecipe(Recipe):  # type: ignore[misc]
    """A job that carries a configuration, as data.

    Args:
        settings: of `load_config`.
        name: of the job.
        min_clients: sites that must be there for it to begin.

    Raises:
        UserError: the configuration lacks a key.
    """

    def __init__(self, settings: Settings, name: str, min_clients: int) -> None:
        require_all(settings)
        if min_clients < 1:
            raise UserError(f"min_responses is {min_clients}: it must be 1 or more")
        self.job = FedJob(name=name, min_clients=min_clients)
        self.job.set_app_packages(["fedbcs_monai"])
        self._sites = settings.sites
        self._trust = settings.trust
        self._written = tempfile.TemporaryDirectory()
        experiment = Path(self._written.name) / EXPERIMENT
        travelling = {key: value for key, value in plain(settings).items() if key in keys_that("travels")}
        experiment.write_text(json.dumps(travelling, indent=1) + "\n", encoding="utf-8")
        self.job.add_file_to_server(str(experiment), app_folder_type="config")
        self.job.add_file_to_clients(str(experiment), app_folder_type="config")
        super().__init__(self.job)

    def process_env(self, env: ExecEnv) -> None:
        """Let the parties that an environment makes up on this machine run the job, on the configuration's own sites.

        A federation that already exists (ProdEnv) is left as it is: its parties have policies and data of their own.
        """
        prepare(env, self.name, self._sites, Path(self._written.name), self._trust.names)


class FedBCSRecipe(JobRecipe):
    """A federation: any method, any task.

    Args:
        settings: of `load_config`, as for `train`.
        name: of the job.
        run_id: of the run; None draws one. Another job with the same one resumes where the first stopped.
        min_responses: sites that must answer every question; with fewer the run fails.
        round_timeout_s: longest time for a question.
        wait_s: how long to wait for the other sites when `min_responses` have answered.
        restarts: so often a killed trainer is started again over one question.
        cross_site: in the end have every site evaluate what every other site trained in the last round.
        offload_mib: from this size of network on, updates wait for the aggregation on disk.
        poll_s: time between two looks of a site for a task.
        track: one or several of `TRACKERS`: the sites' numbers also go to NVFlare's own tracking as they come.

    Raises:
        UserError: a key is missing, the configuration has no place in a real federation, or there is no such tracker.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        name: str = "fedbcs",
        run_id: str | None = None,
        min_responses: int = 2,
        round_timeout_s: int = 7200,
        wait_s: int = 600,
        restarts: int = 3,
        cross_site: bool = False,
        offload_mib: int = 256,
        poll_s: float = 0.2,
        track: str | Sequence[str] = (),
    ) -> None:
        if settings.centralized:
            raise UserError(
                "centralized trains in one place on the cases of all sites, which a federation does not have"
            )
        trackers = _trackers([track] if isinstance(track, str) else track)
        super().__init__(settings, name, min_responses)
        self.run_id = run_id or uuid.uuid4().hex[:12]
        self.job.to_server(
            FederatedController(self.run_id, min_responses, round_timeout_s, wait_s, cross_site, offload_mib)
        )
        self.job.to_server({"server": {"task_request_interval": poll_s}})
        self.job.to_clients(SiteExecutor(self.run_id, restarts), tasks=["*"])
        for tracker in trackers:
            add_experiment_tracking(self, tracker)
        if trackers:
            self.job.to_clients(ConvertToFedEvent([ANALYTIC_EVENT_TYPE]))


def _trackers(names: Sequence[str]) -> Sequence[str]:
    """The names of trackers, each of them known and installed.

    Raises:
        UserError: one is not.
    """
    for name in names:
        if name not in TRACKERS:
            raise UserError(f"track is {name!r}: choose one of {', '.join(TRACKERS)}")
        if find_spec(name) is None:
            raise UserError(f"track is {name!r}, which is not installed: {TRACKERS[name]}")
    return names


class StatisticsRecipe(JobRecipe):
    """Federated statistics of the sites' cases, NVFlare's own: counts, means, deviations and histograms.

    Args:
        settings: of `load_config`; how images are read is taken from it.
        name: of the job.
        min_responses: sites that must take part.
        wait_s: how long to wait for the other sites when `min_responses` have answered.
        min_count: with fewer cases a site's numbers are withheld.
        bins: of the histograms; a site withholds one with more bins than a tenth of its cases.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        name: str = "fedbcs-statistics",
        min_responses: int = 2,
        wait_s: int = 600,
        min_count: int = 10,
        bins: int = 10,
    ) -> None:
        super().__init__(settings, name, min_responses)
        wanted = {"count": {}, "sum": {}, "mean": {}, "stddev": {}, "histogram": {"*": {"bins": bins}}}
        self.job.to_server(
            StatisticsController(
                wanted,
                writer_id="writer",
                wait_time_after_min_received=wait_s,
                min_clients=min_responses,
                enable_pre_run_task=False,
            )
        )
        self.job.to_server(JsonStatsFileWriter(STATISTICS), id="writer")
        generator = self.job.to_clients(SiteStatistics(), id="statistics")
        self.job.to_clients(StatisticsExecutor(generator), tasks=["fed_stats"])
        cleansers = {
            "min_count": MinCountCleanser(min_count=min_count),
            "noise": AddNoiseToMinMax(min_noise_level=0.1, max_noise_level=0.3),
            "bins": HistogramBinsCleanser(max_bins_percent=10),
        }
        ids = [self.job.to_clients(cleanser, id=name) for name, cleanser in cleansers.items()]
        privacy = StatisticsPrivacyFilter(result_cleanser_ids=ids)
        self.job.to_clients(privacy, filter_type=FilterType.TASK_RESULT, tasks=["fed_stats"])
