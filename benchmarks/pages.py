"""Tables and figures of docs/results.md and docs/study.md, from the data in results/.

    python benchmarks/pages.py

A table stands in its page between two comments. What lies outside them is written by hand.
"""

import csv
import re
from functools import cache
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
DATA = ROOT / "results"
DOCS = ROOT / "docs"
START, END = "<!-- table: benchmarks/pages.py writes it -->\n", "<!-- end of table -->"

SMALL, SHIFT, BATCH = (f"benchmark_{name}/every_level" for name in ("small", "shift", "batch"))
LONG, OUTSIDE = "benchmark_long/batch_statistics", "benchmark_outside/every_level"

COMPARISONS = {
    "Prostate, 10 rounds": (f"{SMALL}/prostate_dice.csv", 3),
    "Prostate, 30 rounds, batch statistics": (f"{LONG}/prostate_dice.csv", 3),
    "Prostate, strong shift": (f"{SHIFT}/prostate_dice.csv", 3),
    "Prostate, twelve federations of three sites": (f"{OUTSIDE}/prostate_outside_inside.csv", 12),
    "The prostate site outside each of them": (f"{OUTSIDE}/prostate_outside.csv", 12),
    "Prostate, the paper's optimizer, 10 rounds": (f"{BATCH}/prostate_dice.csv", 1),
    "Prostate, the paper's optimizer, 60 rounds": (f"{BATCH}/prostate_60_rounds_dice.csv", 2),
    "Nuclei, 20 rounds": (f"{SMALL}/nuclei_dice.csv", 3),
    "Nuclei, strong shift": (f"{SHIFT}/nuclei_dice.csv", 3),
    "Nuclei, the paper's optimizer, 40 rounds": (f"{BATCH}/nuclei_dice.csv", 1),
}
"""What the table of results compares: the file, and the trainings of each method."""

PLACE, TAU = "decisions/fsr_place_and_gate.csv", "decisions/temperature_repeated.csv"
NORMS, TENTH = "decisions/norms.csv", "decisions/rivals_with_a_tenth.csv"
MOMENTUM, RATE = "decisions/momentum.csv", "decisions/learning_rate.csv"
PROSTATE, NUCLEI = "benchmark_study/prostate.csv", "benchmark_study/nuclei.csv"

NAMES = {
    "ten": f"{PLACE}|prostate, 10 rounds, group norm",
    "thirty": f"{PLACE}|prostate, 30 rounds, statistics of each batch",
    "nuclei": f"{PLACE}|nuclei, 20 rounds, group norm",
    "encoder": "encoder levels 2 to 4, adaptive: validation",
    "every": "every level of both halves, adaptive: validation",
    "scalar": "every level, scalar: the default: validation",
    "change": "0.05 − 0.4 on validation cases, by seed",
    "whole": "whole weight: validation",
    "tenth": "a tenth: validation",
    "both": "prostate, 10 rounds: validation, seeds 0 and 1",
    "in nuclei": "nuclei, 20 rounds: validation",
    "in prostate": "prostate, 10 rounds: mean",
}
"""Short names of rows and columns."""

DECISIONS = [
    (
        "Where FSR stands", "every level of encoder and decoder", "levels 2 to 4 of the encoder (the authors' code)",
        "prostate, 10 rounds: {<ten>|<every>} instead of {<ten>|<encoder>}; 30 rounds: {<thirty>|<every>} instead of "
        "{<thirty>|<encoder>}; nuclei: {<nuclei>|<every>} instead of {<nuclei>|<encoder>}",
        PLACE,
    ),
    (
        "Gate of FSR", "`scalar`, two learnt numbers (the authors' code)", "`adaptive` (eq. 6)",
        "prostate, 30 rounds: {<thirty>|<scalar>} instead of {<thirty>|<every>}; "
        "10 rounds: {<ten>|<scalar>} instead of {<ten>|<every>}",
        PLACE,
    ),
    (
        "Weight of the prototype loss", "0.1", "1 (the paper)",
        f"1 changes prostate by {{{PROSTATE}|FedBCS, weight 1|gain}} and nuclei by {{{NUCLEI}|FedBCS, weight 1|gain}}",
        PROSTATE,
    ),
    (
        "Pixels that it aligns", "512 random pixels per class", "every foreground pixel (the authors' code)",
        f"foreground alone changes prostate by {{{PROSTATE}|FedBCS, every foreground pixel|gain}}",
        PROSTATE,
    ),
    (
        "Temperature of the contrast", "0.4", "0.05",
        f"0.05 changes prostate by {{{TAU}|prostate, 10 rounds, group norm|<change>}} after 10 rounds, and by "
        f"{{{TAU}|prostate, 10 rounds, twelve federations of three sites|<change>}} in twelve federations",
        TAU,
    ),
    (
        "Normalization of the backbone", "group norm", "instance norm; statistics of each batch; batch norm",
        "; ".join(
            f"{task}: {{{NORMS}|group norm of 8 groups|<in {task}>}} instead of {{{NORMS}|instance norm|<in {task}>}}, "
            f"{{{NORMS}|statistics of each batch|<in {task}>}}, {{{NORMS}|batch norm, running statistics|<in {task}>}}"
            for task in ("nuclei", "prostate")
        ),
        NORMS,
    ),
    (
        "Momentum of FedAvgM and FedBCSM", "0.75", "0.5",
        f"FedAvgM on prostate: {{{MOMENTUM}|FedAvgM, 0.75|<both>}} instead of {{{MOMENTUM}|FedAvgM, 0.5|<both>}}",
        MOMENTUM,
    ),
    (
        "Weights of the rivals", "as in their papers", "a tenth of them",
        ", ".join(
            f"{name} {{{TENTH}|{name}|<whole>}} instead of {{{TENTH}|{name}|<tenth>}}"
            for name in ("FPL", "FedPLVM", "FedUV")
        ) + f"; FedAvg {{{TENTH}|FedAvg|<whole>}} (prostate)",
        TENTH,
    ),
    (
        "Learning rate on prostate", "0.001", "0.003",
        f"FedAvg: {{{RATE}|FedAvg, 0.001|validation}} instead of {{{RATE}|FedAvg, 0.003|validation}}",
        RATE,
    ),
]  # fmt: skip
"""Decision, what was chosen, from what else, by which validation Dice, and where the data are."""


def main() -> None:
    """Write tables and figures."""
    for name in TABLES:
        path = DOCS / name
        path.write_text(rendered(name, path.read_text(encoding="utf-8")), encoding="utf-8")
    mpl.rcParams.update({"svg.hashsalt": "fedbcs", "font.size": 9, "svg.fonttype": "none"})
    for name, figure in {"results_methods.svg": methods(), "results_rounds.svg": rounds()}.items():
        figure.savefig(DOCS / name, metadata={"Date": None})


@cache
def read(file: str) -> dict[str, dict[str, str]]:
    """A table of the data: row, then column."""
    with (DATA / file).open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    first = next(iter(rows[0]))
    return {row[first]: row for row in rows}


def filled(template: str) -> str:
    """A template with the data in it: ``{file|row|column}``, where ``<...>`` is one of `NAMES`."""
    template = re.sub("<(.+?)>", lambda found: NAMES[found[1]], template)
    return re.sub(r"\{([^{}|]+)\|([^{}|]+)\|([^{}|]+)\}", lambda found: read(found[1])[found[2]][found[3]], template)


def results_table() -> str:
    """FedBCS beside FedAvg in every comparison."""
    head = [
        "comparison",
        "trainings each",
        "FedAvg",
        "FedBCS",
        "FedBCS − FedAvg",
        "worst site, FedAvg",
        "FedBCS",
        "data",
    ]
    rows = []
    for name, (file, trainings) in COMPARISONS.items():
        averaged, ours = read(file)["FedAvg"], read(file)["FedBCS"]
        worst = [row.get("Worst site", "–") for row in (averaged, ours)]
        where = f"[{Path(file).parts[0]}](../results/{file})"
        rows.append([name, str(trainings), averaged["AVG"], ours["AVG"], ours["AVG − FedAvg"], *worst, where])
    return markdown(head, rows, numbers=range(1, 7))


def study_table() -> str:
    """What was chosen, from what, by which figure."""
    head = ["decision", "chosen", "instead of", "validation Dice, %", "data"]
    rows = [[*words, filled(figures), f"[data](../results/{data})"] for *words, figures, data in DECISIONS]
    return markdown(head, rows)


TABLES = {"results.md": results_table, "study.md": study_table}


def markdown(head: list[str], rows: list[list[str]], numbers: range = range(0)) -> str:
    """A table, numbers on the right."""
    rule = "|".join("---:" if i in numbers else "---" for i in range(len(head)))
    lines = [f"| {' | '.join(row)} |" for row in [head, *rows]]
    return "\n".join([lines[0], f"|{rule}|", *lines[1:], ""])


def rendered(name: str, text: str) -> str:
    """A page with its table as the data have it."""
    before, rest = text.split(START)
    return before + START + "\n" + TABLES[name]() + "\n" + END + rest.split(END)[1]


PANELS = {
    "Prostate, 10 rounds": f"{SMALL}/prostate_dice.csv",
    "Prostate, 30 rounds, batch statistics": f"{LONG}/prostate_dice.csv",
    "Nuclei, 20 rounds": f"{SMALL}/nuclei_dice.csv",
}


def methods() -> Figure:
    """How far every method is ahead of FedAvg, with its 95% interval over test cases."""
    figure, charts = plt.subplots(1, 3, figsize=(10, 4.2), layout="constrained", sharey=True)
    names = [name for name in read(PANELS["Prostate, 10 rounds"]) if name not in ("FedAvg", "FedContrast")]
    for axes, (title, file) in zip(charts, PANELS.items(), strict=True):
        for at, name in enumerate(reversed(names)):
            if name in read(file):
                interval(axes, at, read(file)[name], "#e0601a" if name == "FedBCS" else "#2b6ca3")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set(
            title=title.replace(", batch", ",\nbatch"), xlabel="Dice points ahead of FedAvg", yticks=range(len(names))
        )
        axes.set_yticklabels(reversed(names))
        axes.grid(axis="x", alpha=0.3)
    return figure


def interval(axes: Axes, at: int, row: dict[str, str], colour: str) -> None:
    """A difference and its interval; a filled mark where the row has several seeds."""
    mean, low, high = (float(x.replace("−", "-")) for x in re.findall(r"[−+]?\d+\.\d+", row["AVG − FedAvg"]))
    axes.plot([low, high], [at, at], color=colour, linewidth=1.5)
    axes.plot([mean], [at], "o", color=colour, markerfacecolor=colour if "±" in row["AVG"] else "white")


def rounds() -> Figure:
    """Validation Dice over rounds: no curve has reached its plateau."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
    table = read(f"{LONG}/prostate_validation_by_round.csv")
    for name, colour in (("FedAvg", "#2b8cd6"), ("FPL", "#0fa37a"), ("FedBCS", "#e0601a")):
        left.plot(
            [int(at) for at in table], [float(row[name]) for row in table.values()], "o-", color=colour, label=name
        )
    for name, colour in (("FedAvg", "#2b8cd6"), ("FedBCS", "#e0601a")):
        line = {
            at: float(value)
            for at, value in read(f"{BATCH}/prostate_validation_by_round.csv")[name].items()
            if at != "round"
        }
        right.plot([int(at) for at in line], list(line.values()), "o-", color=colour, label=name)
    left.set(title="Adam 1e-3, three seeds", xlabel="round", xticks=[10, 20, 30], ylabel="validation Dice, %")
    right.set(title="Adam 1e-4, as in the paper, two seeds", xlabel="round")
    for axes in (left, right):
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


if __name__ == "__main__":
    main()
