"""Evaluate: score a trained run on the cases of a site list."""

from pathlib import Path

from fedbcs_monai.data import read_sites
from fedbcs_monai.errors import UserError
from fedbcs_monai.evaluation.cases import CaseScore, CaseScorer
from fedbcs_monai.federated.setup import build_segmentation
from fedbcs_monai.federated.trained import load_trained
from fedbcs_monai.federated.watch import Watch


def evaluate(
    run: Path,
    *,
    sites: Path | None = None,
    part: str = "test",
    fold: int | None = None,
    model: str = "selected",
    device: str = "auto",
    watch: Watch | None = None,
) -> dict[str, list[CaseScore]]:
    """Every score of every case that has a label, on its own grid.

    Args:
        run: run folder, or a file of weights beside its ``config.json``.
        sites: site list; None: the run's own.
        part: ``train``, ``val`` or ``test``.
        fold: of the site list; None: the run's own.
        model: ``selected`` or ``last``.
        device: see `Compute`.
        watch: hears of progress.
    """
    watch = watch or Watch()
    config, network, compute, _ = load_trained(run, model, device)
    segmentation = build_segmentation(config, compute)
    scores: dict[str, list[CaseScore]] = {}
    for name, site in sorted(read_sites(Path(sites or config["sites"])).items()):
        items = [item for item in site.items(part, config["fold"] if fold is None else fold) if "label" in item]
        if items:
            watch.note(f"scoring {name}")
            with compute.inference():
                scores[name] = CaseScorer(segmentation, items).scores(network)
    if not scores:
        raise UserError(f"{sites or config['sites']}: no labelled {part} cases to score; choose another --part")
    return scores
