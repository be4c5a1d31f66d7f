"""Setup: build the network, the method and the sites of a federation from its settings."""

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from msgspec.structs import replace
from torch import Tensor, nn
from torch.optim import Optimizer

from fedbcs_monai.components import build, components
from fedbcs_monai.data import Pooled, Samples, SiteData, batches, read_sites
from fedbcs_monai.data.sites import PARTS
from fedbcs_monai.errors import UserError, explained
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.federated.client_store import ClientStore
from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.federated.messages import State
from fedbcs_monai.federated.method import Batch
from fedbcs_monai.federated.server import Aggregator, aggregator_of
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.federated.site import Site
from fedbcs_monai.methods import Method
from fedbcs_monai.metrics.cases import CaseScorer, Segmentation
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.ood.exchange import styles_of
from fedbcs_monai.settings import ONE_STRUCTURE, Component, Settings, keys_that, require
from fedbcs_monai.tensors import Tensors, detached

POOLED = "pooled"
"""Name of the one place that trains on the cases of all sites."""

SITE = "site"
"""What `centralized` is where that place makes as many steps as one site."""

_BY_SKIMAGE = ("KeepLargestConnectedComponentd", "RemoveSmallObjectsd")


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


def set_up(
    settings: Settings, callbacks: Callbacks | None = None, data: Mapping[str, SiteData] | None = None
) -> Federation:
    """Build everything that a federation in one process needs; reads the training cases.

    Args:
        settings: of `load_config`.
        callbacks: receives the progress.
        data: the sites, instead of those of the site list.

    Raises:
        UserError: a key that is missing or wrong, or data that cannot be trained on.
    """
    callbacks = callbacks or Callbacks()
    require(settings, ("sites",), "`fedbcs sites FOLDER` writes a site list; name it with --sites")
    require_all(settings)
    data = sites_of(settings) if data is None else data
    method = method_of(settings)
    pool = pooling(settings)
    compute = compute_of(settings)
    network = build_network(settings, compute)
    if pool and method.private(network):
        raise UserError(
            f"centralized trains in one place, and {type(method).__name__} keeps tensors at sites; use FedAvg"
        )
    segmentation = build_segmentation(settings, compute)
    parts = {
        part: {name: CaseScorer(segmentation, site.items(part, settings.fold)) for name, site in data.items()}
        for part in ("val", "test")
    }
    training = [site for _, site in sorted(data.items()) if site.split("train", settings.fold)]
    if not training:
        raise UserError(f"{settings.sites}: no site has training cases")
    samples: dict[str, Samples] = {}
    for site in training:
        callbacks.note(f"reading {site.name}")
        samples[site.name] = samples_of(settings, site)
    followed = ("val", "test") if settings.best_on_test else ("val",)
    scorers = {name: {part: parts[part][name] for part in followed} for name in samples}
    if pool is None:
        styles = {name: styles_from(settings, segmentation, [data[name]]) for name in samples}
        sites = [
            build_site(settings, name, read, network, compute, [scorers[name]], styles[name], callbacks)
            for name, read in samples.items()
        ]
    else:
        pooled = pool(list(samples.values()))
        of_all = styles_from(settings, segmentation, training)
        sites = [build_site(settings, POOLED, pooled, network, compute, list(scorers.values()), of_all, callbacks)]
    tested = {name: scorer for name, scorer in parts["test"].items() if scorer.items}
    return Federation(method, network, tuple(sites), tested, data)


def set_up_site(
    settings: Settings,
    name: str,
    callbacks: Callbacks | None = None,
    *,
    states: Path | None = None,
    case_scores: bool = False,
) -> ClientSession:
    """Build one site of a federation, where the others are elsewhere; reads its training cases.

    Args:
        settings: of `load_config`.
        name: of the site.
        callbacks: receives the progress.
        states: folder for what the site keeps from round to round; None keeps it in memory alone.
        case_scores: whether to send the scores of single test cases, without names, besides their means.

    Raises:
        UserError: a key that is missing or wrong, or a site that is not in the list.
    """
    require_all(settings)
    data = sites_of(replace(settings, leave_out=name if settings.leave_out == name else ""))
    if name not in data:
        raise UserError(f"{settings.sites}: there is no site {name!r}; there are: {', '.join(sorted(data))}")
    compute = compute_of(settings)
    network = build_network(settings, compute)
    segmentation = build_segmentation(settings, compute)
    parts = {part: CaseScorer(segmentation, data[name].items(part, settings.fold)) for part in ("val", "test")}
    followed = {part: parts[part] for part in (("val", "test") if settings.best_on_test else ("val",))}
    samples = samples_of(settings, data[name])
    styles = styles_from(settings, segmentation, [data[name]])
    site = build_site(settings, name, samples, network, compute, [followed], styles, callbacks or Callbacks())
    counts = {part: len(data[name].split(part, settings.fold)) for part in PARTS}
    store = ClientStore(states, settings.checkpoint_every) if states else None
    return ClientSession(method_of(settings), site, counts, parts["test"].scores, store, case_scores)


def set_up_server(settings: Settings) -> Aggregator:
    """Build the server's half of a federation: on the CPU, and without any data.

    Raises:
        UserError: a key that is missing or wrong.
    """
    require_all(settings)
    network = build_network(settings, compute_of(replace(settings, device="cpu", compile=False)))
    method = method_of(settings)
    return aggregator_of(method, network, State(0, detached(network.state_dict()), {}))


def require_all(settings: Settings) -> None:
    """Refuse settings that lack a component of the task.

    Raises:
        UserError: which, and where they are.
    """
    needed = (*keys_that("needed", "predict"), *keys_that("needed", "train"))
    require(settings, needed, "put bundle/configs/train.json into its `stack`")


def method_of(settings: Settings) -> Method:
    """The configured method.

    Raises:
        UserError: it is none.
    """
    method = build(settings, "method")
    if not isinstance(method, Method):
        raise UserError(f"method: {_described(settings.method)} is not a federated method; name one, such as FedAvg")
    return method


def _described(content: Any) -> str:
    return str(content.get("_target_", content) if isinstance(content, Mapping) else content)


def sites_of(settings: Settings) -> dict[str, SiteData]:
    """The site list; of a site that is left out every case that has a label is a test case.

    Raises:
        UserError: the site that is left out is not in the list, or has no labels to be tested against.
    """
    data = read_sites(Path(settings.sites))
    name = settings.leave_out
    if not name:
        return data
    if name not in data:
        raise UserError(f"leave_out is {name!r}: the sites of {settings.sites} are {', '.join(sorted(data))}")
    cases = tuple(dataclasses.replace(case, split="test") for case in data[name].cases if case.label is not None)
    if not cases:
        raise UserError(f"leave_out is {name!r}: no case of it in {settings.sites} has a label to be tested against")
    return {**data, name: dataclasses.replace(data[name], cases=cases)}


def build_site(
    settings: Settings,
    name: str,
    samples: Samples | Pooled,
    network: Segmenter,
    compute: Compute,
    scorers: Sequence[Mapping[str, CaseScorer]],
    styles: Callable[[Segmenter], Tensor],
    callbacks: Callbacks,
) -> Site:
    """One site of the federation, or all in one place.

    Args:
        settings: of `load_config`.
        name: of the site.
        samples: to train on.
        network: shared with other sites of this process.
        compute: device and precision.
        scorers: of every site whose cases are here, a `CaseScorer` for each followed part.
        styles: of `styles_from`.
        callbacks: receives the progress.
    """
    return Site(
        name=name,
        network=network,
        batches=epochs_of(samples, settings, compute),
        cases=len(samples),
        criterion=build(settings, "loss"),
        optimizer=optimizer_of(settings),
        schedule=schedule_of(settings),
        scores=partial(mean_dices, scorers),
        styles=styles,
        epochs=settings.epochs,
        steps=len(samples.batch_sizes(settings.batch_size)) * settings.epochs,
        seed=settings.seed,
        reset_optimizer=settings.reset_optimizer,
        compute=compute,
        on_step=partial(callbacks.on_step_end, name),
    )


def styles_from(
    settings: Settings, segmentation: Segmentation, sites: Iterable[SiteData]
) -> Callable[[Segmenter], Tensor]:
    """From a network to the styles of the cases that sites train and select with; of none without `ood`."""
    parts = ("train", "val") if settings.ood else ()
    items = [item for site in sites for part in parts for item in site.items(part, settings.fold)]
    return partial(styles_of, segmentation, items)


def samples_of(settings: Settings, site: SiteData) -> Samples:
    """A site's training samples, read.

    Raises:
        UserError: what goes wrong with a transform, or cases of which `slicing` leaves no sample.
    """
    items, (preprocessing, slicing, augmentation) = site.items("train", settings.fold), transforms_of(settings)
    with explained(f"{site.name}: its cases do not go through `preprocessing` and `slicing`"):
        samples = Samples(items, preprocessing, slicing, augmentation, cache=settings.cache, seed=settings.seed)
    if items and not samples:
        raise UserError(f"{site.name}: `slicing` leaves no sample of {len(items)} training cases; are labels empty?")
    return samples


def transforms_of(settings: Settings) -> list[Any]:
    """`preprocessing`, `slicing` and `augmentation`; None where nothing is to be done.

    Raises:
        UserError: one of them is not a transform.
    """
    found = [build(settings, key) for key in ("preprocessing", "slicing", "augmentation")]
    for key, transform in zip(("preprocessing", "slicing", "augmentation"), found, strict=True):
        if transform is not None and not callable(transform):
            raise UserError(
                f"{key}: {_described(getattr(settings, key))} is not a transform; give one, with its `_target_`"
            )
    return found


def pooling(settings: Settings) -> Callable[[Sequence[Samples]], Pooled] | None:
    """How the samples of all sites come into one place; None: they stay at their sites.

    Raises:
        UserError: there is nothing random to draw by.
    """
    if not settings.centralized:
        return None
    if settings.centralized == SITE and not settings.shuffle:
        raise UserError(f"centralized: {SITE} draws some of all samples every epoch, so shuffle must be true")
    return partial(Pooled, steps_of_one=settings.centralized == SITE)


def epochs_of(samples: Samples | Pooled, settings: Settings, compute: Compute) -> Callable[[int], Iterable[Batch]]:
    """From a seed to one epoch of batches."""

    def epoch(seed: int) -> Iterable[Batch]:
        return batches(
            samples,
            settings.batch_size,
            seed,
            shuffle=settings.shuffle,
            workers=settings.workers,
            pin_memory=compute.torch_device.type == "cuda",
        )

    return epoch


def optimizer_of(settings: Settings) -> Callable[[Iterable[Tensor]], Optimizer]:
    """From parameters to the configured optimizer."""

    def optimizer(parameters: Iterable[Tensor]) -> Optimizer:
        made = build(settings, "optimizer", params=list(parameters))
        if not isinstance(made, Optimizer):
            raise UserError(f"optimizer: {_described(settings.optimizer)} is not an optimizer of torch")
        return made

    return optimizer


def schedule_of(settings: Settings) -> Callable[[Optimizer, int], None]:
    """From an optimizer and a round to that round's learning rate, by the configured scheduler.

    The scheduler is built again and stepped up to the round, so that its only state is the number of the round: a run
    that resumes, or a site that joins late, has the same learning rate.

    Raises:
        UserError: the scheduler cannot be built, or needs more than the number of the round.
    """
    if not settings.schedule:
        return lambda optimizer, round: None

    def schedule(optimizer: Optimizer, round: int) -> None:
        scheduler = build(settings, "schedule", optimizer=optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that no optimizer step came before: they were those of earlier rounds
            for _ in range(round - 1):
                scheduler.step()

    try:
        schedule(torch.optim.SGD([torch.zeros(1)], lr=1.0), 2)
    except TypeError as error:
        raise UserError(f"`schedule` must depend on the number of the round alone ({error})") from None
    return schedule


def mean_dices(sites: Sequence[Mapping[str, CaseScorer]], network: nn.Module) -> dict[str, float]:
    """Dice of each part that has cases, ``val_dice`` and ``test_dice``: the mean over sites of the mean over cases."""
    dices: dict[str, list[float]] = {}
    for scorers in sites:
        for part, scorer in scorers.items():
            if scorer.items:
                dices.setdefault(f"{part}_dice", []).append(scorer.mean_dice(network))
    return {part: sum(found) / len(found) for part, found in dices.items()}


def compute_of(settings: Settings) -> Compute:
    """Device and precision of a configuration."""
    return Compute(settings.device, settings.precision, settings.channels_last, settings.compile)


def build_network(settings: Settings, compute: Compute, weights: Tensors | None = None) -> Segmenter:
    """The configured network on its device, with given weights or those that the seed draws."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        network = build(settings, "network_def")
    if not isinstance(network, Segmenter):
        made = _described(settings.network_def)
        raise UserError(f"network_def: {made} does not make a Segmenter; fedbcs_monai.networks.build_segmenter does")
    if network.classes != 2:
        raise UserError(f"network_def has {network.classes} channels of logits: {ONE_STRUCTURE}; build it with 2")
    if weights is not None:
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise UserError(f"these weights are not of this network: {str(error).splitlines()[0]}") from error
    compute.place(network)
    return network


def uses_skimage(postprocessing: Component) -> bool:
    """Whether it needs scikit-image, which nothing else here does."""
    named = (component["_target_"].rpartition(".")[2] for _, component in components(postprocessing))
    return any(name in _BY_SKIMAGE for name in named)


def build_segmentation(settings: Settings, compute: Compute) -> Segmentation:
    """How the configuration makes a mask of a case.

    Raises:
        UserError: what one of its transforms refused, or a package that one needs.
    """
    if uses_skimage(settings.postprocessing) and find_spec("skimage") is None:
        raise UserError("`postprocessing` works on connected components: pip install scikit-image")
    preprocessing = build(settings, "preprocessing")
    return Segmentation(
        reading=build(settings, "reading"),
        preprocessing=preprocessing,
        inferer=build(settings, "inferer"),
        postprocessing=build(settings, "postprocessing", {"preprocessing": preprocessing}),
        device=compute.torch_device,
    )
