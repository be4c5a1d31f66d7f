"""Local backend: train a federation with all sites in this process, one after the other."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from msgspec.structs import replace
from torch import Tensor

from fedbcs_monai.data import SiteData
from fedbcs_monai.errors import UserError
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.federated.messages import Ask, Broadcast, State, Update
from fedbcs_monai.federated.server import aggregator_of
from fedbcs_monai.federated.session import ClientSession
from fedbcs_monai.metrics.cases import CaseScore
from fedbcs_monai.ood.distance import SiteStyle
from fedbcs_monai.ood.exchange import learn_site_styles
from fedbcs_monai.ood.file import write_site_styles
from fedbcs_monai.runs.dry_run import TrialStep, few_cases, try_one_step
from fedbcs_monai.runs.loop import Run, open_run, private
from fedbcs_monai.runs.model_io import WEIGHTS, digest_model, private_at, tensors_at, write_model
from fedbcs_monai.runs.process import prepare_training
from fedbcs_monai.runs.schema import Counts, ModelScore
from fedbcs_monai.runs.setup import Federation, require_all, set_up, sites_of
from fedbcs_monai.runs.writer import check_folder
from fedbcs_monai.settings import Settings, require
from fedbcs_monai.tensors import read_tensors


def sessions_of(federation: Federation) -> list[ClientSession]:
    """A session for every site that trains."""
    return [ClientSession(federation.method, site) for site in federation.sites]


def ask_in_process(sessions: Sequence[ClientSession]) -> Ask:
    """Carry a broadcast to every site by calling it."""

    def ask(broadcast: Broadcast) -> Iterable[Update]:
        for session in sessions:
            yield session.answer(broadcast)

    return ask


def train(
    settings: Settings,
    *,
    resume: bool | int = False,
    overwrite: bool = False,
    callbacks: Callbacks | None = None,
) -> Path:
    """Run a federation in this process, from the site list to tested models.

    The model is selected on validation cases, the unweighted mean over sites; the test cases are scored once, at the
    end, for the last round and the selected one. With `best_on_test` they are also followed, only to report what the
    published code reports. Interrupted, it leaves a checkpoint to resume from, and a resumed run gives the same bits.

    Args:
        settings: of `load_config`.
        resume: resume from the newest checkpoint in the run folder, or from that of a given round.
        overwrite: replace a run that the folder holds.
        callbacks: receives the progress.

    Returns:
        The run folder: ``model.safetensors`` (selected) and beside it what is known of the sites' cases,
        ``last.safetensors``, ``config.json``, ``environment.json``, ``rounds.csv``, ``scores.csv``, ``summary.json``,
        ``checkpoints``, ``tensorboard``, ``examples``, ``looks``, ``sites`` with what sites keep of the network to
        themselves, and ``prototypes.safetensors`` of methods that have some.

    Raises:
        UserError: what the user can correct.
    """
    callbacks = callbacks or Callbacks()
    require(settings, ("output",), "name a run folder")
    folder = Path(settings.output)
    if overwrite and resume is not False:
        raise UserError("resume continues a run and overwrite replaces it: choose one")
    check_folder(folder, overwrite, resume is not False)
    prepare_training(settings)
    federation = set_up(settings, callbacks)
    try_one_step(settings, federation, [site.cases for site in federation.sites])
    method, sites, sessions = federation.method, federation.sites, sessions_of(federation)
    run = open_run(settings, federation.start, sites[0].compute.torch_device, resume, callbacks)
    try:
        for session in sessions:
            session.restore(run.point.sites.get(session.site.name, {}))
        run.sent = {}  # all sites are here
        callbacks.on_train_begin(folder, settings.rounds, run.point.state.round, {s.name: s.steps for s in sites})
        aggregator = aggregator_of(method, federation.network, run.point.state)
        aggregator.sites = {site.name for site in sites}
        aggregator.history.counts = {site.name: {"cases": float(site.cases)} for site in sites}

        def kept() -> dict[str, dict[str, Tensor]]:
            for session in sessions:
                session.go_back(aggregator.history.refused)
            return {session.site.name: session.state() for session in sessions}

        run.rounds(aggregator, ask_in_process(sessions), kept)
        _test(settings, federation, run)
        learn_in_process(federation, folder / WEIGHTS["selected"], run.point.history["best"]["round"])
    finally:
        callbacks.on_train_end()
        run.close()
    return folder


class Plan(NamedTuple):
    """What a training would do.

    Args:
        federation: with a few cases of one site.
        trial: the step that was made there.
        data: every site.
    """

    federation: Federation
    trial: TrialStep
    data: Mapping[str, SiteData]


def plan_training(
    settings: Settings, *, resume: bool | int = False, overwrite: bool = False, callbacks: Callbacks | None = None
) -> Plan:
    """Build all that `train` would, make one step at one site on a few of its cases, and write nothing.

    Args:
        settings: as for `train`.
        resume: as for `train`.
        overwrite: as for `train`.
        callbacks: receives the progress.

    Raises:
        UserError: what the user can correct, as from `train`.
    """
    require(settings, ("output",), "name a run folder")
    check_folder(Path(settings.output), overwrite, resume is not False)
    require(settings, ("sites",), "`fedbcs sites FOLDER` writes a site list; name it with --sites")
    require_all(settings)
    data = sites_of(settings)
    few = replace(settings, cache=True, workers=0, fold=0)
    prepare_training(few)
    federation = set_up(few, callbacks, few_cases(data, settings.fold))
    single = not settings.slicing  # a case is a sample, so that all are counted without reading them
    counts = (
        [len(site.split("train", settings.fold)) for site in data.values()] if single else [federation.sites[0].cases]
    )
    return Plan(federation, try_one_step(few, federation, filter(None, counts)), data)


def learn_in_process(federation: Federation, weights: Path, round: int = 0) -> dict[str, SiteStyle]:
    """Ask every site how its cases look to trained weights, and write what is known then beside them."""
    for site in federation.sites:
        site.private = private_at(weights, site.name)
    aggregator = aggregator_of(federation.method, federation.network, State(round, read_tensors(weights), {}))
    found = learn_site_styles(aggregator, ask_in_process(sessions_of(federation)))
    write_site_styles(weights, found)
    return found


def _test(settings: Settings, federation: Federation, run: Run) -> None:
    """Score the test cases with the last and the selected model, and write the results."""
    writer = run.writer
    write_model(writer.folder, "last", run.point.state.weights, private(run.point.sites))
    tested: dict[str, list[tuple[str, CaseScore]]] = {}
    scores = []
    for model, file in WEIGHTS.items():
        digest = digest_model(writer.folder / file)
        if digest not in tested:  # the selected model is often the last
            tested[digest] = _scores(writer.folder / file, federation, run, settings.examples)
        scores += [ModelScore(model, name, score) for name, score in tested[digest]]
    if settings.examples:
        for name, scorer in federation.scorers.items():
            writer.write_look(name, scorer.look())
    counts = {
        name: Counts(*(len(site.split(part, settings.fold)) for part in Counts._fields))
        for name, site in federation.data.items()
    }
    trained = [name for name, count in counts.items() if count.train]
    asked = [site.name for site in federation.sites]
    run.finish(type(federation.method).__name__, scores, trained, counts, asked)


def _scores(weights: Path, federation: Federation, run: Run, examples: int) -> list[tuple[str, CaseScore]]:
    """Score every site's test cases with a model, and keep pictures of the selected one's.

    A site's cases are scored with the network as the site uses it, under what it keeps to itself. Where nothing was
    shared there is no network for a site that did not train: it has no scores.
    """
    network, scores = federation.network, []
    for name, scorer in federation.scorers.items():
        tensors = tensors_at(weights, name)
        if not tensors:
            continue
        network.load_state_dict(tensors)
        network.eval()
        run.callbacks.note(f"testing {name} with {weights.name}")
        with federation.sites[0].compute.inference():
            scores += [(name, score) for score in scorer.scores(network)]
            if weights.name == WEIGHTS["selected"]:
                run.writer.write_examples(name, scorer.examples(network, examples))
    return scores
