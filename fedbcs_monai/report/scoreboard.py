"""Result tables of the report."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

from fedbcs_monai.metrics.plateau import MAX_LATE_GAIN, still_rises
from fedbcs_monai.metrics.tables import Column, Spread, Table, Value, mean_sd, site_means, text, worst_site
from fedbcs_monai.report.groups import MethodGroup, baseline
from fedbcs_monai.report.summary import Comparison, gain, seeds_said
from fedbcs_monai.runs.reader import Run


class Metric(NamedTuple):
    """How a column of `scores.csv` is written: its name, its unit, the factor to that unit and what is better."""

    key: str
    title: str
    scale: float
    higher_is_better: bool
    digits: int


DICE = Metric("dice", "Dice, %", 100, True, 1)
SLICE_DICE = Metric("slice_dice", "Dice of single slices, %", 100, True, 1)
DISTANCES = (
    Metric("hd95_mm", "95th-percentile Hausdorff distance (HD95), mm", 1, False, 2),
    Metric("assd_mm", "Average symmetric surface distance (ASSD), mm", 1, False, 2),
)


UNEVEN = "Not every row has the same seeds: a difference to {} is taken over those that both have."
APART = "No seed in common with {}: {}; their difference is between different seeds."
BRACKETS = "In brackets the 95% interval over test cases alone, with the trainings as they are."
RISING = "† Not at the plateau: validation Dice still rose by {} points or more over the last fifth of the rounds."
RECONSTRUCTED = "FedContrast is a reconstruction from its abstract."


class Titled(NamedTuple):
    """A table with its column in `scores.csv`, its title and its note."""

    key: str
    title: str
    table: Table
    note: str


def result_tables(
    compared: Comparison, apart: Sequence[MethodGroup] = (), reference: MethodGroup | None = None
) -> list[Titled]:
    """Dice, then all other metrics: one row per method, one column per site.

    Args:
        compared: the methods.
        apart: shown below them and not ranked.
        reference: what the others are measured against; None: `baseline`.
    """
    metrics = [metric for metric in (DICE, SLICE_DICE, *DISTANCES) if _known(compared, metric)]
    below = [group for group in apart if group.scored]
    return [_result_table(compared, metric, below, reference or baseline(compared.scored)) for metric in metrics]


def _known(compared: Comparison, metric: Metric, site: str | None = None) -> bool:
    scores = [score for group in compared.scored for score in group.cases(metric.key)]
    return any(math.isfinite(score.value) for score in scores if site in (None, score.site))


def _result_table(compared: Comparison, metric: Metric, apart: Sequence[MethodGroup], reference: MethodGroup) -> Titled:
    better: Literal["high", "low"] = "high" if metric.higher_is_better else "low"
    groups = compared.scored
    unseen = [site for site in compared.tested if site in compared.unseen and _known(compared, metric, site)]
    compare = len({group.label for group in (*groups, *apart, reference)}) > 1
    cases = compared.cases
    every = sum(cases[site] for site in compared.trained)
    columns = [Column("Method")]
    columns += [Column(site, better, metric.digits, cases[site]) for site in compared.trained]
    columns += [Column("AVG", better, metric.digits, every), Column("Worst site", better, metric.digits)]
    columns += [Column(f"AVG − {reference.label}", "", metric.digits, every)] if compare else []
    columns += [Column(f"{site} (unseen)", better, metric.digits, cases[site]) for site in unseen]

    def row(group: MethodGroup) -> tuple[Value, ...]:
        means = group.means(metric.key, compared.tested)
        found: list[Value] = [group.label + (" †" if still_rises(group.late_gain) else "")]
        found += [_scaled(means[site], metric) for site in compared.trained]
        found += [
            _scaled(group.average(metric.key, compared.tested, compared.unseen), metric),
            _worst(group, metric, compared),
        ]
        if compare:
            found.append(
                "reference" if group is reference else gain(group, reference, compared, metric.key, metric.scale)
            )
        return (*found, *(_scaled(means[site], metric) for site in unseen))

    table = Table(tuple(columns), tuple(map(row, groups)), tuple(map(row, apart)))
    uneven = any(group.repeats != reference.repeats for group in (*groups, *apart))
    apart_from = [group.label for group in (*groups, *apart) if not group.repeats & reference.repeats]
    said = [
        _note(compared, metric),
        _covered(compared, [*groups, *apart], compare),
        UNEVEN.format(reference.label) if uneven else "",
    ]
    rising = any(still_rises(group.late_gain) for group in (*groups, *apart))
    said += [RISING.format(MAX_LATE_GAIN) if rising else ""]
    said += [APART.format(reference.label, ", ".join(apart_from)) if apart_from else ""]
    return Titled(metric.key, metric.title, table, " ".join(filter(None, said)))


def with_notes(titled: Titled) -> Titled:
    """A table of measurements, with a note about rows whose method is a partial reconstruction."""
    made_up = any(str(row[0]).startswith("FedContrast") for row in titled.table.rows)
    return titled._replace(note=f"{titled.note} {RECONSTRUCTED}".strip()) if made_up else titled


def _covered(compared: Comparison, groups: Sequence[MethodGroup], compare: bool) -> str:
    """Of how many test cases and of how many seeds the numbers are, and what their spreads and intervals cover."""
    counts = ", ".join(f"{site} {count}" for site, count in compared.cases.items())
    return f"Test cases: {counts}. {seeds_said(groups)}" + (f" {BRACKETS}" if compare else "")


def _note(compared: Comparison, metric: Metric) -> str:
    said = ["Lower is better."] if not metric.higher_is_better else []
    without = {}
    for group in compared.scored:
        cases = group.cases(metric.key)
        lacking = sum(score.cases for score in cases if not math.isfinite(score.value))
        without[group.label] = f"{lacking} of {sum(score.cases for score in cases)}"
    if len(set(without.values())) > 1:
        said.append(f"Cases without a value, left out: {', '.join(f'{label} {of}' for label, of in without.items())}.")
    elif not next(iter(without.values())).startswith("0 "):
        said.append(f"Cases without a value, left out: {next(iter(without.values()))}.")
    return " ".join(said)


def rounds_table(compared: Comparison) -> Table:
    """AVG Dice with the weights validation chose, with the last, and (optimistic) with those best on the test cases.

    The first numbers are of the validation cases: their Dice, by which settings may be chosen, and how many points the
    last fifth of the rounds added to the fifth before.
    """
    columns = (
        Column("Method"),
        Column("On validation cases", "high"),
        Column("Gained in the last fifth"),
        *(Column(name) for name in ("Round chosen by validation", "Last round", "Best on test (optimistic)")),
    )
    rows: list[tuple[Value, ...]] = []
    for group in compared.scored:
        summaries = [run.summary for run in group.scored if run.summary]
        best = [summary.best_on_test for summary in summaries if summary.best_on_test]
        rows.append(
            (
                group.label,
                _scaled(mean_sd(run.validation for run in group.scored), DICE),
                text(group.late_gain),
                _at(group.average("dice", compared.tested, compared.unseen), (s.selected_round for s in summaries)),
                _at(group.average("dice", compared.tested, compared.unseen, "last"), (s.rounds for s in summaries)),
                _at(mean_sd(of.dice for of in best), (of.round for of in best)) if best else text(math.nan),
            )
        )
    return Table(columns, tuple(rows))


def scaled(spread: Spread, scale: float) -> Spread:
    """A spread in another unit."""
    return Spread(scale * spread.mean, scale * spread.sd, spread.repeats)


def _at(dice: Spread, rounds: Iterable[int]) -> str:
    found = sorted(set(rounds))
    at = f"{found[0]}" if len(found) == 1 else f"{found[0]} to {found[-1]}"
    return f"{text(_scaled(dice, DICE))} (round {at})" if math.isfinite(dice.mean) else text(math.nan)


def _worst(group: MethodGroup, metric: Metric, compared: Comparison) -> Spread:
    return _scaled(mean_sd(_worst_of(run, metric, compared.unseen) for run in group.scored), metric)


def _worst_of(run: Run, metric: Metric, unseen: Sequence[str]) -> float:
    means = site_means(run.scores.get(("selected", metric.key), ()))
    site = worst_site(means, unseen, lower_is_worse=metric.higher_is_better)
    return means[site] if site else math.nan


def _scaled(spread: Spread, metric: Metric) -> Spread:
    return scaled(spread, metric.scale)
