"""Benchmark: the runs of a suite, each in a process of its own, several at once."""

from fedbcs_monai.drivers.benchmark.estimate import Estimate, steps_a_round
from fedbcs_monai.drivers.benchmark.processes import Failure, SuiteWatch, run_suite
from fedbcs_monai.drivers.benchmark.stage import Stage, carry_out, seconds_of, stage_of

__all__ = [
    "Estimate",
    "Failure",
    "Stage",
    "SuiteWatch",
    "carry_out",
    "run_suite",
    "seconds_of",
    "stage_of",
    "steps_a_round",
]
