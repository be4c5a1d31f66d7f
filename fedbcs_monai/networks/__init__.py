"""Networks: MONAI backbones with named levels, style recalibration, context fusion and harmonization."""

from fedbcs_monai.networks.backbones import build_segmenter
from fedbcs_monai.networks.frequency import StyleRecalibration
from fedbcs_monai.networks.harmonize import AmplitudeNormalization
from fedbcs_monai.networks.segmenter import TAPS, Features, Level, Segmenter, features_under, pooled, tap, tap_channels
from fedbcs_monai.networks.volume import VolumeSegmenter, over_volumes

__all__ = [
    "TAPS",
    "AmplitudeNormalization",
    "Features",
    "Level",
    "Segmenter",
    "StyleRecalibration",
    "VolumeSegmenter",
    "build_segmenter",
    "features_under",
    "over_volumes",
    "pooled",
    "tap",
    "tap_channels",
]
