"""Training: train and test a configuration and write its report, as ``fedbcs train`` does."""

from pathlib import Path

from fedbcs_monai.backends.local import train as train_in_process
from fedbcs_monai.federated.callbacks import Callbacks
from fedbcs_monai.progress import RichProgress
from fedbcs_monai.report import write_report
from fedbcs_monai.settings import Settings


def train(
    settings: Settings,
    *,
    resume: bool | int = False,
    overwrite: bool = False,
    progress: bool = True,
    callbacks: Callbacks | None = None,
) -> Path:
    """Train a federation in this process, test it, and write its report.

    The model is selected on validation cases, the unweighted mean over sites; the test cases are scored once, at the
    end, for the last round and the selected one. With `best_on_test` they are also followed, only to report what the
    published code reports. Interrupted, it leaves a checkpoint to resume from, and a resumed run gives the same bits.

    Args:
        settings: of `load_config`.
        resume: resume from the newest checkpoint in the run folder, or from that of a round.
        overwrite: replace a run that the folder holds.
        progress: show bars on a terminal or in a notebook, and plain lines elsewhere.
        callbacks: receives the progress instead.

    Returns:
        The run folder: ``report.html``, ``model.safetensors`` (selected) and beside it what is known of the sites'
        cases, ``last.safetensors``, ``config.json``, ``environment.json``, ``rounds.csv``, ``scores.csv``,
        ``summary.json``, ``checkpoints``, ``tensorboard``, ``examples``, ``looks``, and ``sites`` with what sites keep
        of the network to themselves.

    Raises:
        UserError: what the user can correct.
    """
    if callbacks is None and progress:
        callbacks = RichProgress()
    folder = train_in_process(settings, resume=resume, overwrite=overwrite, callbacks=callbacks)
    write_report([folder], folder / "report.html")
    return folder
