"""Report page: write run folders as one self-contained HTML file."""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment

from fedbcs_monai.errors import UserError
from fedbcs_monai.html import templates, write_html
from fedbcs_monai.metrics.tables import Table
from fedbcs_monai.report.comparable import check_comparable
from fedbcs_monai.report.groups import group
from fedbcs_monai.report.pictures import overlays, sites
from fedbcs_monai.report.provenance import ran, settings
from fedbcs_monai.report.scoreboard import result_tables, rounds_table, with_notes
from fedbcs_monai.report.summary import Comparison, headline
from fedbcs_monai.runs.reader import Run, read_run, runs_in

if TYPE_CHECKING:
    from fedbcs_monai.report.drawing import Drawing


def write_report(
    runs: Sequence[Path],
    output: Path,
    *,
    title: str | None = None,
    commands: Sequence[tuple[str, str]] = (),
    notes: Sequence[str] = (),
    figures: Path | None = None,
) -> Path:
    """Write one self-contained HTML page about one or several runs of the same sites.

    Runs of one method that differ only by seed or fold are shown together, as mean ± standard deviation. Unfinished
    runs appear in the curves. FedAvg, if it is among the runs, is what the others are measured against, otherwise the
    first run is.

    Args:
        runs: run folders, as training writes them, or the folder of a benchmark, which stands for all runs in it.
        output: the page; it appears whole or not at all.
        title: the heading; by default it names the task.
        commands: pairs of what a command does and the command, for the section "Go on".
        notes: sentences to print under the verdict, for instance that the images are synthetic.
        figures: a folder for every figure as PDF, SVG and PNG; None: they are in the page alone.

    Returns:
        `output`.

    Raises:
        UserError: a folder that is not a run, a damaged file, or runs that cannot be compared.
    """
    if not runs:
        raise UserError("There is nothing to report: name at least one run folder.")
    runs = [run for folder in runs for run in runs_in(Path(folder))]
    repeated = {folder for folder in runs if sum(folder.resolve() == other.resolve() for other in runs) > 1}
    if repeated:
        raise UserError(f"{min(repeated)} is named more than once: a run counts once. Leave the repeats out.")
    read = [read_run(folder) for folder in runs]
    check_comparable(read)
    drawn = _drawn(_compared(read))
    html = render(read, drawn, title=title, commands=commands, notes=notes)
    write_html(output, html)
    if figures is not None:
        from fedbcs_monai.report.drawing import write_figures

        write_figures(figures, drawn)
    return output


def render(
    runs: Sequence[Run],
    drawn: Sequence["Drawing"],
    *,
    title: str | None,
    commands: Sequence[tuple[str, str]],
    notes: Sequence[str],
) -> str:
    """The page as text."""
    groups = group(runs)
    compared = _compared(runs)
    ordered = [run for group in groups for run in group.runs]
    template = report_templates().get_template("page.html")
    return template.render(
        title=title or _title(runs),
        headline=headline(compared),
        notes=[*notes, *_unfinished(runs), *_absences(runs), *_refusals(runs)],
        commands=commands,
        groups=groups,
        sites=sites(compared, runs),
        several=len(compared.scored) > 1,
        repeated=any(len(group.scored) > 1 for group in groups),
        tables=[with_notes(table) for table in result_tables(compared)] if compared.scored else [],
        rounds_table=rounds_table(compared) if compared.scored else None,
        figures={drawing.key: drawing for drawing in drawn},
        overlays=overlays(compared),
        ran=ran(groups),
        settings=settings([run.config for run in ordered]),
        versions=settings([run.environment for run in ordered]),
        labels=[f"{row.label}, seed {row.seed}" for row in ran(groups)],
        run_commands=list(dict.fromkeys(str(run.environment.get("command", "")) for run in ordered)),
    )


def _drawn(compared: Comparison) -> list["Drawing"]:
    """The figures; importing what draws them takes a second, which commands that draw nothing save."""
    from fedbcs_monai.report.figures import comparison_figures

    return comparison_figures(compared)


def _compared(runs: Sequence[Run]) -> Comparison:
    finished = next((run for run in runs if run.summary), None)
    names = finished.sites if finished else tuple(dict.fromkeys(site for run in runs for site in run.sites))
    return Comparison(group(runs), names, finished.unseen if finished else ())


def _title(runs: Sequence[Run]) -> str:
    task = next((run.summary.task for run in runs if run.summary), "")
    return f"Federated segmentation: {task}" if task else "Federated segmentation"


def _unfinished(runs: Sequence[Run]) -> list[str]:
    return [
        f"{run.folder.name} is not finished ({run.rounds_done} of {run.config.get('rounds', '?')} rounds): "
        "it appears in the curves only."
        for run in runs
        if not run.summary and any(other.summary for other in runs)
    ]


def _absences(runs: Sequence[Run]) -> list[str]:
    """Which sites did not take part in which rounds."""
    return [
        f"{run.name}: {site} took part in no round."
        if len(missed) == run.rounds_done
        else f"{run.name}: {site} did not take part in {'rounds' if len(missed) > 1 else 'round'} {spans(missed)}."
        for run in runs
        for site, missed in run.absent.items()
    ]


def _refusals(runs: Sequence[Run]) -> list[str]:
    """Which sites' answers were not accepted, and why."""
    return [
        f"{run.name}: {site} was refused in {'rounds' if len(rounds) > 1 else 'round'} {spans(rounds)}: {reason}."
        for run in runs
        if run.summary
        for site, reasons in run.summary.refused.items()
        for reason, rounds in reasons.items()
    ]


def spans(numbers: Sequence[int]) -> str:
    """Ascending numbers, those in a row as one.

    >>> spans([2, 5, 6, 7])
    '2, 5 to 7'
    """
    firsts = [n for n in numbers if n - 1 not in numbers]
    lasts = [n for n in numbers if n + 1 not in numbers]
    return ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in zip(firsts, lasts, strict=True))


def report_templates(*rooms: str) -> Environment:
    """The templates of this room."""
    environment = templates("report", *rooms)
    environment.filters["csv_uri"] = _csv_uri
    return environment


def _csv_uri(table: Table) -> str:
    return "data:text/csv;charset=utf-8;base64," + base64.b64encode(table.to_csv().encode()).decode("ascii")
