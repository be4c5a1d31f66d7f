"""Benchmark: the runs of a suite, each in a process of its own, several at once."""

from fedbcs_monai.drivers.benchmark.estimate import Estimate, steps_a_round
from fedbcs_monai.drivers.benchmark.processes import Failure, SuiteWatch, check_jobs, run_suite
from fedbcs_monai.drivers.benchmark.worker import carry_out

__all__ = [
    "Estimate",
    "Failure",
    "SuiteWatch",
    "carry_out",
    "check_jobs",
    "run_suite",
    "steps_a_round",
]
