"""Case scores: segment whole cases and score them on their own grids."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientation
from numpy.typing import NDArray
from torch import Tensor, nn

from fedbcs_monai.errors import UserError, user_error_behind
from fedbcs_monai.files import check_case
from fedbcs_monai.metrics.masks import dice, slice_dice, surface_distances
from fedbcs_monai.settings import ONE_STRUCTURE

Item = Mapping[str, Any]
Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class Segmentation:
    """From a case's files to a mask on the case's own grid.

    Args:
        reading: reads `image` and `label`, whichever an item has.
        preprocessing: a case's dictionary to network input; its inverse is in `postprocessing`.
        inferer: of `image` (1, C, *) and a network to logits (1, K, *).
        postprocessing: of a dictionary with `image` and `pred` logits (K, *) to `pred` (1, *) class numbers.
        device: where the network is.
    """

    reading: Transform
    preprocessing: Transform
    inferer: Callable[..., Tensor]
    postprocessing: Transform
    device: torch.device

    def prepare(self, item: Item) -> dict[str, Any]:
        """Read and preprocess the image of an item."""
        check_case(item, "image")
        case: dict[str, Any] = _applied(self.preprocessing, {"image": item["image"]})
        return case

    def mask(self, network: nn.Module, case: Mapping[str, Any]) -> Tensor:
        """Class numbers on the grid of the case's file, uint8 (*)."""
        return torch.as_tensor(np.asarray(self.predicted(network, case)[0])).to(torch.uint8)

    def predicted(self, network: nn.Module, case: Mapping[str, Any]) -> Tensor:
        """The postprocessed logits of a case, channels first, on the device of its image."""
        image = case["image"]
        logits = self.inferer(image[None].to(self.device), network)[0].float().to(image.device)
        pred = MetaTensor(logits, meta=image.meta, applied_operations=image.applied_operations)
        done: Tensor = _applied(self.postprocessing, {"image": image, "pred": pred})["pred"]
        return done

    def reference(self, item: Item) -> Tensor:
        """The label on the grid of its file, boolean (*).

        Raises:
            UserError: it has several classes, whose union is none of them.
        """
        check_case(item, "label")
        label = torch.as_tensor(np.asarray(_applied(self.reading, {"label": item["label"]})["label"][0]))
        if bool(((label != 0) & (label != label.max())).any()):
            raise UserError(f"{item['label']}: holds several classes; {ONE_STRUCTURE}: choose one in the label")
        return label > 0


class CaseScore(NamedTuple):
    """One case's scores; distances are NaN where spacing is unknown, `slice_dice` where the case is one image."""

    case: str
    dice: float
    hd95_mm: float
    assd_mm: float
    slice_dice: float


class Example(NamedTuple):
    """A picture of one case: image (H, W, 3) uint8, reference and prediction (H, W) boolean."""

    case: str
    image: NDArray[np.uint8]
    truth: NDArray[np.bool_]
    prediction: NDArray[np.bool_]
    dice: float


@dataclass
class CaseScorer:
    """Score the cases of one part of a site; what was read once is kept.

    Args:
        segmentation: how a case becomes a mask.
        items: with `image`, `label` and `case`.
    """

    segmentation: Segmentation
    items: Sequence[Item]
    _kept: dict[str, tuple[dict[str, Any], Tensor]] = field(default_factory=dict, repr=False)

    def mean_dice(self, network: nn.Module) -> float:
        """Mean foreground Dice of the cases; NaN when there are none."""
        scores = [dice(self._mask(network, item), self._case(item)[1]) for item in self.items]
        return float(np.mean(scores)) if scores else float("nan")

    def scores(self, network: nn.Module) -> list[CaseScore]:
        """Every score of every case."""
        return [self._score(network, item) for item in self.items]

    def examples(self, network: nn.Module, count: int) -> list[Example]:
        """Pictures of the first ``count`` cases; of a volume the slice with most reference."""
        return [self._example(network, item) for item in self.items[:count]]

    def look(self) -> NDArray[np.uint8]:
        """A picture of the first case, (H, W, 3); of a volume its middle slice."""
        item = self.items[0]
        image = self._read_image(item)
        axis = slice_axis(self.segmentation.prepare(item)["image"])
        return _displayed(_slice(image, image, axis, image.shape[1:][axis] // 2))

    def _case(self, item: Item) -> tuple[dict[str, Any], Tensor]:
        if item["case"] not in self._kept:
            self._kept[item["case"]] = self.segmentation.prepare(item), self.segmentation.reference(item)
        return self._kept[item["case"]]

    def _read_image(self, item: Item) -> MetaTensor:
        """The image on the grid of its file."""
        check_case(item, "image")
        image: MetaTensor = _applied(self.segmentation.reading, {"image": item["image"]})["image"]
        return image

    def _mask(self, network: nn.Module, item: Item) -> Tensor:
        return self.segmentation.mask(network, self._case(item)[0]) > 0

    def _score(self, network: nn.Module, item: Item) -> CaseScore:
        case, reference = self._case(item)
        mask = self._mask(network, item)
        spacing = spacing_mm(case["image"])
        distances = (np.nan, np.nan) if spacing is None else surface_distances(mask, reference, spacing)
        per_slice = float("nan")
        if mask.ndim == 3:
            per_slice = slice_dice(*(part.movedim(slice_axis(case["image"]), -1) for part in (mask, reference)))
        return CaseScore(item["case"], dice(mask, reference), *distances, per_slice)

    def _example(self, network: nn.Module, item: Item) -> Example:
        case, reference = self._case(item)
        mask = self._mask(network, item)
        image = self._read_image(item)
        axis = slice_axis(case["image"])
        at = int(reference.movedim(axis, 0).flatten(1).sum(1).argmax()) if reference.ndim == 3 else 0
        truth, prediction = (_slice(part[None], image, axis, at)[0] for part in (reference, mask))
        picture = _displayed(_slice(image, image, axis, at))
        return Example(item["case"], picture, truth > 0, prediction > 0, dice(mask, reference))


def spacing_mm(image: Tensor) -> list[float] | None:
    """Spacing of the file that a preprocessed image came from, along each axis; None for pictures."""
    if not isinstance(image, MetaTensor) or "original_affine" not in image.meta or "mode" in image.meta:
        return None
    affine = np.asarray(image.meta["original_affine"], dtype=float)
    return [float(step) for step in np.linalg.norm(affine[:3, :3], axis=0)]


def slice_axis(image: Tensor) -> int:
    """Which axis of its file the last axis of a preprocessed image follows: the one that slices are cut along.

    Of a picture -1, and of a volume without a file behind it too.
    """
    if image.ndim != 4 or not isinstance(image, MetaTensor) or "original_affine" not in image.meta:
        return -1
    directions = np.asarray(image.meta["original_affine"], dtype=float)[:3, :3]
    last = np.asarray(image.affine, dtype=float)[:3, 2]
    return int(np.abs(last @ directions / np.linalg.norm(directions, axis=0)).argmax())


def _applied(transform: Transform, item: dict[str, Any]) -> Any:
    try:
        return transform(item)
    except RuntimeError as error:
        correctable = user_error_behind(error)
        if correctable is None:
            raise
        raise correctable from None


def _slice(part: Tensor, image: MetaTensor, axis: int, at: int) -> NDArray[Any]:
    """A picture as it is, or slice ``at`` of a volume (C, H, W, D) with the patient's right to the left, front up."""
    if part.ndim == 3:
        return np.asarray(part)
    thin = torch.as_tensor(np.asarray(part)).movedim(axis % 3 + 1, 0)[at : at + 1].movedim(0, axis % 3 + 1)
    volume = MetaTensor(thin.float(), affine=image.affine)
    turned = Orientation(axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S")))(volume)
    flat = np.asarray(turned).squeeze(int(np.argmin(turned.shape[1:])) + 1)
    return np.moveaxis(flat, 1, 2)


def _displayed(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """(1, H, W) between its 1st and 99th percentile, or colours (3, H, W) in [0, 1] as they are, to 8-bit (H, W, 3)."""
    values = picture.astype(float)
    if len(values) == 1:
        low, high = np.percentile(values, [1, 99])
        values = np.repeat((values - low) / max(high - low, 1e-9), 3, axis=0)
    return np.round(np.moveaxis(values, 0, -1).clip(0, 1) * 255).astype(np.uint8)
