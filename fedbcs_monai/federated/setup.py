"""Setup: a configuration to a network, a method and the sites of a federation."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedbcs_monai.config import build, require
from fedbcs_monai.data import Samples, SiteData, batches, read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.evaluation.cases import CaseScorer, Segmentation
from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.federated.site import Site
from fedbcs_monai.federated.watch import Watch
from fedbcs_monai.messages import State
from fedbcs_monai.methods import Method
from fedbcs_monai.methods.base import Batch
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.tensors import Tensors, detached

FEDERATION = (
    *("method", "rounds", "epochs", "seed", "fold", "evaluate_every", "best_on_test", "reset_optimizer"),
    *("checkpoint_every", "keep_checkpoints", "examples", "device", "precision", "channels_last", "compile"),
    *("workers", "cache", "shuffle"),
)
TASK = ("network_def", "reading", "preprocessing", "inferer", "postprocessing", "loss", "optimizer", "batch_size")


@dataclass(frozen=True)
class Federation:
    """All that a configuration describes.

    Args:
        method: what runs.
        network: shared by the sites of one process.
        sites: those that train, sorted by name.
        scorers: test cases of every site, also of those that are only tested.
        data: the site list.
    """

    method: Method
    network: Segmenter
    sites: tuple[Site, ...]
    scorers: Mapping[str, CaseScorer]
    data: Mapping[str, SiteData]

    @property
    def start(self) -> State:
        """The server before the first round."""
        return State(0, detached(self.network.state_dict()), {})


def set_up(config: Mapping[str, Any], watch: Watch | None = None) -> Federation:
    """Build everything that a federation in one process needs; reads the training cases.

    Raises:
        UserError: a key that is missing or wrong, or data that cannot be trained on.
    """
    watch = watch or Watch()
    require(config, ("sites",), "`fedbcs sites FOLDER` writes a site list; name it with --sites")
    require(config, FEDERATION, "put configs/federation.yaml into its `stack`")
    require(config, TASK, "put bundle/configs/train.json into its `stack`")
    data = read_sites(Path(config["sites"]))
    compute = compute_of(config)
    network = build_network(config, compute)
    segmentation = build_segmentation(config, compute)
    parts = {
        part: {name: CaseScorer(segmentation, site.items(part, config["fold"])) for name, site in data.items()}
        for part in ("val", "test")
    }
    training = [site for _, site in sorted(data.items()) if site.split("train", config["fold"])]
    if not training:
        raise UserError(f"{config['sites']}: no site has training cases")
    sites = []
    for site in training:
        watch.note(f"reading {site.name}")
        scored = {part: parts[part][site.name] for part in (("val", "test") if config["best_on_test"] else ("val",))}
        sites.append(build_site(config, site, network, compute, scored, watch))
    tested = {name: scorer for name, scorer in parts["test"].items() if scorer.items}
    return Federation(build(config, "method"), network, tuple(sites), tested, data)


def build_site(
    config: Mapping[str, Any],
    data: SiteData,
    network: Segmenter,
    compute: Compute,
    scorers: Mapping[str, CaseScorer],
    watch: Watch,
) -> Site:
    """One site of the federation, with its training samples read."""
    samples = Samples(
        data.items("train", config["fold"]),
        preprocessing=build(config, "preprocessing"),
        slicing=build(config, "slicing") if config.get("slicing") else None,
        augmentation=build(config, "augmentation") if config.get("augmentation") else None,
        cache=config["cache"],
    )
    return Site(
        name=data.name,
        network=network,
        batches=epochs_of(samples, config, compute),
        cases=len(samples),
        criterion=build(config, "loss"),
        optimizer=optimizer_of(config),
        scores=partial(mean_dices, scorers),
        epochs=config["epochs"],
        seed=config["seed"],
        reset_optimizer=config["reset_optimizer"],
        compute=compute,
        heard=partial(watch.stepped, data.name),
    )


def steps_of(site: Site, config: Mapping[str, Any]) -> int:
    """Optimizer steps of a site in one round."""
    return math.ceil(site.cases / int(config["batch_size"])) * site.epochs


def epochs_of(samples: Samples, config: Mapping[str, Any], compute: Compute) -> Callable[[int], Iterable[Batch]]:
    """From a seed to one epoch of batches."""

    def epoch(seed: int) -> Iterable[Batch]:
        return batches(
            samples,
            config["batch_size"],
            seed,
            shuffle=config["shuffle"],
            workers=config["workers"],
            pin_memory=compute.torch_device.type == "cuda",
        )

    return epoch


def optimizer_of(config: Mapping[str, Any]) -> Callable[[Iterable[Tensor]], Optimizer]:
    """From parameters to the configured optimizer."""

    def optimizer(parameters: Iterable[Tensor]) -> Optimizer:
        made: Optimizer = build(config, "optimizer", params=list(parameters))
        return made

    return optimizer


def mean_dices(scorers: Mapping[str, CaseScorer], network: nn.Module) -> dict[str, float]:
    """Mean Dice of each part that has cases: ``val_dice``, ``test_dice``."""
    return {f"{part}_dice": scorer.mean_dice(network) for part, scorer in scorers.items() if scorer.items}


def compute_of(config: Mapping[str, Any]) -> Compute:
    """Device and precision of a configuration; sets torch's number of threads."""
    if config.get("threads"):
        torch.set_num_threads(int(config["threads"]))
    return Compute(config["device"], config["precision"], config["channels_last"], config["compile"])


def build_network(config: Mapping[str, Any], compute: Compute, weights: Tensors | None = None) -> Segmenter:
    """The configured network on its device, with given weights or those that the seed draws."""
    torch.manual_seed(config["seed"])
    network: Segmenter = build(config, "network_def")
    if weights is not None:
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise UserError(f"these weights are not of this network: {str(error).splitlines()[0]}") from error
    compute.place(network)
    return network


def build_segmentation(config: Mapping[str, Any], compute: Compute) -> Segmentation:
    """How the configuration makes a mask of a case."""
    preprocessing = build(config, "preprocessing")
    return Segmentation(
        reading=build(config, "reading"),
        preprocessing=preprocessing,
        inferer=build(config, "inferer"),
        postprocessing=build({**config, "preprocessing": preprocessing}, "postprocessing"),
        device=compute.torch_device,
    )
