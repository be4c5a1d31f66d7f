"""Networks: MONAI backbones with named levels, style recalibration and context fusion."""

from fedbcs_monai.networks.backbones import build_segmenter
from fedbcs_monai.networks.frequency import StyleRecalibration
from fedbcs_monai.networks.segmenter import Features, Level, Segmenter, features_under

__all__ = ["Features", "Level", "Segmenter", "StyleRecalibration", "build_segmenter", "features_under"]
