"""Benchmark: many runs, each in a process of its own, to tables and a page."""

from fedbcs_monai.benchmark.estimate import Estimate, steps_a_round
from fedbcs_monai.benchmark.execute import Failure, SuiteWatch, check_jobs, run_suite
from fedbcs_monai.benchmark.page import write_benchmark
from fedbcs_monai.benchmark.worker import carry_out

__all__ = [
    "Estimate",
    "Failure",
    "SuiteWatch",
    "carry_out",
    "check_jobs",
    "run_suite",
    "steps_a_round",
    "write_benchmark",
]
