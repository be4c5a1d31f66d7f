"""The tables and curves of docs/results.md, from finished run folders.

    python benchmarks/results.py runs/* -o docs/results_tables.md --curves docs

Runs are grouped by task, by normalisation and by name; runs of one group differ in their seed.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from fedbcs_monai.evaluation.tables import (
    Column,
    Interval,
    Spread,
    Table,
    average,
    case_means,
    mean_sd,
    paired_bootstrap,
    site_means,
)
from fedbcs_monai.report.runs import Run, read_run

ORDER = ("FedAvg", "FSR only", "CDPA only", "FedBCS")
Groups = Mapping[tuple[str, str, str], Sequence[Run]]


def main() -> None:
    """Read the runs, write the page and the curves."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--curves", type=Path, help="folder for one PNG a task")
    options = parser.parse_args()
    groups = grouped([read_run(folder) for folder in options.runs if (folder / "summary.json").is_file()])
    parts = []
    for task, norm in dict.fromkeys((task, norm) for task, norm, _ in groups):
        arms = {name: runs for (t, n, name), runs in groups.items() if (t, n) == (task, norm)}
        parts += [f"### {task}, {norm} norm\n", seeds_line(arms), dice_table(arms), selection_table(arms)]
        if task == "prostate":
            parts.append(distance_table(arms))
    options.output.write_text("\n".join(parts), encoding="utf-8")
    for task in dict.fromkeys(task for task, _, _ in groups) if options.curves else ():
        curves(task, groups).savefig(options.curves / f"results_{task}.png", dpi=110)


def grouped(runs: Sequence[Run]) -> Groups:
    """Runs by (task, norm, name), in the order of the ablation table."""
    groups: dict[tuple[str, str, str], list[Run]] = {}
    for run in runs:
        key = (run.config["task"], run.config["network_def"]["norm"], run.name)
        groups.setdefault(key, []).append(run)
    rank = {name: n for n, name in enumerate(ORDER)}
    return dict(sorted(groups.items(), key=lambda item: (*item[0][:2], rank.get(item[0][2], len(rank)))))


def seeds_line(arms: Mapping[str, Sequence[Run]]) -> str:
    """Which seeds are behind each row."""
    seeds = {name: sorted(run.config["seed"] for run in runs) for name, runs in arms.items()}
    return "Seeds: " + "; ".join(f"{name} {', '.join(map(str, found))}" for name, found in seeds.items()) + ".\n"


def means(run: Run, model: str = "selected", metric: str = "dice", scale: float = 100) -> dict[str, float]:
    """Site means of one run, with AVG over the trained sites."""
    found = {site: scale * value for site, value in site_means(run.scores[model, metric]).items()}
    return {**found, "AVG": average(found, run.unseen)}


def dice_table(arms: Mapping[str, Sequence[Run]]) -> str:
    """Foreground Dice in percent a site, mean and sd over seeds, and the difference to FedAvg."""
    first = next(iter(arms.values()))[0]
    unseen = list(first.unseen)
    sites = [site for site in means(first) if site not in (*unseen, "AVG")]
    columns = [Column("Dice %"), *(Column(site, "high") for site in (*sites, "AVG"))]
    columns += [Column(f"{site} (unseen)", "high") for site in unseen] + [Column("AVG − FedAvg [95 % interval]")]
    rows = []
    for name, runs in arms.items():
        each = [means(run) for run in runs]
        spread: list[Spread] = [mean_sd(m[site] for m in each) for site in (*sites, "AVG", *unseen)]
        rows.append((name, *spread, difference(arms, name)))
    return Table(tuple(columns), tuple(rows)).to_markdown()


def difference(arms: Mapping[str, Sequence[Run]], name: str) -> Interval | str:
    """AVG of an arm less that of FedAvg, over cases averaged over seeds."""
    if name == "FedAvg" or "FedAvg" not in arms:
        return ""
    ours, theirs = (case_means(run.scores["selected", "dice"] for run in arms[arm]) for arm in (name, "FedAvg"))
    found = paired_bootstrap(ours, theirs, unseen=arms[name][0].unseen)
    return Interval(*(100 * value for value in found))


def selection_table(arms: Mapping[str, Sequence[Run]]) -> str:
    """AVG by validation Dice, at the selected round, at the last, and best on test."""
    columns = (
        "AVG Dice %",
        "validation, selected",
        "test, selected",
        "test, last",
        "test, best round on test (optimistic)",
    )
    rows = []
    for name, runs in arms.items():
        validation = [100 * float(np.nanmean(at_selected(run))) for run in runs]
        optimistic = [100 * run.summary.best_on_test.dice if best(run) else math.nan for run in runs]
        rows.append(
            (
                name,
                mean_sd(validation),
                *(mean_sd(means(run, model)["AVG"] for run in runs) for model in ("selected", "last")),
                mean_sd(optimistic),
            )
        )
    return Table(tuple(Column(name) for name in columns), tuple(rows)).to_markdown()


def best(run: Run) -> bool:
    """Whether the run followed the test cases."""
    return run.summary is not None and run.summary.best_on_test is not None


def at_selected(run: Run) -> list[float]:
    """Validation Dice of every site at the selected round."""
    assert run.summary is not None
    return [line[run.summary.selected_round] for line in run.curves["val_dice"].values()]


def distance_table(arms: Mapping[str, Sequence[Run]]) -> str:
    """HD95 and ASSD in mm, a site."""
    first = next(iter(arms.values()))[0]
    sites = [site for site in means(first) if site != "AVG"]
    columns = [Column("HD95 / ASSD mm"), *(Column(site) for site in (*sites, "AVG"))]
    rows = []
    for name, runs in arms.items():
        cells = []
        for site in (*sites, "AVG"):
            pair = [np.mean([means(r, metric=m, scale=1)[site] for r in runs]) for m in ("hd95_mm", "assd_mm")]
            cells.append(" / ".join(f"{value:.1f}" for value in pair))
        rows.append((name, *cells))
    return Table(tuple(columns), tuple(rows)).to_markdown()


def curves(task: str, groups: Groups) -> Figure:
    """Validation Dice over rounds, mean over seeds: a panel a site, a line a method and norm."""
    mine = {key[1:]: runs for key, runs in groups.items() if key[0] == task}
    sites = sorted(next(iter(mine.values()))[0].curves["val_dice"])
    colours = dict(zip(ORDER, ("#555555", "#0072b2", "#e69f00", "#009e73"), strict=True))
    figure = Figure(figsize=(3.1 * len(sites), 3.2), layout="constrained")
    panels = figure.subplots(1, len(sites), sharey=True)
    for panel, site in zip(panels, sites, strict=True):
        for (norm, name), runs in mine.items():
            rounds = sorted(runs[0].curves["val_dice"][site])
            line = [100 * np.mean([run.curves["val_dice"][site][n] for run in runs]) for n in rounds]
            style = "-" if norm == "group" else "--"
            panel.plot(rounds, line, style, color=colours.get(name), label=f"{name}, {norm}", marker=".")
        panel.set_title(site, fontsize=10)
        panel.set_xlabel("round")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("validation Dice %")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


if __name__ == "__main__":
    main()
