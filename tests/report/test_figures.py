"""Figures: what is drawn is what was measured."""

import csv

import numpy as np
import pytest

from fedbcs_monai.metrics.tables import mean_sd, site_means
from fedbcs_monai.report import write_report
from fedbcs_monai.report.figures import (
    Point,
    comparison_figures,
    dice_by_site,
    difference_by_site,
    losses,
    over_runs,
    over_sites,
    validation,
)
from fedbcs_monai.report.groups import group
from fedbcs_monai.report.summary import Comparison, gain
from fedbcs_monai.runs.reader import read_run


def compared(*folders):
    runs = [read_run(folder) for folder in folders]
    return Comparison(group(runs), runs[0].sites, runs[0].unseen)


def titles(drawing):
    return [axes.get_title(loc="left") for axes in drawing.figure.axes]


def lines(axes, marker):
    return [line for line in axes.lines if line.get_marker() == marker]


def cases(folder, site):
    rows = csv.DictReader((folder / "scores.csv").read_text().splitlines())
    return [100 * float(row["dice"]) for row in rows if (row["model"], row["site"]) == ("selected", site)]


def test_every_test_case_is_a_dot_and_every_mean_a_diamond(make_run):
    folder = make_run("a")
    axes = dice_by_site(compared(folder)).figure.axes[0]
    dots, diamond = lines(axes, "o"), lines(axes, "D")
    assert list(dots[0].get_xdata()) == pytest.approx(cases(folder, "Ash"))
    assert diamond[0].get_xdata()[0] == pytest.approx(np.mean(cases(folder, "Ash")))


def test_a_box_has_the_quartiles_of_its_cases(make_run):
    folder = make_run("a")
    axes = dice_by_site(compared(folder)).figure.axes[0]
    box = axes.patches[0].get_path().vertices[:, 0]
    assert [box.min(), box.max()] == pytest.approx(np.quantile(cases(folder, "Ash"), [0.25, 0.75]))


def test_four_cases_have_no_box(make_run):
    folder = make_run("a")
    rows = (folder / "scores.csv").read_text().splitlines()
    of_ash = [row for row in rows if row.startswith("selected,Ash,")]
    (folder / "scores.csv").write_text("\n".join(row for row in rows if row not in of_ash[4:]) + "\n")
    first, second = dice_by_site(compared(folder)).figure.axes[:2]
    assert (len(first.patches), len(second.patches)) == (0, 1)
    assert len(lines(first, "o")[0].get_xdata()) == 4


def test_an_unseen_site_and_one_that_tells_only_a_mean_are_called_so(make_run):
    folder = make_run("a")
    kept = [line for line in (folder / "scores.csv").read_text().splitlines() if ",Ash," not in line]
    (folder / "scores.csv").write_text("\n".join([*kept, "selected,Ash,test,mean of 12,0.8,,"]) + "\n")
    assert titles(dice_by_site(compared(folder)))[::4] == ["Ash: only the mean of 12 cases", "Elm (unseen)"]


def test_differences_are_those_of_the_tables_on_average_and_at_every_site(make_run):
    both = compared(make_run("a"), make_run("b", "FedBCS", lift=0.03))
    drawing = difference_by_site(both)
    assert titles(drawing) == ["AVG", "Ash", "Birch", "Cedar", "Maple", "Elm (unseen)"]
    dots = [lines(axes, "o")[0].get_xdata()[0] for axes in drawing.figure.axes]
    groups = {group.label: group for group in both.groups}
    whole = gain(groups["FedBCS"], groups["FedAvg"], both)
    means = [site_means(groups[label].cases("dice")) for label in ("FedBCS", "FedAvg")]
    assert dots == pytest.approx([whole.value, *(100 * (means[0][site] - means[1][site]) for site in both.sites)])
    bars = [sorted(lines(axes, "None")[1].get_xdata()) for axes in drawing.figure.axes]
    assert bars[0] == pytest.approx([whole.low, whole.high])
    assert all(low < dot < high for dot, (low, high) in zip(dots, bars, strict=True))


def test_one_method_has_no_difference(make_run):
    assert difference_by_site(compared(make_run("a"), make_run("b", seed=1))) is None


def test_a_line_is_the_mean_over_runs_and_its_band_one_standard_deviation(make_run):
    both = compared(make_run("a"), make_run("b", seed=1))
    axes = validation(both).figure.axes[1]
    each = [run.curves["val_dice"]["Ash"] for run in both.groups[0].runs]
    assert list(axes.lines[0].get_xdata()) == [2, 4, 6, 8, 10]
    spreads = [mean_sd(100 * run[at] for run in each) for at in (2, 4, 6, 8, 10)]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([spread.mean for spread in spreads])
    band = axes.collections[0].get_paths()[0].vertices
    at_two = sorted({y for x, y in band if x == 2})
    assert [at_two[0], at_two[-1]] == pytest.approx([spreads[0].mean - spreads[0].sd, spreads[0].mean + spreads[0].sd])


def test_one_run_has_no_band_and_a_circle_at_its_selected_round(make_run):
    axes = validation(compared(make_run("a"))).figure.axes[0]
    assert len(axes.collections) == 0
    assert [list(line.get_xdata()) for line in axes.lines] == [[2, 4, 6, 8, 10], [8]]


def test_validation_has_the_mean_over_sites_first(make_run):
    one = compared(make_run("a"))
    assert titles(validation(one)) == ["Mean over sites", "Ash", "Birch", "Cedar", "Maple"]
    values = one.groups[0].runs[0].curves["val_dice"]
    first = validation(one).figure.axes[0].lines[0].get_ydata()[0]
    assert first == pytest.approx(100 * np.mean([values[site][2] for site in ("Ash", "Birch", "Cedar", "Maple")]))


def test_losses_are_those_that_were_recorded(make_run):
    assert titles(losses(compared(make_run("a")))) == ["Total training loss", "Segmentation loss"]
    both = compared(make_run("b"), make_run("c", "FedBCS"))
    assert titles(losses(both))[2:] == ["Contrastive term", "Consistency term"]


def test_over_runs_keeps_the_rounds_that_all_have():
    assert over_runs([{1: 0.5, 2: 0.5}, {1: 1.0}]) == [Point(1, 0.75, pytest.approx(0.5**0.5 / 2))]
    assert over_runs([]) == []


def test_over_sites_keeps_the_rounds_that_all_have():
    assert over_sites({"Ash": {1: 0.5, 2: 0.7}, "Elm": {2: 0.9}}) == {2: pytest.approx(0.8)}


def test_a_run_before_its_first_round_has_no_figure(make_run):
    folder = make_run("a", finished=False)
    (folder / "rounds.csv").unlink()
    assert comparison_figures(compared(folder)) == []


def test_every_method_of_many_is_drawn_differently(make_run):
    groups = [make_run(f"r{n}", "FedProx", mu=n) for n in range(21)]
    drawn = {(group.colour, group.dash) for group in compared(*groups).groups}
    assert len(drawn) == 21


def test_a_report_names_its_figures(make_run, tmp_path):
    folders = [make_run("a"), make_run("b", "FedBCS", lift=0.03)]
    write_report(folders, tmp_path / "report.html", figures=tmp_path / "figures")
    names = ("dice_by_site", "dice_difference", "losses", "validation_dice")
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == sorted(
        f"{name}.{kind}" for name in names for kind in ("pdf", "svg", "png")
    )


def test_the_folder_of_a_benchmark_stands_for_its_runs(make_run, tmp_path):
    make_run("bench/runs/a")
    make_run("bench/runs/b", "FedBCS", lift=0.03)
    (tmp_path / "bench" / "runs" / "not a run").mkdir()
    page = write_report([tmp_path / "bench"], tmp_path / "report.html").read_text()
    assert "FedBCS is ahead of FedAvg" in page
