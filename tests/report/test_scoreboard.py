"""Scoreboard: the columns, the reference and what is left out."""

import pytest

from fedbcs_monai.report.groups import group
from fedbcs_monai.report.scoreboard import result_tables, rounds_table
from fedbcs_monai.report.summary import Comparison
from fedbcs_monai.runs.reader import read_run


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
    assert found["hd95_mm"].note == (
        "Lower is better. Cases without a value, left out: 12 of 60. "
        "Test cases: Ash 12, Birch 16, Cedar 6, Maple 14, Elm 12. One seed: the spread over seeds is not known."
    )


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
    assert [cell.text[-10:] for cell in row[3:]] == [" (round 8)", "(round 10)", " (round 6)"]


def test_settings_may_be_chosen_by_the_dice_on_validation_cases(make_run):
    folder = make_run("a")
    rows = [line.split(",") for line in (folder / "rounds.csv").read_text().splitlines()]
    chosen = [float(value) for round, _, metric, value in rows if (round, metric) == ("8", "val_dice")]
    (row,) = rounds_table(compare(folder)).rows
    assert row[1].mean == pytest.approx(100 * sum(chosen) / len(chosen))


def test_a_difference_has_its_spread_over_seeds_before_its_interval_over_cases(make_run):
    """Worked out again from the scores of each seed: of every site the mean, of the sites the mean."""
    seeds = (0, 1)
    runs = [make_run(f"{m}{s}", m, seed=s, lift=0.03 * (m == "FedBCS")) for m in ("FedAvg", "FedBCS") for s in seeds]
    dice = result_tables(compare(*runs))[0]

    def average(folder):
        rows = [line.split(",") for line in (folder / "scores.csv").read_text().splitlines()]
        of_site = {}
        for model, site, _, _, value, *_ in rows:
            if model == "selected" and site != "Elm":
                of_site.setdefault(site, []).append(100 * float(value))
        return sum(sum(of) / len(of) for of in of_site.values()) / 4

    one, other = (average(runs[2 + s]) - average(runs[s]) for s in seeds)
    found = dice.table.rows[1][names(dice).index("AVG − FedAvg")]
    assert (found.value, found.sd, found.repeats) == pytest.approx(((one + other) / 2, abs(one - other) / 2**0.5, 2))
    assert found.low < found.value < found.high
    assert "± is the standard deviation over runs, of 2 seeds a method." in dice.note
    assert "In brackets the 95% interval over test cases alone, with the trainings as they are." in dice.note


def test_columns_say_of_how_many_cases_they_are(make_run):
    columns = result_tables(compare(make_run("a")))[0].table.columns
    assert {column.name: column.cases for column in columns} == {
        **{"Method": 0, "Ash": 12, "Birch": 16, "Cedar": 6, "Maple": 14, "AVG": 48, "Worst site": 0},
        "Elm (unseen)": 12,
    }
