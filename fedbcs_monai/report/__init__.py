"""Reports: run folders to one self-contained page."""

from fedbcs_monai.report.page import write_report

__all__ = ["write_report"]
