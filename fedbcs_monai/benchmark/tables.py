"""Tables: the measured values of one task as the paper's tables, next to the published ones."""

import math

from fedbcs_monai.benchmark.published import published
from fedbcs_monai.benchmark.results import TaskResults
from fedbcs_monai.metrics.tables import Column, Table, Value, mean_sd, site_means, with_columns
from fedbcs_monai.report.groups import MethodGroup
from fedbcs_monai.report.scoreboard import Titled, result_tables, rounds_table
from fedbcs_monai.report.summary import Comparison, seeds_said
from fedbcs_monai.runs.reader import Run

ABLATION = {
    (False, False): "neither",
    (True, False): "CDPA",
    (False, True): "FSR",
    (True, True): "CDPA and FSR",
}
"""How a published row is called, by whether CDPA and FSR are in."""


def comparison(results: TaskResults) -> list[Titled]:
    """Table 1: Dice of every method and bound at every site, with the published averages; then the published table."""
    if not results.methods.scored:
        return []
    dice = result_tables(results.methods, results.bounds, results.fedavg)[0]
    found = published("comparison", results.name)
    if found is None:
        return [dice._replace(title="Table 1. Foreground Dice, %")]
    table = found.beside(dice.table, "FedAvg", lambda row: str(row[0]))
    return [dice._replace(title="Table 1. Foreground Dice, %", table=table), found.printed("published", "Method")]


def other_scores(results: TaskResults) -> list[Titled]:
    """Distances, Dice of single slices, and what the choice of the round does."""
    if not results.methods.scored:
        return []
    note = (
        "AVG Dice, %: of the validation cases, and of the test cases with three choices of the round. A round that was "
        "chosen on the test cases is optimistic; no table here uses it."
    )
    rounds = Titled("rounds", "Which round's weights", rounds_table(results.methods), note)
    return [*result_tables(results.methods, results.bounds, results.fedavg)[1:], rounds]


def ablation(results: TaskResults) -> list[Titled]:
    """Table 2: style recalibration and prototype alignment, each with and without the other."""
    if not results.ablation.scored:
        return []
    parts = {group.label: parts_of(group) for group in results.ablation.scored}
    dice = result_tables(results.ablation)[0]
    table = with_columns(
        dice.table,
        1,
        (Column("CDPA"), Column("FSR")),
        lambda row: tuple("✓" if there else "" for there in parts[str(row[0])]),
    )
    title = "Table 2. Prototype alignment (CDPA) and style recalibration (FSR), Dice in %"
    found = published("ablation", results.name)
    if found is None:
        return [dice._replace(key="ablation", title=title, table=table)]
    table = found.beside(table, "neither", lambda row: ABLATION[parts[str(row[0])]])
    return [
        dice._replace(key="ablation", title=title, table=table),
        found.printed("published_ablation", "Parts"),
    ]


def parts_of(group: MethodGroup) -> tuple[bool, bool]:
    """Whether an arm aligns prototypes (CDPA), and whether its network recalibrates style (FSR)."""
    network = group.runs[0].config["network_def"]
    return bool(network.get("context")), bool(network.get("recalibrate") or network.get("recalibrate_decoder"))


def sweep(results: TaskResults) -> list[Titled]:
    """Figure 3 in numbers: Dice under every value, and below what it is compared with."""
    if not results.swept.scored:
        return []
    dice = result_tables(results.swept, [results.base] if results.base else [], results.base)[0]
    return [dice._replace(key="sweep", title=f"Figure 3 in numbers. Dice in % by {results.sweep_key}")]


def style(results: TaskResults) -> list[Titled]:
    """Figure 4 b in numbers."""
    if not results.style.scored:
        return []
    dice = result_tables(results.style)[0]
    return [dice._replace(key="style", title="Figure 4 b in numbers. Where style is normalised, Dice in %")]


def cost(results: TaskResults) -> list[Titled]:
    """Fairness between sites, and what a training takes."""
    if not results.methods.scored:
        return []
    columns = (
        Column("Method"),
        Column("SD over sites, points"),
        Column("Best − worst site, points"),
        Column("Training, minutes", "low"),
        Column("Peak memory, MiB", "low", 0),
    )

    def row(group: MethodGroup) -> tuple[Value, ...]:
        means = [_trained_means(run, results.methods) for run in group.scored]
        summaries = [run.summary for run in group.scored if run.summary]
        return (
            group.label,
            mean_sd(100 * mean_sd(of_run.values()).sd for of_run in means),
            mean_sd(100 * (max(of_run.values()) - min(of_run.values())) for of_run in means),
            mean_sd(summary.seconds / 60 for summary in summaries),
            mean_sd(summary.peak_bytes / 2**20 for summary in summaries),
        )

    table = Table(columns, tuple(map(row, results.methods.scored)), tuple(map(row, results.bounds)))
    note = (
        "Spread of the trained sites' mean Dice, not ranked: sites may be alike and all poor. Time includes validation "
        "and depends on what else the machine did; memory is the GPU's, or that of the whole process on a CPU. "
        + seeds_said([*results.methods.scored, *results.bounds])
    )
    return [Titled("cost", "Fairness and cost", table, note)]


def _trained_means(run: Run, compared: Comparison) -> dict[str, float]:
    means = site_means(run.scores["selected", "dice"])
    return {site: means.get(site, math.nan) for site in compared.trained}
