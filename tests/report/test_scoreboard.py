"""Scoreboard: the columns, the reference and what is left out."""

import pytest

from fedbcs_monai.report.arms import group
from fedbcs_monai.report.runs import read_run
from fedbcs_monai.report.scoreboard import result_tables, rounds_table
from fedbcs_monai.report.verdict import Comparison


def compare(*folders):
    runs = [read_run(folder) for folder in folders]
    return Comparison(group(runs), runs[0].sites, runs[0].unseen)


def names(found):
    return [column.name for column in found.table.columns]


def test_dice_stands_by_site_with_the_unseen_one_last(make_run):
    dice, *_ = result_tables(compare(make_run("a"), make_run("b", "FedBCS")))
    assert names(dice) == [
        "Method",
        "Ash",
        "Birch",
        "Cedar",
        "Maple",
        "AVG",
        "Worst site",
        "AVG − FedAvg",
        "Elm (unseen)",
    ]
    assert dice.table.rows[0][7] == "reference"


def test_one_method_has_no_difference(make_run):
    assert "AVG − FedAvg" not in names(result_tables(compare(make_run("a")))[0])


def test_distances_leave_out_an_unseen_site_without_any_and_say_so(make_run):
    found = {table.key: table for table in result_tables(compare(make_run("a")))}
    assert "Elm (unseen)" not in names(found["hd95_mm"])
    assert found["hd95_mm"].note == "Lower is better. Cases without a value, left out: 12 of 60."


def test_unknown_distances_make_no_table(make_run):
    folder = make_run("a")
    lines = (folder / "scores.csv").read_text().splitlines()
    (folder / "scores.csv").write_text("\n".join(",".join(line.split(",")[:5]) for line in lines) + "\n")
    assert [table.key for table in result_tables(compare(folder))] == ["dice"]


def test_worst_distance_is_the_largest(make_run):
    hd95 = result_tables(compare(make_run("a")))[1].table
    row = dict(zip((column.name for column in hd95.columns), hd95.rows[0], strict=True))
    assert row["Worst site"].mean == max(row[site].mean for site in ("Ash", "Birch", "Cedar", "Maple"))


def test_each_choice_of_round_names_its_round(make_run):
    row = rounds_table(compare(make_run("a"))).cells()[0]
    assert [cell.text[-10:] for cell in row[2:]] == [" (round 8)", "(round 10)", " (round 6)"]


def test_settings_may_be_chosen_by_the_dice_on_validation_cases(make_run):
    folder = make_run("a")
    rows = [line.split(",") for line in (folder / "rounds.csv").read_text().splitlines()]
    chosen = [float(value) for round, _, metric, value in rows if (round, metric) == ("8", "val_dice")]
    (row,) = rounds_table(compare(folder)).rows
    assert row[1].mean == pytest.approx(100 * sum(chosen) / len(chosen))
