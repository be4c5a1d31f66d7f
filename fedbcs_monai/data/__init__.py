"""Data: which patient, which files, which hospital; and how a case is read."""

from fedbcs_monai.data.inferers import NeighbouringSlicesInferer
from fedbcs_monai.data.pictures import PictureReader
from fedbcs_monai.data.samples import Samples, batches
from fedbcs_monai.data.sites import Case, SiteData, read_sites, write_sites
from fedbcs_monai.data.transforms import Binarised, NeighbouringSlicesd, RGBd, StainJitterd

__all__ = [
    "Binarised",
    "Case",
    "NeighbouringSlicesInferer",
    "NeighbouringSlicesd",
    "PictureReader",
    "RGBd",
    "Samples",
    "SiteData",
    "StainJitterd",
    "batches",
    "read_sites",
    "write_sites",
]
