"""The benchmark's report: tables and figures of the paper, measured and published side by side."""

from fedbcs_monai.report.benchmark.page import write_benchmark

__all__ = ["write_benchmark"]
