"""Federated medical image segmentation on MONAI."""

from fedbcs_monai.version import __version__

__all__ = ["__version__"]
