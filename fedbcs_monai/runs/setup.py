"""Setup: a configuration to a network, a method and the sites of a federation."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fedbcs_monai.components import build, components
from fedbcs_monai.config import ONE_STRUCTURE, require
from fedbcs_monai.data import Pooled, Samples, SiteData, batches, read_sites
from fedbcs_monai.data.sites import PARTS
from fedbcs_monai.errors import UserError, explained
from fedbcs_monai.federated.callbacks import Watch
from fedbcs_monai.federated.client_store import States
from fedbcs_monai.federated.compute import Compute
from fedbcs_monai.federated.memory import keep_freed_memory
from fedbcs_monai.federated.messages import State
from fedbcs_monai.federated.method import Batch
from fedbcs_monai.federated.server import Aggregator, aggregator_of
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.federated.site import Site
from fedbcs_monai.methods import Method
from fedbcs_monai.metrics.cases import CaseScorer, Segmentation
from fedbcs_monai.networks import Segmenter
from fedbcs_monai.ood.exchange import styles_of
from fedbcs_monai.tensors import Tensors, detached

FEDERATION = (
    *("method", "rounds", "epochs", "seed", "fold", "evaluate_every", "best_on_test", "reset_optimizer"),
    *("checkpoint_every", "keep_checkpoints", "examples", "device", "precision", "channels_last", "compile"),
    *("workers", "cache", "shuffle"),
)
POOLED = "pooled"
"""Name of the one place that trains on the cases of all sites."""

SITE = "site"
"""What `pool` is where that place makes as many steps as one site."""

TASK = ("network_def", "reading", "preprocessing", "inferer", "postprocessing", "loss", "optimizer", "batch_size")

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
    config: Mapping[str, Any], watch: Watch | None = None, data: Mapping[str, SiteData] | None = None
) -> Federation:
    """Build everything that a federation in one process needs; reads the training cases.

    Args:
        config: of `load_config`.
        watch: hears of progress.
        data: the sites, instead of those of the site list.

    Raises:
        UserError: a key that is missing or wrong, or data that cannot be trained on.
    """
    watch = watch or Watch()
    require(config, ("sites",), "`fedbcs sites FOLDER` writes a site list; name it with --sites")
    require_all(config)
    data = sites_of(config) if data is None else data
    method = method_of(config)
    pool = pooling(config)
    compute = compute_of(config)
    network = build_network(config, compute)
    if pool and method.private(network):
        raise UserError(f"pool trains in one place, and {type(method).__name__} keeps tensors at sites; use FedAvg")
    segmentation = build_segmentation(config, compute)
    parts = {
        part: {name: CaseScorer(segmentation, site.items(part, config["fold"])) for name, site in data.items()}
        for part in ("val", "test")
    }
    training = [site for _, site in sorted(data.items()) if site.split("train", config["fold"])]
    if not training:
        raise UserError(f"{config['sites']}: no site has training cases")
    samples: dict[str, Samples] = {}
    for site in training:
        watch.note(f"reading {site.name}")
        samples[site.name] = samples_of(config, site)
    followed = ("val", "test") if config["best_on_test"] else ("val",)
    scorers = {name: {part: parts[part][name] for part in followed} for name in samples}
    if pool is None:
        styles = {name: telling(config, segmentation, [data[name]]) for name in samples}
        sites = [
            build_site(config, name, read, network, compute, [scorers[name]], styles[name], watch)
            for name, read in samples.items()
        ]
    else:
        pooled = pool(list(samples.values()))
        of_all = telling(config, segmentation, training)
        sites = [build_site(config, POOLED, pooled, network, compute, list(scorers.values()), of_all, watch)]
    tested = {name: scorer for name, scorer in parts["test"].items() if scorer.items}
    return Federation(method, network, tuple(sites), tested, data)


def set_up_site(
    config: Mapping[str, Any],
    name: str,
    watch: Watch | None = None,
    *,
    states: Path | None = None,
    case_scores: bool = False,
) -> ClientSession:
    """Build one site of a federation, where the others are elsewhere; reads its training cases.

    Args:
        config: of `load_config`.
        name: of the site.
        watch: hears of progress.
        states: folder for what the site keeps from round to round; None keeps it in memory alone.
        case_scores: whether to send the scores of single test cases, without names, besides their means.

    Raises:
        UserError: a key that is missing or wrong, or a site that is not in the list.
    """
    require_all(config)
    data = sites_of({**config, "leave_out": name if config.get("leave_out") == name else None})
    if name not in data:
        raise UserError(f"{config['sites']}: there is no site {name!r}; there are: {', '.join(sorted(data))}")
    compute = compute_of(config)
    network = build_network(config, compute)
    segmentation = build_segmentation(config, compute)
    parts = {part: CaseScorer(segmentation, data[name].items(part, config["fold"])) for part in ("val", "test")}
    followed = {part: parts[part] for part in (("val", "test") if config["best_on_test"] else ("val",))}
    samples = samples_of(config, data[name])
    styles = telling(config, segmentation, [data[name]])
    site = build_site(config, name, samples, network, compute, [followed], styles, watch or Watch())
    counts = {part: len(data[name].split(part, config["fold"])) for part in PARTS}
    store = States(states, config["checkpoint_every"]) if states else None
    return ClientSession(method_of(config), site, counts, parts["test"].scores, store, case_scores)


def set_up_server(config: Mapping[str, Any]) -> Aggregator:
    """Build the server's half of a federation: on the CPU, and without any data.

    Raises:
        UserError: a key that is missing or wrong.
    """
    require_all(config)
    network = build_network(config, compute_of({**config, "device": "cpu", "compile": False}))
    method = method_of(config)
    return aggregator_of(method, network, State(0, detached(network.state_dict()), {}))


def require_all(config: Mapping[str, Any]) -> None:
    """Refuse a configuration that lacks a key of the federation or of its task.

    Raises:
        UserError: which, and where they are.
    """
    require(config, FEDERATION, "put configs/federation.yaml into its `stack`")
    require(config, TASK, "put bundle/configs/train.json into its `stack`")


def method_of(config: Mapping[str, Any]) -> Method:
    """The configured method.

    Raises:
        UserError: it is none.
    """
    method = build(config, "method")
    if not isinstance(method, Method):
        raise UserError(f"method: {_described(config['method'])} is no federated method; name one, such as FedAvg")
    return method


def _described(content: Any) -> str:
    return str(content.get("_target_", content) if isinstance(content, Mapping) else content)


def sites_of(config: Mapping[str, Any]) -> dict[str, SiteData]:
    """The site list; of a site that is left out every case that has a label is a test case.

    Raises:
        UserError: the site that is left out is not in the list, or has no labels to be tested against.
    """
    data = read_sites(Path(config["sites"]))
    name = config.get("leave_out")
    if name is None:
        return data
    if name not in data:
        raise UserError(f"leave_out is {name!r}: the sites of {config['sites']} are {', '.join(sorted(data))}")
    cases = tuple(replace(case, split="test") for case in data[name].cases if case.label is not None)
    if not cases:
        raise UserError(f"leave_out is {name!r}: no case of it in {config['sites']} has a label to be tested against")
    return {**data, name: replace(data[name], cases=cases)}


def build_site(
    config: Mapping[str, Any],
    name: str,
    samples: Samples | Pooled,
    network: Segmenter,
    compute: Compute,
    scorers: Sequence[Mapping[str, CaseScorer]],
    styles: Callable[[Segmenter], Tensor],
    watch: Watch,
) -> Site:
    """One site of the federation, or all in one place; from then on its process keeps the memory that it frees.

    Args:
        config: of `load_config`.
        name: of the site.
        samples: to train on.
        network: shared with other sites of this process.
        compute: device and precision.
        scorers: of every site whose cases are here, a `CaseScorer` for each followed part.
        styles: of `telling`.
        watch: hears of progress.
    """
    keep_freed_memory()
    return Site(
        name=name,
        network=network,
        batches=epochs_of(samples, config, compute),
        cases=len(samples),
        criterion=build(config, "loss"),
        optimizer=optimizer_of(config),
        schedule=schedule_of(config),
        scores=partial(mean_dices, scorers),
        styles=styles,
        epochs=config["epochs"],
        steps=len(samples.batch_sizes(config["batch_size"])) * config["epochs"],
        seed=config["seed"],
        reset_optimizer=config["reset_optimizer"],
        compute=compute,
        heard=partial(watch.stepped, name),
    )


def telling(
    config: Mapping[str, Any], segmentation: Segmentation, sites: Iterable[SiteData]
) -> Callable[[Segmenter], Tensor]:
    """From a network to the styles of the cases that sites train and select with; of none without `familiarity`."""
    parts = ("train", "val") if config.get("familiarity", True) else ()
    items = [item for site in sites for part in parts for item in site.items(part, config["fold"])]
    return partial(styles_of, segmentation, items)


def samples_of(config: Mapping[str, Any], site: SiteData) -> Samples:
    """A site's training samples, read.

    Raises:
        UserError: what goes wrong with a transform, or cases of which `slicing` leaves no sample.
    """
    items, (preprocessing, slicing, augmentation) = site.items("train", config["fold"]), transforms_of(config)
    with explained(f"{site.name}: its cases do not go through `preprocessing` and `slicing`"):
        samples = Samples(items, preprocessing, slicing, augmentation, cache=config["cache"], seed=config["seed"])
    if items and not samples:
        raise UserError(f"{site.name}: `slicing` leaves no sample of {len(items)} training cases; are labels empty?")
    return samples


def transforms_of(config: Mapping[str, Any]) -> list[Any]:
    """`preprocessing`, `slicing` and `augmentation`; None where nothing is to be done.

    Raises:
        UserError: one of them is no transform.
    """
    found = [build(config, key) if config.get(key) else None for key in ("preprocessing", "slicing", "augmentation")]
    for key, transform in zip(("preprocessing", "slicing", "augmentation"), found, strict=True):
        if transform is not None and not callable(transform):
            raise UserError(f"{key}: {_described(config[key])} is no transform; give one, with its `_target_`")
    return found


def pooling(config: Mapping[str, Any]) -> Callable[[Sequence[Samples]], Pooled] | None:
    """How the samples of all sites come into one place; None: they stay at their sites.

    Raises:
        UserError: `pool` is something else than true or ``site``, or there is nothing random to draw by.
    """
    if not config.get("pool"):
        return None
    if config["pool"] not in (True, SITE):
        raise UserError(f"pool is {config['pool']!r}: give true, or {SITE} for as many steps as one site makes")
    if config["pool"] == SITE and not config["shuffle"]:
        raise UserError(f"pool: {SITE} draws some of all samples every epoch, so shuffle must be true")
    return partial(Pooled, steps_of_one=config["pool"] == SITE)


def epochs_of(
    samples: Samples | Pooled, config: Mapping[str, Any], compute: Compute
) -> Callable[[int], Iterable[Batch]]:
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
        made = build(config, "optimizer", params=list(parameters))
        if not isinstance(made, Optimizer):
            raise UserError(f"optimizer: {_described(config['optimizer'])} is no optimizer of torch")
        return made

    return optimizer


def schedule_of(config: Mapping[str, Any]) -> Callable[[Optimizer, int], None]:
    """From an optimizer and a round to that round's learning rate, by the configured scheduler.

    The scheduler is built anew and stepped up to the round, so that its only state is the number of the round: a run
    that resumes, or a site that joins late, has the same learning rate.

    Raises:
        UserError: the scheduler cannot be built, or needs more than the number of the round.
    """
    if config.get("schedule") is None:
        return lambda optimizer, round: None

    def schedule(optimizer: Optimizer, round: int) -> None:
        scheduler = build(config, "schedule", optimizer=optimizer)
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


def compute_of(config: Mapping[str, Any]) -> Compute:
    """Device and precision of a configuration; sets torch's number of threads."""
    if config.get("threads"):
        torch.set_num_threads(int(config["threads"]))
    return Compute(config["device"], config["precision"], config["channels_last"], config["compile"])


def build_network(config: Mapping[str, Any], compute: Compute, weights: Tensors | None = None) -> Segmenter:
    """The configured network on its device, with given weights or those that the seed draws."""
    torch.manual_seed(config["seed"])
    network = build(config, "network_def")
    if not isinstance(network, Segmenter):
        made = _described(config["network_def"])
        raise UserError(f"network_def: {made} makes no Segmenter; fedbcs_monai.networks.build_segmenter does")
    if network.classes != 2:
        raise UserError(f"network_def has {network.classes} channels of logits: {ONE_STRUCTURE}; build it with 2")
    if weights is not None:
        try:
            network.load_state_dict(dict(weights))
        except RuntimeError as error:
            raise UserError(f"these weights are not of this network: {str(error).splitlines()[0]}") from error
    compute.place(network)
    return network


def uses_skimage(config: Mapping[str, Any]) -> bool:
    """Whether the postprocessing needs scikit-image, which nothing else here does."""
    named = (component["_target_"].rpartition(".")[2] for _, component in components(config["postprocessing"]))
    return any(name in _BY_SKIMAGE for name in named)


def build_segmentation(config: Mapping[str, Any], compute: Compute) -> Segmentation:
    """How the configuration makes a mask of a case.

    Raises:
        UserError: what one of its transforms refused, or a package that one needs.
    """
    if uses_skimage(config) and find_spec("skimage") is None:
        raise UserError("`postprocessing` works on connected components: pip install scikit-image")
    preprocessing = build(config, "preprocessing")
    return Segmentation(
        reading=build(config, "reading"),
        preprocessing=preprocessing,
        inferer=build(config, "inferer"),
        postprocessing=build({**config, "preprocessing": preprocessing}, "postprocessing"),
        device=compute.torch_device,
    )
