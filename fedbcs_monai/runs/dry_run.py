"""Dry run: one training step and one segmented case at one site, before a run writes anything."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from fedbcs_monai.data import NeighbouringSlicesInferer, SiteData
from fedbcs_monai.errors import UserError, explained
from fedbcs_monai.federated.messages import Broadcast, State, Update
from fedbcs_monai.federated.method import Batch
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.runs.setup import Federation, build_segmentation
from fedbcs_monai.settings import Settings

MAX_CASES = 4
"""Most cases that a dry run reads."""


class TrialStep(NamedTuple):
    """What a dry run did: the shape of its batch (B, C, H, W[, D]), and the loss of its first step."""

    site: str
    batch: tuple[int, ...]
    loss: float


def few_cases(data: Mapping[str, SiteData], fold: int) -> dict[str, SiteData]:
    """The first site that trains, with a few of its training cases and no others.

    Raises:
        UserError: no site trains.
    """
    for name, site in sorted(data.items()):
        if cases := site.split("train", fold)[:MAX_CASES]:
            return {name: replace(site, cases=tuple(replace(case, split="train") for case in cases))}
    raise UserError("no site has training cases")


def try_one_step(settings: Settings, federation: Federation, counts: Iterable[int]) -> TrialStep:
    """Make one round of one step at the first site, and segment one of its cases; nothing remembers it.

    Args:
        settings: of the federation.
        federation: as it is set up; its network, its sites and torch's random state stay as they are.
        counts: of every site, its training samples: a batch as small as their smallest is tried, too.

    Raises:
        UserError: what fails, in one line.
    """
    site, start = federation.sites[0], federation.start
    method = replace(federation.method, aggregation="mean")  # other rules are not defined for one site
    with torch.random.fork_rng():
        try:
            with explained(f"{site.name}: cannot make a batch of its samples"):
                batch = next(iter(site.batches(0)))
            _check(federation.network, batch, site.name)
            few = min((count % settings.batch_size or settings.batch_size for count in counts), default=1)
            smallest = {name: tensor[:few] for name, tensor in batch.items()}
            tried = [batch] if few >= len(batch["image"]) else [batch, smallest]
            trial = replace(site, batches=lambda seed: tried, epochs=1, memory={}, private={}, moments={})
            trial.on_step = lambda steps: None
            losses: list[float] = []

            def ask(broadcast: Broadcast) -> Iterable[Update]:
                update = trial.answer(method, broadcast)
                losses.extend(value for name, value in update.metrics.items() if name == "loss")
                yield update

            compiled = " (compiled; `compile` may be set to false)" if site.compute.compile else ""
            with explained(f"{site.name}: a step of training on images of {_shape(batch['image'])} fails{compiled}"):
                method.round(State(0, start.weights, {}), ask)
            _segment(settings, federation)
        finally:
            federation.network.load_state_dict(dict(start.weights))
    return TrialStep(site.name, tuple(batch["image"].shape), losses[-1] if losses else float("nan"))


def _check(network: Segmenter, batch: Batch, site: str) -> None:
    """Refuse images that are none for the network, or that are not their labels' size."""
    image, label = batch["image"], batch["label"]
    if image.ndim - 2 != network.spatial_dims:
        raise UserError(
            f"{site}: network_def::spatial_dims is {network.spatial_dims}, and a sample has {image.ndim - 2} spatial "
            f"axes ({_shape(image)}); `slicing` makes slices of volumes"
        )
    if image.shape[1] != network.in_channels:
        raise UserError(
            f"{site}: network_def::in_channels is {network.in_channels}, and a sample has {image.shape[1]} channels "
            f"({_shape(image)}); set in_channels to {image.shape[1]}, or slicing::count to {network.in_channels} where "
            "neighbouring slices are channels"
        )
    if image.shape[2:] != label.shape[2:]:
        raise UserError(
            f"{site}: a sample's image is {_shape(image)} and its label {_shape(label)}; name both keys in the "
            "transforms that change sizes"
        )


def _segment(settings: Settings, federation: Federation) -> None:
    """Segment a training case, and compare the mask's size with the label's."""
    site, network = federation.sites[0], federation.network
    segmentation = build_segmentation(settings, site.compute)
    inferer = segmentation.inferer
    if isinstance(inferer, NeighbouringSlicesInferer) and inferer.count != network.in_channels:
        raise UserError(
            f"inferer::count is {inferer.count} and network_def::in_channels is {network.in_channels}: "
            "they are one number, which is also that of slicing::count"
        )
    name, data = next(
        (name, data) for name, data in sorted(federation.data.items()) if data.split("train", settings.fold)
    )
    item = data.items("train", settings.fold)[0]
    network.eval()
    with explained(f"{name}: segmenting {item['image']} fails"), site.compute.inference():
        mask, label = segmentation.mask(network, segmentation.prepare(item)), segmentation.reference(item)
    if mask.shape != label.shape:
        raise UserError(
            f"{item['image']}: its mask is {tuple(mask.shape)} and its label {tuple(label.shape)}; `postprocessing` "
            "must undo `preprocessing` with Invertd"
        )


def _shape(tensor: Tensor) -> str:
    """A sample's channels and size."""
    return " x ".join(map(str, tensor.shape[1:]))
