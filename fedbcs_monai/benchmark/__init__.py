"""Benchmark: many runs, each in a process of its own, to tables and a page."""

from fedbcs_monai.benchmark.estimate import Estimate, steps_a_round
from fedbcs_monai.benchmark.execute import BenchmarkCallbacks, Failure, check_jobs, run_benchmark
from fedbcs_monai.benchmark.page import write_benchmark
from fedbcs_monai.benchmark.worker import carry_out

__all__ = [
    "BenchmarkCallbacks",
    "Estimate",
    "Failure",
    "carry_out",
    "check_jobs",
    "run_benchmark",
    "steps_a_round",
    "write_benchmark",
]
