"""Benchmark: train many runs, each in its own process, and write tables and a page."""

from fedbcs_monai.benchmark.estimate import Estimate, steps_per_round
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
    "steps_per_round",
    "write_benchmark",
]
