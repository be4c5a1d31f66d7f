"""Allow-list: the components that every configuration may name, with their permitted arguments and values.

A configuration names what is built and called, so whoever writes one could run what they like. Nothing is built that is
not in this file, but for what a user or a site trusts by name. To be added here a component must read and write no file
but the images that it is given, and take no function, path, module or device from its arguments.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from fedbcs_monai.errors import UserError

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_+-]*")
_MODULE = re.compile(r"(\w+(\.\w+)*)?")
_TRUSTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True)
class Trust:
    """What may be built besides the allow-list.

    Args:
        names: of components, and of packages and modules, all of whose own components are meant.
        remedy: what an error says to do about a component that is not permitted.
    """

    names: tuple[str, ...] = ()
    remedy: str = "let it in with --trust {target} (in Python trust=[{target!r}])"

    def __post_init__(self) -> None:
        """Check the names."""
        for name in self.names:
            if not isinstance(name, str) or not _TRUSTED.fullmatch(name):
                raise UserError(
                    f"trust: {name!r} is not the name of a component or package, such as mylab.networks.Net"
                )

    def covers(self, target: str) -> bool:
        """Whether a component or one of its packages is named."""
        return any(f"{target}.".startswith(f"{name}.") for name in self.names)


def trusting(names: Iterable[str] | Trust) -> Trust:
    """Names as a `Trust`."""
    return names if isinstance(names, Trust) else Trust((names,) if isinstance(names, str) else tuple(names))


class Kind(NamedTuple):
    """Values that an argument may have.

    Args:
        said: what an error calls them.
        fits: whether a value is one.
    """

    said: str
    fits: Callable[[Any], bool]


class Part(NamedTuple):
    """A component of a category, or a list of them, as the value of an argument."""

    category: str


Arguments = Mapping[str, Kind | Part]


def _each(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """Whether one value fits, or every value of a list, or of a list of lists."""

    def all_fit(value: Any) -> bool:
        return all(map(all_fit, value)) if isinstance(value, list | tuple) else fits(value)

    return all_fit


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


def _is_word(value: Any) -> bool:
    return _is_number(value) or (isinstance(value, str) and _WORD.fullmatch(value) is not None)


def _is_module(value: Any) -> bool:
    return value is None or (isinstance(value, str) and _MODULE.fullmatch(value) is not None)


def _is_setting(value: Any) -> bool:
    if isinstance(value, Mapping):
        return "_target_" not in value and all(_is_word(name) and _is_setting(inner) for name, inner in value.items())
    return _each(_is_setting)(value) if isinstance(value, list | tuple) else _is_word(value)


NUMBERS = Kind("numbers, true or false", _each(_is_number))
WORDS = Kind("words or numbers", _each(_is_word))
SETTINGS = Kind("words or numbers, by name", _is_setting)
MODULES = Kind("names of modules of the network", _each(_is_module))
READER_NAMES = ("ITKReader", "NibabelReader", "NrrdReader", "PILReader")
"""Readers that may be given by name; not MONAI's NumpyReader, which can unpickle."""


def _of(numbers: str = "", words: str = "", **more: Kind | Part) -> Arguments:
    """Arguments by their kind, names in a text with spaces between."""
    return {**dict.fromkeys(numbers.split(), NUMBERS), **dict.fromkeys(words.split(), WORDS), **more}


def _dictionary(numbers: str = "", words: str = "", **more: Kind | Part) -> Arguments:
    """Arguments of a dictionary transform, besides its keys."""
    return _of(f"allow_missing_keys {numbers}", f"keys {words}", **more)


TRANSFORMS: Mapping[str, Arguments] = {
    "monai.transforms.Compose": _of("map_items unpack_items lazy", transforms=Part("transform")),
    "monai.transforms.OneOf": _of("weights map_items unpack_items lazy", transforms=Part("transform")),
    "monai.transforms.RandomOrder": _of("map_items unpack_items lazy", transforms=Part("transform")),
    "monai.transforms.SomeOf": _of(
        "num_transforms replace weights map_items unpack_items lazy", transforms=Part("transform")
    ),
    # Reading, and the kind and order of what was read.
    "monai.transforms.LoadImaged": _dictionary("image_only ensure_channel_first", "dtype", reader=Part("reader")),
    "monai.transforms.EnsureChannelFirstd": _dictionary("strict_check", "channel_dim"),
    "monai.transforms.EnsureTyped": _dictionary("wrap_sequence track_meta", "data_type dtype"),
    "monai.transforms.CastToTyped": _dictionary("", "dtype"),
    "monai.transforms.Identityd": _dictionary(),
    "monai.transforms.SqueezeDimd": _dictionary("dim update_meta"),
    "monai.transforms.Transposed": _dictionary("indices"),
    "monai.transforms.CopyItemsd": _dictionary("times", "names"),
    "monai.transforms.ConcatItemsd": _dictionary("dim", "name"),
    "monai.transforms.AddCoordinateChannelsd": _dictionary("spatial_dims"),
    "monai.transforms.MapLabelValued": _dictionary("orig_labels target_labels", "dtype"),
    "monai.transforms.LabelToMaskd": _dictionary("select_labels merge_channels"),
    "fedbcs_monai.data.Binarised": _dictionary(),
    "fedbcs_monai.data.RGBd": _dictionary(),
    "fedbcs_monai.data.NeighbouringSlicesd": _of("count foreground_only", "keys label_key"),
    # Grid.
    "monai.transforms.Spacingd": _dictionary(
        "pixdim diagonal align_corners scale_extent recompute_affine min_pixdim max_pixdim ensure_same_shape lazy",
        "mode padding_mode dtype",
    ),
    "fedbcs_monai.data.Spacingd": _dictionary(
        "pixdim diagonal align_corners scale_extent recompute_affine min_pixdim max_pixdim ensure_same_shape lazy",
        "mode padding_mode dtype",
    ),
    "monai.transforms.Orientationd": _dictionary("as_closest_canonical lazy", "axcodes labels"),
    "monai.transforms.Resized": _dictionary(
        "spatial_size align_corners anti_aliasing anti_aliasing_sigma lazy", "size_mode mode dtype"
    ),
    "monai.transforms.Zoomd": _dictionary("zoom align_corners keep_size lazy", "mode padding_mode dtype"),
    "monai.transforms.Flipd": _dictionary("spatial_axis lazy"),
    "monai.transforms.Rotate90d": _dictionary("k spatial_axes lazy"),
    "monai.transforms.Rotated": _dictionary("angle keep_size align_corners lazy", "mode padding_mode dtype"),
    "monai.transforms.SpatialPadd": _dictionary("spatial_size value constant_values lazy", "method mode"),
    "monai.transforms.BorderPadd": _dictionary("spatial_border value constant_values lazy", "mode"),
    "monai.transforms.DivisiblePadd": _dictionary("k value constant_values lazy", "mode method"),
    "monai.transforms.CenterSpatialCropd": _dictionary("roi_size lazy"),
    "monai.transforms.CenterScaleCropd": _dictionary("roi_scale lazy"),
    "monai.transforms.SpatialCropd": _dictionary("roi_center roi_size roi_start roi_end lazy"),
    "monai.transforms.CropForegroundd": _dictionary(
        "channel_indices margin allow_smaller k_divisible value constant_values lazy",
        "source_key mode start_coord_key end_coord_key",
    ),
    "monai.transforms.ResizeWithPadOrCropd": _dictionary("spatial_size value constant_values lazy", "mode method"),
    # Intensity.
    "monai.transforms.ScaleIntensityd": _dictionary("minv maxv factor channel_wise", "dtype"),
    "monai.transforms.ScaleIntensityRanged": _dictionary("a_min a_max b_min b_max clip", "dtype"),
    "monai.transforms.ScaleIntensityRangePercentilesd": _dictionary(
        "lower upper b_min b_max clip relative channel_wise", "dtype"
    ),
    "monai.transforms.ClipIntensityPercentilesd": _dictionary("lower upper sharpness_factor channel_wise", "dtype"),
    "monai.transforms.NormalizeIntensityd": _dictionary("subtrahend divisor nonzero channel_wise", "dtype"),
    "monai.transforms.HistogramNormalized": _dictionary("num_bins min max", "mask_key dtype"),
    "monai.transforms.ThresholdIntensityd": _dictionary("threshold above cval"),
    "monai.transforms.ShiftIntensityd": _dictionary("offset safe"),
    "monai.transforms.AdjustContrastd": _dictionary("gamma invert_image retain_stats"),
    "monai.transforms.GaussianSmoothd": _dictionary("sigma", "approx"),
    "monai.transforms.GaussianSharpend": _dictionary("sigma1 sigma2 alpha", "approx"),
    "monai.transforms.MedianSmoothd": _dictionary("radius"),
    # Augmentation.
    "monai.transforms.RandFlipd": _dictionary("prob spatial_axis lazy"),
    "monai.transforms.RandAxisFlipd": _dictionary("prob lazy"),
    "monai.transforms.RandRotate90d": _dictionary("prob max_k spatial_axes lazy"),
    "monai.transforms.RandRotated": _dictionary(
        "range_x range_y range_z prob keep_size align_corners lazy", "mode padding_mode dtype"
    ),
    "monai.transforms.RandZoomd": _dictionary(
        "prob min_zoom max_zoom align_corners keep_size lazy", "mode padding_mode dtype"
    ),
    "monai.transforms.RandAffined": _dictionary(
        "spatial_size prob rotate_range shear_range translate_range scale_range cache_grid lazy", "mode padding_mode"
    ),
    "monai.transforms.Rand2DElasticd": _dictionary(
        "spacing magnitude_range spatial_size prob rotate_range shear_range translate_range scale_range",
        "mode padding_mode",
    ),
    "monai.transforms.Rand3DElasticd": _dictionary(
        "sigma_range magnitude_range spatial_size prob rotate_range shear_range translate_range scale_range",
        "mode padding_mode",
    ),
    "monai.transforms.RandGridDistortiond": _dictionary("num_cells prob distort_limit", "mode padding_mode"),
    "monai.transforms.RandSpatialCropd": _dictionary("roi_size max_roi_size random_center random_size lazy"),
    "monai.transforms.RandSpatialCropSamplesd": _dictionary(
        "roi_size num_samples max_roi_size random_center random_size lazy"
    ),
    "monai.transforms.RandScaleCropd": _dictionary("roi_scale max_roi_scale random_center random_size lazy"),
    "monai.transforms.RandCropByPosNegLabeld": _dictionary(
        "spatial_size pos neg num_samples image_threshold allow_smaller lazy", "label_key image_key"
    ),
    "monai.transforms.RandCropByLabelClassesd": _dictionary(
        "spatial_size ratios num_classes num_samples image_threshold allow_smaller warn max_samples_per_class lazy",
        "label_key image_key",
    ),
    "monai.transforms.RandGaussianNoised": _dictionary("prob mean std sample_std", "dtype"),
    "monai.transforms.RandRicianNoised": _dictionary("prob mean std channel_wise relative sample_std", "dtype"),
    "monai.transforms.RandGaussianSmoothd": _dictionary("sigma_x sigma_y sigma_z prob", "approx"),
    "monai.transforms.RandGaussianSharpend": _dictionary(
        "sigma1_x sigma1_y sigma1_z sigma2_x sigma2_y sigma2_z alpha prob", "approx"
    ),
    "monai.transforms.RandScaleIntensityd": _dictionary("factors prob channel_wise", "dtype"),
    "monai.transforms.RandShiftIntensityd": _dictionary("offsets safe prob channel_wise"),
    "monai.transforms.RandStdShiftIntensityd": _dictionary("factors prob nonzero channel_wise", "dtype"),
    "monai.transforms.RandAdjustContrastd": _dictionary("prob gamma invert_image retain_stats"),
    "monai.transforms.RandBiasFieldd": _dictionary("degree coeff_range prob", "dtype"),
    "monai.transforms.RandHistogramShiftd": _dictionary("num_control_points prob"),
    "monai.transforms.RandGibbsNoised": _dictionary("prob alpha"),
    "monai.transforms.RandCoarseDropoutd": _dictionary(
        "holes spatial_size dropout_holes fill_value max_holes max_spatial_size prob"
    ),
    "monai.transforms.RandCoarseShuffled": _dictionary("holes spatial_size max_holes max_spatial_size prob"),
    "fedbcs_monai.data.StainJitterd": _dictionary("sigma prob"),
    # From logits to a mask.
    "monai.transforms.Activationsd": _dictionary("sigmoid softmax dim"),
    "monai.transforms.AsDiscreted": _dictionary("argmax to_onehot threshold dim keepdim", "rounding dtype"),
    "monai.transforms.Invertd": _dictionary(
        "nearest_interp to_tensor", "orig_keys meta_keys orig_meta_keys meta_key_postfix", transform=Part("transform")
    ),
    "monai.transforms.KeepLargestConnectedComponentd": _dictionary(
        "applied_labels is_onehot independent connectivity num_components"
    ),
    "monai.transforms.RemoveSmallObjectsd": _dictionary("min_size connectivity independent_channels by_measure pixdim"),
    "monai.transforms.FillHolesd": _dictionary("applied_labels connectivity"),
    "monai.transforms.LabelFilterd": _dictionary("applied_labels"),
}

READERS: Mapping[str, Arguments] = {
    "monai.data.ITKReader": _of("reverse_indexing series_meta affine_lps_to_ras", "channel_dim"),
    "monai.data.NibabelReader": _of("as_closest_canonical squeeze_non_spatial_dims", "channel_dim"),
    "monai.data.NrrdReader": _of("affine_lps_to_ras", "channel_dim dtype index_order"),
    "monai.data.PILReader": _of("reverse_indexing"),
    "fedbcs_monai.data.PictureReader": _of(),
    "fedbcs_monai.data.VolumeReader": _of(),
}

_SIZES = "spatial_dims in_channels out_channels"

NETWORKS: Mapping[str, Arguments] = {
    "fedbcs_monai.networks.build_segmenter": _of(
        f"{_SIZES} features recalibrate recalibrate_decoder dropout",
        "backbone norm",
        style=SETTINGS,
        context=SETTINGS,
        harmonize=SETTINGS,
    ),
    "fedbcs_monai.networks.Segmenter": _of(
        "in_channels spatial_dims",
        backbone=Part("network"),
        encoder=MODULES,
        decoder=MODULES,
        recalibrate=MODULES,
        bottleneck=MODULES,
        style=SETTINGS,
    ),
    "monai.networks.nets.BasicUNet": _of(f"{_SIZES} features bias dropout", "upsample", act=SETTINGS, norm=SETTINGS),
    "monai.networks.nets.BasicUNetPlusPlus": _of(
        f"{_SIZES} features deep_supervision bias dropout", "upsample", act=SETTINGS, norm=SETTINGS
    ),
    "monai.networks.nets.UNet": _of(
        f"{_SIZES} channels strides kernel_size up_kernel_size num_res_units dropout bias",
        "adn_ordering",
        act=SETTINGS,
        norm=SETTINGS,
    ),
    "monai.networks.nets.DynUNet": _of(
        f"{_SIZES} kernel_size strides upsample_kernel_size filters deep_supervision deep_supr_num res_block "
        "trans_bias",
        dropout=SETTINGS,
        norm_name=SETTINGS,
        act_name=SETTINGS,
    ),
    "monai.networks.nets.SegResNet": _of(
        f"{_SIZES} init_filters dropout_prob num_groups use_conv_final blocks_down blocks_up",
        "norm_name upsample_mode",
        act=SETTINGS,
        norm=SETTINGS,
    ),
    "monai.networks.nets.AttentionUnet": _of(f"{_SIZES} channels strides kernel_size up_kernel_size dropout"),
    "monai.networks.nets.UNETR": _of(
        f"{_SIZES} img_size feature_size hidden_size mlp_dim num_heads conv_block res_block dropout_rate qkv_bias",
        "proj_type",
        norm_name=SETTINGS,
    ),
    "monai.networks.nets.SwinUNETR": _of(
        f"{_SIZES} patch_size depths num_heads window_size qkv_bias mlp_ratio feature_size drop_rate attn_drop_rate "
        "dropout_path_rate normalize patch_norm use_checkpoint use_v2",
        "downsample",
        norm_name=SETTINGS,
    ),
    "monai.networks.nets.VNet": _of(
        f"{_SIZES} dropout_prob dropout_prob_down dropout_prob_up dropout_dim bias", act=SETTINGS
    ),
}

_OF_DICE = "include_background to_onehot_y sigmoid softmax smooth_nr smooth_dr batch"

LOSSES: Mapping[str, Arguments] = {
    "monai.losses.DiceLoss": _of(f"{_OF_DICE} squared_pred jaccard weight soft_label ignore_index", "reduction"),
    "monai.losses.DiceCELoss": _of(
        f"{_OF_DICE} squared_pred jaccard weight lambda_dice lambda_ce label_smoothing", "reduction"
    ),
    "monai.losses.DiceFocalLoss": _of(
        f"{_OF_DICE} squared_pred jaccard gamma weight lambda_dice lambda_focal alpha", "reduction"
    ),
    "monai.losses.FocalLoss": _of(
        "include_background to_onehot_y gamma alpha weight use_softmax ignore_index", "reduction"
    ),
    "monai.losses.GeneralizedDiceLoss": _of(f"{_OF_DICE} soft_label", "w_type reduction"),
    "monai.losses.GeneralizedDiceFocalLoss": _of(
        f"{_OF_DICE} gamma weight lambda_gdl lambda_focal", "w_type reduction"
    ),
    "monai.losses.TverskyLoss": _of(f"{_OF_DICE} alpha beta soft_label ignore_index", "reduction"),
    "monai.losses.HausdorffDTLoss": _of("alpha include_background to_onehot_y sigmoid softmax batch", "reduction"),
    "monai.losses.AsymmetricUnifiedFocalLoss": _of(
        "to_onehot_y num_classes weight gamma delta ignore_index", "reduction"
    ),
    "monai.losses.SoftclDiceLoss": _of(
        "iter_ smooth smooth_nr smooth_dr include_background to_onehot_y sigmoid softmax", "reduction"
    ),
}

INFERERS: Mapping[str, Arguments] = {
    "monai.inferers.SimpleInferer": _of(),
    "monai.inferers.SlidingWindowInferer": _of(
        "roi_size sw_batch_size overlap sigma_scale cval cache_roi_weight_map", "mode padding_mode"
    ),
    "monai.inferers.SliceInferer": _of(
        "spatial_dim roi_size sw_batch_size overlap sigma_scale cval cache_roi_weight_map", "mode padding_mode"
    ),
    "monai.inferers.SaliencyInferer": _of("class_idx", "cam_name", target_layers=MODULES),
    "fedbcs_monai.data.NeighbouringSlicesInferer": _of("count sw_batch_size"),
}

_OF_ALL = "lr weight_decay foreach maximize differentiable capturable fused"
_OF_ADAM = f"{_OF_ALL} betas eps amsgrad decoupled_weight_decay"

OPTIMIZERS: Mapping[str, Arguments] = {
    "torch.optim.SGD": _of(f"{_OF_ALL} momentum dampening nesterov"),
    "torch.optim.Adam": _of(_OF_ADAM),
    "torch.optim.AdamW": _of(_OF_ADAM),
    "torch.optim.Adamax": _of(f"{_OF_ALL} betas eps"),
    "torch.optim.NAdam": _of(f"{_OF_ADAM} momentum_decay"),
    "torch.optim.RAdam": _of(_OF_ADAM),
    "torch.optim.Adagrad": _of(f"{_OF_ALL} lr_decay initial_accumulator_value eps"),
    "torch.optim.Adadelta": _of(f"{_OF_ALL} rho eps"),
    "torch.optim.RMSprop": _of(f"{_OF_ALL} alpha eps momentum centered"),
    "torch.optim.Rprop": _of(f"{_OF_ALL} etas step_sizes"),
    "torch.optim.ASGD": _of(f"{_OF_ALL} lambd alpha t0"),
    "monai.optimizers.Novograd": _of("lr betas eps weight_decay grad_averaging amsgrad"),
}

SCHEDULES: Mapping[str, Arguments] = {
    "torch.optim.lr_scheduler.StepLR": _of("step_size gamma"),
    "torch.optim.lr_scheduler.MultiStepLR": _of("milestones gamma"),
    "torch.optim.lr_scheduler.ConstantLR": _of("factor total_iters"),
    "torch.optim.lr_scheduler.LinearLR": _of("start_factor end_factor total_iters"),
    "torch.optim.lr_scheduler.ExponentialLR": _of("gamma"),
    "torch.optim.lr_scheduler.PolynomialLR": _of("total_iters power"),
    "torch.optim.lr_scheduler.CosineAnnealingLR": _of("T_max eta_min"),
    "torch.optim.lr_scheduler.CosineAnnealingWarmRestarts": _of("T_0 T_mult eta_min"),
    "torch.optim.lr_scheduler.CyclicLR": _of(
        "base_lr max_lr step_size_up step_size_down gamma cycle_momentum base_momentum max_momentum", "mode scale_mode"
    ),
    "torch.optim.lr_scheduler.OneCycleLR": _of(
        "max_lr total_steps epochs steps_per_epoch pct_start cycle_momentum base_momentum max_momentum div_factor "
        "final_div_factor three_phase",
        "anneal_strategy",
    ),
    "monai.optimizers.WarmupCosineSchedule": _of("warmup_steps t_total end_lr cycles warmup_multiplier"),
}

ALLOWLIST: Mapping[str, Mapping[str, Arguments]] = {
    "transform": TRANSFORMS,
    "reader": READERS,
    "network": NETWORKS,
    "loss": LOSSES,
    "inferer": INFERERS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
}
"""From a category to its components and their arguments. An argument that is not listed is not permitted."""

METHODS = "fedbcs_monai.methods"
"""Where methods are: every one that is listed there is permitted, with `SETTINGS` for its fields."""
