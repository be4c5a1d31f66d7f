"""Evaluation: score a trained run on the cases of a site list."""

from collections.abc import Iterable
from pathlib import Path

from fedbcs_monai.allowlist import Trust
from fedbcs_monai.data import read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.metrics.cases import CaseScore, CaseScorer
from fedbcs_monai.runs.model_io import find_weights, keeping_sites, load_trained
from fedbcs_monai.runs.setup import build_segmentation
from fedbcs_monai.settings import require


def evaluate(
    run: Path,
    *,
    sites: Path | None = None,
    part: str = "test",
    fold: int | None = None,
    model: str = "selected",
    device: str = "auto",
    at: str | None = None,
    callbacks: Callbacks | None = None,
    trust: Iterable[str] | Trust = (),
) -> dict[str, list[CaseScore]]:
    """Every score of every case that has a label, on its own grid.

    Args:
        run: run folder, bundle, or a file of weights beside its ``config.json``.
        sites: site list; None: the run's own.
        part: ``train``, ``val`` or ``test``.
        fold: of the site list; None: the run's own.
        model: ``selected`` or ``last``.
        device: see `Compute`.
        at: score every site with the network as this one uses it. None: each with the network as it uses it itself,
            with what it keeps to itself; where nothing was shared, the other sites are left out.
        callbacks: receives the progress.
        trust: as in `load_config`.
    """
    callbacks = callbacks or Callbacks()
    keeping = keeping_sites(find_weights(run, model))
    trained = load_trained(run, model, device, at if at or not keeping else keeping[0], trust)
    segmentation = build_segmentation(trained.settings, trained.compute)
    if sites is None:
        require(trained.settings, ("sites",), "name a site list with --sites")
    list_of_sites, fold = Path(sites or trained.settings.sites), trained.settings.fold if fold is None else fold
    scores: dict[str, list[CaseScore]] = {}
    for name, site in sorted(read_sites(list_of_sites).items()):
        items = [item for item in site.items(part, fold) if "label" in item]
        if not items:
            callbacks.note(f"{name} has no labelled {part} cases: not scored")
            continue
        network = trained.network if at or not keeping else trained.at(name)
        if network is None:
            callbacks.note(f"{name} has no network of its own and none is shared: not scored; --site chooses one")
            continue
        callbacks.note(f"scoring {name}")
        with trained.compute.inference():
            scores[name] = CaseScorer(segmentation, items).scores(network)
    if not scores:
        raise UserError(f"{list_of_sites}: no labelled {part} cases to score; choose another --part")
    return scores
