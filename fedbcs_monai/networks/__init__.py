"""Networks: MONAI backbones with named levels, style recalibration, context fusion and harmonization."""

from fedbcs_monai.networks.backbones import build_segmenter
from fedbcs_monai.networks.frequency import StyleRecalibration
from fedbcs_monai.networks.harmonize import AmplitudeNormalization
from fedbcs_monai.networks.segmenter import (
    FEATURE_LAYERS,
    Features,
    Level,
    Segmenter,
    feature_channels,
    feature_layer,
    features_under,
    pooled,
)
from fedbcs_monai.networks.volume import VolumeSegmenter, over_volumes

__all__ = [
    "FEATURE_LAYERS",
    "AmplitudeNormalization",
    "Features",
    "Level",
    "Segmenter",
    "StyleRecalibration",
    "VolumeSegmenter",
    "build_segmenter",
    "feature_channels",
    "feature_layer",
    "features_under",
    "over_volumes",
    "pooled",
]
