"""Benchmark page: all tables and figures as HTML, and the tables as Markdown, CSV and LaTeX beside it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fedbcs_monai.benchmark import tables
from fedbcs_monai.benchmark.communication import communication
from fedbcs_monai.benchmark.files import to_csv, to_latex, to_markdown
from fedbcs_monai.benchmark.leave_one_out import left_out, without_it
from fedbcs_monai.benchmark.plan import BenchmarkPlan
from fedbcs_monai.benchmark.results import TaskResults, read_results
from fedbcs_monai.errors import UserError
from fedbcs_monai.files import write_whole
from fedbcs_monai.html import write_html
from fedbcs_monai.report.groups import REPEATS, MethodGroup, differing, flat
from fedbcs_monai.report.page import report_templates
from fedbcs_monai.report.provenance import Settings, duration, settings
from fedbcs_monai.report.scoreboard import Titled, with_notes
from fedbcs_monai.report.summary import Headline, headline

if TYPE_CHECKING:
    from fedbcs_monai.report.drawing import Drawing

OUTSIDE = Headline("Every method was trained without one site at a time.", "The scores are those of the site left out.")
BELOW = " Below the line, what a federation is compared with, with as many steps in all unless its name says otherwise."
SHOWN_MISSING = 6


class Block(NamedTuple):
    """One question to a task: what is measured, what was published, and figures."""

    id: str
    title: str
    text: str
    tables: Sequence[Titled]
    figures: Sequence["Drawing"] = ()

    @property
    def measured(self) -> list[Titled]:
        """Tables of our own numbers."""
        return [table for table in self.tables if not table.key.startswith("published")]

    @property
    def published(self) -> list[Titled]:
        """Tables of the paper's."""
        return [table for table in self.tables if table.key.startswith("published")]


class Ran(NamedTuple):
    """One row of what was run."""

    label: str
    runs: str
    rounds: str
    time: str
    differs: str


class Task(NamedTuple):
    """A task as the page shows it."""

    name: str
    headline: Headline
    blocks: Sequence[Block]
    ran: Sequence[Ran]
    shared: Settings
    versions: Settings


def write_benchmark(benchmark: BenchmarkPlan) -> list[Path]:
    """Write ``benchmark.html``, ``tables.md``, ``tables.csv`` and ``tables.tex`` from the runs that are finished.

    Returns:
        The four files.

    Raises:
        UserError: no run is finished, a run folder is damaged, or its runs are of other sites.
    """
    every = [read_results(plan) for plan in benchmark.tasks]
    found = [results for results in every if results.runs]
    if not found:
        raise UserError(f"{benchmark.output}: no run is finished, so there is nothing to tabulate")
    tasks = [_task(results) for results in found]
    notes = _notes(benchmark, every)
    by_task = {task.name: [table for block in task.blocks for table in block.tables] for task in tasks}
    page = report_templates("benchmark").get_template("benchmark.html")
    written = {
        "tables.md": to_markdown(benchmark.title, notes, by_task),
        "tables.csv": to_csv(by_task),
        "tables.tex": to_latex(benchmark.title, by_task),
    }
    for name, content in written.items():
        write_whole(benchmark.output / name, content.encode())
    html = benchmark.output / "benchmark.html"
    write_html(html, page.render(title=benchmark.title, notes=notes, tasks=tasks, commands=_commands(found)))
    return [html, *(benchmark.output / name for name in written)]


def _task(results: TaskResults) -> Task:
    return Task(
        results.name,
        headline(results.headline) if results.headline else OUTSIDE,
        [_noted(block) for block in _blocks(results) if block.tables or block.figures],
        _ran(results),
        settings([run.config for run in results.runs]),
        settings([run.environment for run in results.runs]),
    )


def _blocks(results: TaskResults) -> list[Block]:
    """Every question that the runs can answer."""
    from fedbcs_monai.benchmark import figures  # here, because importing what draws takes a second

    return [
        Block(
            "comparison",
            "Methods compared",
            "Test cases scored once, with the weights that did best on validation cases. AVG is the plain mean over "
            "the sites that trained. Best in bold, second underlined, among rows of as many runs as any has; ± is the "
            "standard deviation over runs; in brackets the 95% interval of a paired bootstrap over test cases alone."
            + (BELOW if results.bounds else ""),
            tables.comparison(results),
            figures.overview(results),
        ),
        Block("other", "Distances and rounds", "Surfaces as well as overlap, and how the round was chosen.",
              tables.other_scores(results)),
        Block("ablation", "Parts of FedBCS", "What each part adds alone, and both together.", tables.ablation(results)),
        Block("communication", "Communication", "Counted in the messages themselves, as a site sees them.",
              communication(results)),
        Block("sweep", "One setting varied", "Figure 3: test Dice by its value; dashed, what it is compared with.",
              tables.sweep(results), figures.swept(results)),
        Block("convergence", "Convergence", "Figure 4 a: Dice on the validation cases.", (),
              figures.convergence(results)),
        Block("style", "Where style is normalised", "Figure 4 b: in the image, or in the features behind it.",
              tables.style(results), figures.style(results)),
        Block("outside", "A hospital outside the federation", "Trained without a site, and tested on it.",
              [*left_out(results), *without_it(results)]),
        Block("cost", "Fairness and cost", "", tables.cost(results)),
    ]  # fmt: skip


def _noted(block: Block) -> Block:
    return block._replace(tables=[t if t.key.startswith("published") else with_notes(t) for t in block.tables])


def _ran(results: TaskResults) -> list[Ran]:
    """Every row, and the settings in which it departs from FedAvg."""
    base = results.fedavg or next(iter(results.groups), None)
    return [_row(group, base) for group in results.groups if base]


def _row(group: MethodGroup, base: MethodGroup) -> Ran:
    differ = differing([flat(one.runs[0].config) for one in (base, group)])
    own = {key: both[1] for key, both in differ.items() if key not in REPEATS | {"name"}}
    summaries = [run.summary for run in group.scored if run.summary]
    return Ran(
        group.label,
        ", ".join(dict.fromkeys(f"seed {run.config['seed']}" for run in group.runs)),
        ", ".join(dict.fromkeys(str(summary.rounds) for summary in summaries)),
        ", ".join(duration(summary.seconds) for summary in summaries),
        ", ".join(f"{key.replace('method._target_', 'method')} {_short(value)}" for key, value in own.items()) or "–",
    )


def _short(value: object) -> str:
    return str(value).rpartition("fedbcs_monai.methods.")[2]


def _notes(benchmark: BenchmarkPlan, every: Sequence[TaskResults]) -> list[str]:
    missing = [name for results in every for name in results.missing]
    if not missing:
        return []
    more = f" and {len(missing) - SHOWN_MISSING} more" if len(missing) > SHOWN_MISSING else ""
    return [
        f"{len(missing)} of {len(benchmark.runs)} runs are not finished: {', '.join(missing[:SHOWN_MISSING])}{more}."
    ]


def _commands(found: Sequence[TaskResults]) -> list[str]:
    said = (str(run.environment.get("command", "")) for results in found for run in results.runs)
    return [command for command in dict.fromkeys(said) if command]
