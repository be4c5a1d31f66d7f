"""Data: sites, cases, and how their images are read."""

from fedbcs_monai.data.datalist import datalist
from fedbcs_monai.data.inferers import NeighbouringSlicesInferer
from fedbcs_monai.data.pictures import PictureReader
from fedbcs_monai.data.readers import VolumeReader
from fedbcs_monai.data.samples import Pooled, Samples, batches
from fedbcs_monai.data.sites import Case, SiteData, digest_sites, read_sites, write_sites
from fedbcs_monai.data.transforms import Binarised, NeighbouringSlicesd, RGBd, Spacingd, StainJitterd

__all__ = [
    "Binarised",
    "Case",
    "NeighbouringSlicesInferer",
    "NeighbouringSlicesd",
    "PictureReader",
    "Pooled",
    "RGBd",
    "Samples",
    "SiteData",
    "Spacingd",
    "StainJitterd",
    "VolumeReader",
    "batches",
    "datalist",
    "digest_sites",
    "read_sites",
    "write_sites",
]
