"""Report: compare run folders on one self-contained page."""

from fedbcs_monai.report.page import write_report
from fedbcs_monai.report.provenance import duration

__all__ = ["duration", "write_report"]
