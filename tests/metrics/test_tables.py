"""Tables: means, intervals and marks a reader can check by hand."""

import math

import pytest

from fedbcs_monai.metrics.tables import (
    Column,
    Difference,
    Interval,
    Score,
    Spread,
    Table,
    average,
    case_means,
    cases_in,
    mean_interval,
    mean_of,
    mean_sd,
    paired_bootstrap,
    signed,
    site_means,
    text,
    with_columns,
    worst_site,
)


def scores(site, *values):
    return [Score(site, f"{index:08x}", value) for index, value in enumerate(values)]


def test_site_means_leave_out_undefined_cases():
    assert site_means(scores("Ash", 0.5, math.nan, 1.0)) == {"Ash": 0.75}


def test_site_means_leave_out_infinite_distances():
    assert site_means(scores("Ash", 2.0, math.inf)) == {"Ash": 2.0}


def test_a_site_without_a_defined_case_has_no_mean():
    assert math.isnan(site_means(scores("Ash", math.nan))["Ash"])


def test_average_counts_every_trained_site_the_same():
    assert average({"Ash": 0.6, "Birch": 0.8, "Elm": 0.0}, unseen=("Elm",)) == pytest.approx(0.7)


def test_average_of_a_site_without_a_number_is_undefined():
    assert math.isnan(average({"Ash": 0.6, "Birch": math.nan}))


def test_average_of_no_trained_site_is_undefined():
    assert math.isnan(average({"Elm": 0.5}, unseen=("Elm",)))


@pytest.mark.parametrize(("lower_is_worse", "expected"), [(True, "Ash"), (False, "Birch")])
def test_worst_site_ignores_unseen_and_undefined_sites(lower_is_worse, expected):
    means = {"Ash": 1.0, "Birch": 2.0, "Cedar": math.nan, "Elm": 0.0, "Fir": 9.0}
    assert worst_site(means, ("Elm", "Fir"), lower_is_worse) == expected


def test_no_site_is_worst_without_numbers():
    assert worst_site({"Ash": math.nan}) is None


def test_spread_is_the_sample_standard_deviation():
    assert mean_sd([1.0, 3.0]) == Spread(2.0, pytest.approx(math.sqrt(2)), 2)


def test_one_repeat_has_no_spread():
    assert math.isnan(mean_sd([1.0]).sd)


def test_case_means_average_the_same_case_over_runs():
    assert case_means([scores("Ash", 0.4), scores("Ash", 0.6)]) == scores("Ash", 0.5)


def test_bootstrap_of_a_constant_gain_has_no_width():
    gain = paired_bootstrap(scores("Ash", 0.6, 0.9), scores("Ash", 0.5, 0.8))
    assert gain == pytest.approx((0.1, 0.1, 0.1))


def test_bootstrap_interval_holds_the_difference_and_mirrors_when_swapped():
    a, b = scores("Ash", 0.9, 0.5, 0.7, 0.8), scores("Ash", 0.6, 0.6, 0.7, 0.5)
    there, back = paired_bootstrap(a, b), paired_bootstrap(b, a)
    assert there.low < there.value < there.high
    assert (back.value, back.low, back.high) == pytest.approx((-there.value, -there.high, -there.low))


def test_bootstrap_weighs_sites_alike_whatever_their_cases():
    a = scores("Ash", 1.0) + scores("Birch", 0.5, 0.5, 0.5)
    b = scores("Ash", 0.0) + scores("Birch", 0.5, 0.5, 0.5)
    assert paired_bootstrap(a, b).value == pytest.approx(0.5)


@pytest.mark.parametrize("alone", [("Ash", "0a1b2c3d"), ("Ash", mean_of(6))])
def test_bootstrap_has_no_interval_where_a_site_has_one_case_or_a_mean(alone):
    """0.2 at Ash and 0.1 at Birch are 0.15; how far another case at Ash would lie is not known."""
    a, b = ([Score(*alone, ash), *scores("Birch", *birch)] for ash, birch in ((0.7, (0.6, 0.9)), (0.5, (0.5, 0.8))))
    found = paired_bootstrap(a, b)
    assert found.value == pytest.approx(0.15)
    assert math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize(
    ("case", "cases"), [("mean of 6", 6), ("mean of 1", 1), ("mean of", 1), ("00000006", 1), ("6", 1)]
)
def test_a_row_says_of_how_many_cases_it_is(case, cases):
    assert cases_in(case) == Score("Ash", case, 0.5).cases == cases


def test_bootstrap_leaves_out_unseen_sites():
    assert (
        paired_bootstrap(
            scores("Elm", 1.0) + scores("Ash", 0.5), scores("Elm", 0.0) + scores("Ash", 0.5), unseen=("Elm",)
        ).value
        == 0
    )


def test_bootstrap_does_not_depend_on_the_order_of_cases():
    a, b = scores("Ash", 0.9, 0.5, 0.7), scores("Ash", 0.6, 0.6, 0.7)
    assert paired_bootstrap(a, b) == paired_bootstrap(a[::-1], b[::-1])


def test_bootstrap_without_a_common_case_is_undefined():
    assert all(math.isnan(value) for value in paired_bootstrap(scores("Ash", 0.9), scores("Birch", 0.9)))


def test_bootstrap_is_undefined_where_one_site_has_no_number():
    """AVG is too, over both sites; a difference over one of them would be another quantity."""
    whole, lacking = scores("Ash", 0.9) + scores("Birch", 0.9), scores("Ash", 0.5) + scores("Birch", math.nan)
    for a, b in ((whole, lacking), (lacking, whole), (whole, scores("Ash", 0.5))):
        assert all(math.isnan(value) for value in paired_bootstrap(a, b))


def test_the_interval_of_a_mean_is_students():
    found = mean_interval([1.0, math.nan, 2.0, 3.0])  # sd 1, and t of 2 degrees of freedom is 4.302653
    assert found == pytest.approx((2.0, 2.0 - 4.302653 / 3**0.5, 2.0 + 4.302653 / 3**0.5), abs=1e-6)
    assert mean_interval([4.0]).value == 4.0
    assert math.isnan(mean_interval([4.0]).low)


def marks(better, *values):
    return [row[0].mark for row in Table((Column("Dice", better),), tuple((value,) for value in values)).cells()]


@pytest.mark.parametrize(
    ("better", "values", "expected"),
    [
        ("high", (80.0, 82.0, 81.0), ["", "best", "second"]),
        ("low", (3.0, 2.0, 1.0), ["", "second", "best"]),
        ("high", (80.01, 80.02, 70.0), ["best", "best", "second"]),
        ("high", (80.0, math.nan, 82.0), ["second", "", "best"]),
        ("high", (80.0, 82.0), ["", "best"]),
        ("high", (80.0,), [""]),
        ("high", (80.0, 80.0), ["", ""]),
        ("", (80.0, 82.0), ["", ""]),
    ],
)
def test_marks_follow_the_printed_digits(better, values, expected):
    assert marks(better, *values) == expected


def test_a_mean_of_fewer_runs_is_not_ranked_with_the_others():
    once, thrice = Spread(99.0, math.nan, 1), (Spread(80.0, 0.5, 3), Spread(82.0, 0.5, 3))
    assert marks("high", once, *thrice) == ["", "second", "best"]
    assert marks("high", once, thrice[0]) == ["", ""]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, "–"),
        (-0.04, "0.0"),
        (Spread(81.25, math.nan, 1), "81.2"),
        (Spread(81.0, 0.51, 3), "81.0 ± 0.5"),
        (Interval(1.3, -0.2, 2.1), "+1.3 [−0.2, 2.1]"),
        (Interval(math.nan, math.nan, math.nan), "–"),
        (Difference(7.8, 7.9, 3, 7.0, 8.6), "+7.8 ± 7.9 [7.0, 8.6]"),
        (Difference(7.8, 7.9, 3, math.nan, math.nan), "+7.8 ± 7.9"),
        (Difference(7.8, math.nan, 1, 7.0, 8.6), "+7.8 [7.0, 8.6]"),
        (Difference(math.nan, math.nan, 0, math.nan, math.nan), "–"),
        ("FedAvg", "FedAvg"),
    ],
)
def test_values_are_printed_for_a_reader(value, expected):
    assert text(value) == expected


def test_a_difference_that_rounds_to_nothing_has_no_sign():
    assert [signed(0.04), signed(-0.04), signed(0.06), signed(-0.06)] == ["0.0", "0.0", "+0.1", "−0.1"]


TABLE = Table(
    (Column("Method"), Column("AVG", "high"), Column("gain")),
    (
        ("A|B", Spread(80.0, 0.5, 2), "reference"),
        ("C", Spread(81.0, math.nan, 1), Interval(1.0, 0.5, 1.5)),
        ("D", Spread(79.0, 0.25, 2), math.nan),
    ),
)


def test_markdown_marks_best_and_second_and_escapes_bars():
    lines = TABLE.to_markdown().splitlines()
    assert lines[1] == "|---|---:|---:|"
    assert lines[2] == "| A\\|B | **80.0 ± 0.5** | reference |"
    assert lines[3] == "| C | 81.0 | +1.0 [0.5, 1.5] |"


def test_csv_keeps_numbers_apart_and_missing_ones_empty():
    assert (
        TABLE.to_csv()
        == "Method,AVG,AVG sd,gain,gain low,gain high\nA|B,80,0.5,reference,,\nC,81,,1,0.5,1.5\nD,79,0.25,,,\n"
    )


def test_rows_apart_come_last_and_are_never_ranked():
    table = Table((Column("Method"), Column("AVG", "high")), (("A", 80.0), ("B", 81.0)), (("bound", 99.0),))
    assert table.to_markdown().splitlines()[2:] == ["| A | 80.0 |", "| B | **81.0** |", "| bound | 99.0 |"]
    assert table.to_csv().splitlines()[-1] == "bound,99"
    assert table.to_latex().splitlines()[4:-1] == [
        r"A & 80.0 \\",
        r"B & \textbf{81.0} \\",
        r"\midrule",
        r"bound & 99.0 \\",
        r"\bottomrule",
    ]


def test_latex_keeps_nothing_that_it_would_read_as_its_own():
    table = Table((Column("50 % & #1"),), (("a_b {c} $ ~ ^ \\",), ("−1.0 ± 0.5 –",)))
    lines = table.to_latex().splitlines()
    assert lines[2] == r"50 \% \& \#1 \\"
    assert lines[4] == r"a\_b \{c\} \$ \textasciitilde{} \textasciicircum{} \textbackslash{} \\"
    assert lines[5] == r"$-$1.0 $\pm$ 0.5 -- \\"


def test_columns_can_be_put_between():
    wider = with_columns(TABLE, 1, (Column("n"),), lambda row: (len(str(row[0])),))
    assert [column.name for column in wider.columns] == ["Method", "n", "AVG", "gain"]
    assert [row[:2] for row in wider.rows] == [("A|B", 3), ("C", 1), ("D", 1)]


def test_a_difference_without_an_interval_has_no_brackets():
    assert text(Interval(1.25, math.nan, math.nan)) == "+1.2"


def test_csv_keeps_the_spread_over_runs_apart_from_the_interval_over_cases():
    table = Table((Column("Method"), Column("gain")), (("A", "reference"), ("B", Difference(7.5, 8.0, 3, 7.0, 8.25))))
    assert table.to_csv() == "Method,gain,gain sd,gain low,gain high\nA,reference,,,\nB,7.5,8,7,8.25\n"
