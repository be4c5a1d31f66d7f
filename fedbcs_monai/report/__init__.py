"""Reports: run folders to self-contained pages."""

from fedbcs_monai.report.page import write_report
from fedbcs_monai.report.provenance import duration

__all__ = ["duration", "write_report"]
