"""Transforms: binary labels, scaled pictures, stain jitter, neighbouring slices, and a safe `Spacingd`."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform, RandomizableTransform
from monai.transforms import Spacingd as MonaiSpacingd
from torch import Tensor

from fedbcs_monai.errors import UserError

Sample = Mapping[Hashable, Any]

# Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston 2001).
_STAINS = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11), (0.27, 0.57, 0.78))


class Binarised(MapTransform):  # type: ignore[misc]  # MONAI is untyped
    """Labels of 0 and 1, or of 0 and the largest value of the file's depth (255, 65535), as uint8 of 0 and 1.

    Anything else is refused: soft edges, several classes and instance numbers have no one binary meaning. An RGB mask
    whose channels agree counts as its one channel. Input `(C, ...)`, output `(1, ...)`.
    """

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Binarise every key."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            sample[key] = _binarised(sample[key])
        return sample


class RGBd(MapTransform):  # type: ignore[misc]
    """Pictures read by `PictureReader`, `(1, H, W)` or `(3, H, W)`, as float32 `(3, H, W)` in [0, 1].

    Grey is repeated; 16-bit grey is divided by 65535, everything else by 255.
    """

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Convert every key."""
        sample = dict(data)
        for key in self.key_iterator(sample):
            image = sample[key]
            if image.ndim != 3 or image.shape[0] not in (1, 3):
                raise UserError(f"{_name(image)}: expected a grey or RGB picture, got shape {tuple(image.shape)}")
            white = 65535 if str(_meta(image).get("mode", "")).startswith("I;16") else 255
            sample[key] = (image.float() / white).expand(3, -1, -1)
        return sample


class StainJitterd(RandomizableTransform, MapTransform):  # type: ignore[misc]
    """Vary the strength of each stain of an H&E image (after Tellez et al., IEEE TMI 37(9), 2018, section III).

    The optical density is split into haematoxylin, eosin and a rest; each amount `s` becomes `scale * s + shift`.
    Densities are natural logarithms here and all keys get the same jitter.

    Args:
        keys: images `(3, H, W)` in [0, 1].
        sigma: scale is uniform in 1 +- sigma, shift in +- sigma; 0 changes nothing.
        prob: how often.
        allow_missing_keys: as in MONAI.
    """

    def __init__(
        self, keys: KeysCollection, sigma: float = 0.1, prob: float = 0.5, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.sigma = sigma
        self.scale = [1.0, 1.0, 1.0]
        self.shift = [0.0, 0.0, 0.0]

    def randomize(self, data: Any = None) -> None:
        """Draw whether to jitter, and the scale and shift of each stain."""
        super().randomize(data)
        self.scale = self.R.uniform(1 - self.sigma, 1 + self.sigma, 3).tolist()
        self.shift = self.R.uniform(-self.sigma, self.sigma, 3).tolist()

    def __call__(self, data: Sample) -> dict[Hashable, Any]:
        """Jitter every key, or none."""
        sample = dict(data)
        self.randomize()
        if self._do_transform:
            for key in self.key_iterator(sample):
                sample[key] = jitter_stains(sample[key], self.scale, self.shift)
        return sample


def jitter_stains(image: Tensor, scale: Sequence[float], shift: Sequence[float]) -> Tensor:
    """Multiply and shift the amount of each stain of an image `(3, H, W)` in [0, 1].

    Scales of 1 and shifts of 0 give the image back, its darkest values raised to 1/255.
    """
    stains = torch.tensor(_STAINS, device=image.device)
    density = -image.clamp(min=1 / 255).log()
    amounts = torch.einsum("chw,cs->shw", density, torch.linalg.inv(stains))
    amounts = amounts * amounts.new_tensor(scale)[:, None, None] + amounts.new_tensor(shift)[:, None, None]
    return torch.einsum("shw,sc->chw", amounts, stains).neg().exp().clamp(max=1)


class NeighbouringSlicesd(MapTransform):  # type: ignore[misc]
    """A volume as one sample for each slice, whose channels are the slice and its neighbours.

    Edge slices are repeated. The samples are views of one tensor for each key, so that D of them cost little more than
    the volume. FedBCS trains its 2-D network on three neighbouring slices.

    Args:
        keys: images `(1, H, W, D)`; in each of the D samples `(count, H, W)`.
        label_key: label `(1, H, W, D)`; in each sample `(1, H, W)`. It may be absent.
        count: number of slices, odd; 1 is the slice alone.
        foreground_only: leave out slices whose label is empty.
    """

    def __init__(
        self, keys: KeysCollection, label_key: str = "label", count: int = 3, foreground_only: bool = False
    ) -> None:
        super().__init__(keys)
        self.label_key = label_key
        self.count = count
        self.foreground_only = foreground_only

    def __call__(self, data: Sample) -> list[dict[Hashable, Any]]:
        """Cut the volume; what is under other keys is repeated in every sample."""
        slices = {key: neighbours(data[key], self.count) for key in self.key_iterator(data)}
        if self.label_key in data:
            slices[self.label_key] = neighbours(data[self.label_key], 1)
        depth = min(len(parts) for parts in slices.values())
        samples = [{**data, **{key: parts[index] for key, parts in slices.items()}} for index in range(depth)]
        if self.foreground_only:
            samples = [sample for sample in samples if bool(sample[self.label_key].any())]
        return samples


class Spacingd(MonaiSpacingd):  # type: ignore[misc]
    """MONAI's `Spacingd`, beside whatever else a host puts into the dictionary.

    For an image from NIfTI, MONAI 1.6.1 takes every key that begins with ``image_`` for its metadata and updates it, so
    that a path under ``image_path`` is an error, and so is a key that is not text. Such keys pass by untouched here.
    """

    def __call__(self, data: Sample, lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample every key."""
        seen = {key: value for key, value in data.items() if key in self.keys or isinstance(value, Mapping)}
        seen = {key: value for key, value in seen.items() if isinstance(key, str)}
        return {**data, **super().__call__(seen, lazy)}


def neighbours(volume: Tensor, count: int) -> Tensor:
    """All slices with their neighbours as channels: `(1, H, W, D)` to a view `(D, count, H, W)`.

    Slice d holds the slices d - count // 2 to d + count // 2 in this order; beyond an end the end is repeated.
    """
    if count < 1 or count % 2 == 0:
        raise UserError(f"the number of neighbouring slices must be odd, got {count}")
    if volume.ndim != 4 or volume.shape[0] != 1:
        raise UserError(f"{_name(volume)}: expected a volume (1, H, W, D), got shape {tuple(volume.shape)}")
    stack = _plain(volume)[0].movedim(-1, 0)
    half = count // 2
    padded = torch.cat([stack[:1].expand(half, -1, -1), stack, stack[-1:].expand(half, -1, -1)]).contiguous()
    return padded.unfold(0, count, 1).movedim(-1, 1)


def _binarised(label: Tensor) -> Tensor:
    if label.shape[0] > 1 and bool((label == label[:1]).all()):
        label = label[:1]
    foreground = label != 0
    top = label.max()
    if label.shape[0] != 1 or top not in (0, 1, 255, 65535) or bool((foreground & (label != top)).any()):
        values = ", ".join(f"{value:g}" for value in torch.unique(_plain(label))[:5].tolist())
        raise UserError(
            f"{_name(label)}: a label holds 0 and 1, or 0 and 255, in one channel; got {values}, ... "
            f"in {label.shape[0]}; threshold it or choose one class"
        )
    return foreground.to(torch.uint8)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor


def _meta(tensor: Tensor) -> dict[str, Any]:
    return dict(tensor.meta) if isinstance(tensor, MetaTensor) else {}


def _name(tensor: Tensor) -> str:
    return str(_meta(tensor).get("filename_or_obj", "tensor"))
