"""The benchmark's tables: numbers that can be worked out from the cases, and published figures beside them."""

import pytest

from fedbcs_monai.benchmark import tables
from fedbcs_monai.benchmark.communication import communication
from fedbcs_monai.benchmark.leave_one_out import left_out, without_it
from fedbcs_monai.benchmark.plan import Sweep, TaskPlan
from fedbcs_monai.benchmark.results import read_results
from fedbcs_monai.metrics.tables import text

AVG = [
    {"Ash": [0.6, 0.8], "Birch": [0.5, 0.5], "Elm": [0.2, 0.2]},
    {"Ash": [0.8, 1.0], "Birch": [0.5, 0.5], "Elm": [0.4, 0.4]},
]
BCS = [{"Ash": [0.8, 1.0], "Birch": [0.6, 0.6], "Elm": [0.5, 0.5]}]
ALONE = [{"Ash": [0.4, 0.4], "Birch": [0.3, 0.3]}]
UNSEEN = {"unseen": ["Elm"], "sites": ["Ash", "Birch", "Elm"]}


def printed(table, *columns):
    """The cells of some columns, by the row's name."""
    heads = [column.name for column in table.columns]
    return {row[0].text: [row[heads.index(name)].text for name in columns] for row in table.cells()}


@pytest.fixture
def compared(row):
    """FedAvg with two seeds, FedBCS with one, and every site alone."""
    methods = (row("FedAvg", *AVG, **UNSEEN), row("FedBCS", *BCS, **UNSEEN))
    return read_results(TaskPlan("nuclei", methods, bounds=(row("Local only", *ALONE, **UNSEEN),)))


def test_table_1_has_means_over_cases_sites_and_seeds(compared):
    table = tables.comparison(compared)[0].table
    assert printed(table, "Ash", "Birch", "AVG", "Worst site", "Elm (unseen)") == {
        "FedAvg": ["80.0 ± 14.1", "50.0 ± 0.0", "65.0 ± 7.1", "50.0 ± 0.0", "30.0 ± 14.1"],
        "FedBCS": ["90.0", "60.0", "75.0", "60.0", "50.0"],
        "Local only": ["40.0", "30.0", "35.0", "30.0", "–"],
    }


def test_differences_to_fedavg_are_paired_over_cases_and_seeds(compared):
    found = tables.comparison(compared)[0]
    assert printed(found.table, "AVG − FedAvg") == {
        "FedAvg": ["reference"],
        "FedBCS": ["+15.0 [15.0, 15.0]"],  # over seed 0 alone: 0.2 a case at Ash, 0.1 at Birch
        "Local only": ["−25.0 [−30.0, −20.0]"],
    }
    assert "over those that both have" in found.note


def test_without_a_common_seed_a_difference_is_taken_over_all(row):
    other = row("FedBCS", {}, BCS[0], **UNSEEN)
    plan = TaskPlan("nuclei", (row("FedAvg", AVG[0], **UNSEEN), other))
    found = tables.comparison(read_results(plan))[0]
    assert printed(found.table, "AVG − FedAvg")["FedBCS"] == ["+15.0 [15.0, 15.0]"]
    assert "No seed in common with FedAvg: FedBCS; their difference is between different seeds" in found.note


def test_bounds_stand_apart_and_are_not_ranked(compared, row):
    pooled = row("Pooled", {"Ash": [1.0, 1.0], "Birch": [1.0, 1.0], "Elm": [1.0, 1.0]}, **UNSEEN)
    best = read_results(TaskPlan("nuclei", (row("FedAvg", AVG[0], key="a", **UNSEEN),), bounds=(pooled,)))
    cells = tables.comparison(best)[0].table.cells()
    assert [row[0].text for row in cells] == ["FedAvg", "Pooled"]
    assert {cell.mark for row in cells for cell in row} == {""}


def test_published_figures_stand_beside_the_measured_ones_and_apart_from_them(compared):
    ours, theirs = tables.comparison(compared)
    assert printed(ours.table, "AVG, published", "AVG − FedAvg, published") == {
        "FedAvg": ["69.50", "reference"],
        "FedBCS": ["74.10", "+4.60"],
        "Local only": ["–", "–"],
    }
    assert theirs.title.startswith("Published")
    assert printed(theirs.table, "TNBC")["FedBCS"] == ["67.00"]


def test_a_run_that_is_not_finished_is_named_and_left_out(row):
    results = read_results(TaskPlan("nuclei", (row("FedAvg", AVG[0], {}, **UNSEEN), row("FedBCS", {}, **UNSEEN))))
    assert results.missing == ["fedavg_seed1", "fedbcs_seed0"]
    assert printed(tables.comparison(results)[0].table, "AVG") == {"FedAvg": ["60.0"]}


def test_table_2_reads_the_parts_from_the_network(row):
    both = {"context": {"width": 4}, "recalibrate": [2]}
    rows = (
        row("FedAvg", AVG[0], **UNSEEN),
        row("FSR only", BCS[0], network={"recalibrate": [], "recalibrate_decoder": [1]}, **UNSEEN),
        row("CDPA only", BCS[0], network={"context": {"width": 4}, "recalibrate": []}, **UNSEEN),
        row("FedBCS", BCS[0], network=both, **UNSEEN),
    )
    table = tables.ablation(read_results(TaskPlan("nuclei", ablation=rows)))[0].table
    assert printed(table, "CDPA", "FSR", "AVG", "AVG, published") == {
        "FedAvg": ["", "", "60.0", "69.50"],
        "FSR only": ["", "✓", "75.0", "72.30"],
        "CDPA only": ["✓", "", "75.0", "72.20"],
        "FedBCS": ["✓", "✓", "75.0", "74.10"],
    }


def test_table_3_counts_what_the_messages_held(row):
    counts = {"sent_prototypes": 4, "received_prototypes": 6, "sent_weight_bytes": 2048, "sent_shared_bytes": 512}
    counts |= {"received_weight_bytes": 2048, "received_shared_bytes": 1024}
    plain = dict.fromkeys(counts, 0) | {"sent_weight_bytes": 1024, "received_weight_bytes": 1024}
    rows = (row("FedAvg", AVG[0], counts=plain, **UNSEEN), row("FedBCS", BCS[0], counts=counts, **UNSEEN))
    prototypes, sizes = communication(read_results(TaskPlan("nuclei", rows)))
    assert printed(prototypes.table, "Ash", "Birch", "received", "AVG Dice") == {
        "FedBCS": ["4.00", "4.00", "6.00", "75.0"]
    }
    assert printed(sizes.table, "network, sent", "payload, sent", "payload, received", "together") == {
        "FedAvg": ["1.0", "0.0", "0.0", "2.0"],
        "FedBCS": ["2.0", "0.5", "1.0", "5.5"],
    }


def test_hyper_prototypes_are_received_and_not_sent(row):
    rows = (row("FedHPro", AVG[0], counts={"sent_prototypes": 0, "received_prototypes": 10}, **UNSEEN),)
    table = communication(read_results(TaskPlan("nuclei", rows)))[0].table
    assert printed(table, "Ash", "received") == {"FedHPro": ["0.00", "10.00"]}


def test_published_prototypes_stand_beside_ours(row):
    rows = (row("FedPLVM", AVG[0], counts={"sent_prototypes": 10}, **UNSEEN),)
    table = communication(read_results(TaskPlan("prostate", rows)))[0].table
    assert text(table.rows[0][-1], 2) == "246.00"  # the mean of the six sites of Table 3


def test_a_sweep_has_a_row_a_value_and_its_base_below(row):
    swept = (row("tau 0.1", BCS[0], **UNSEEN), row("tau 0.4", AVG[1], **UNSEEN))
    base = row("FedAvg", AVG[0], **UNSEEN)
    plan = TaskPlan("nuclei", sweep=Sweep("method::tau", (0.1, 0.4), swept, base))
    table = tables.sweep(read_results(plan))[0].table
    assert printed(table, "AVG", "AVG − FedAvg") == {
        "tau 0.1": ["75.0", "+15.0 [15.0, 15.0]"],
        "tau 0.4": ["70.0", "+10.0 [10.0, 10.0]"],
        "FedAvg": ["60.0", "reference"],
    }


def test_a_site_outside_is_scored_by_the_model_trained_without_it(row):
    inside = row("FedAvg", AVG[0], **UNSEEN)
    alone = {"sites": ["Ash", "Birch", "Elm"]}
    without = {
        "Ash": (row("FedAvg", {"Ash": [0.5, 0.5, 0.2], "Birch": [0.9, 0.9]}, key="a", unseen=["Ash", "Elm"], **alone),),
        "Birch": (row("FedAvg", {"Ash": [0.9, 0.9], "Birch": [0.3, 0.3]}, key="b", unseen=["Birch", "Elm"], **alone),),
    }
    (found,) = left_out(read_results(TaskPlan("nuclei", (inside,), left_out=without)))
    assert printed(found.table, "Ash", "Birch", "AVG", "AVG − FedAvg", "AVG − trained there") == {
        "FedAvg": ["40.0", "30.0", "35.0", "reference", "−20.0 [−25.0, −15.0]"]  # Ash's third case is not tested inside
    }
    (alone,) = left_out(read_results(TaskPlan("nuclei", left_out=without)))
    assert "AVG − trained there" not in [column.name for column in alone.table.columns]


def test_what_staying_out_costs_is_taken_over_the_seeds_that_both_have(row):
    """Outside, seed 1 is far worse; inside it was not trained."""
    alone = {"sites": ["Ash", "Birch", "Elm"], "unseen": ["Ash", "Elm"]}
    outside = row("FedAvg", AVG[0], {"Ash": [0.1, 0.1], "Birch": [0.1, 0.1]}, key="a", **alone)
    inside = row("FedAvg", AVG[0], **UNSEEN)
    (found,) = left_out(read_results(TaskPlan("nuclei", (inside,), left_out={"Ash": (outside,)})))
    assert printed(found.table, "AVG − trained there") == {"FedAvg": ["0.0 [0.0, 0.0]"]}


def test_the_federation_that_is_left_is_compared_training_by_training(row):
    alone = {"sites": ["Ash", "Birch"], "unseen": ["Ash"]}
    rows = (
        row("FedAvg", {"Ash": [0.1, 0.1], "Birch": [0.5, 0.5]}, {"Ash": [0.1, 0.1], "Birch": [0.6, 0.6]}, **alone),
        row("FedBCS", {"Ash": [0.9, 0.9], "Birch": [0.6, 0.6]}, {"Ash": [0.9, 0.9], "Birch": [0.58, 0.58]}, **alone),
    )
    inside = row("FedAvg", AVG[0], key="inside", **UNSEEN)
    (found,) = without_it(read_results(TaskPlan("nuclei", (inside,), left_out={"Ash": rows})))
    assert printed(found.table, "without Ash", "AVG", "AVG − FedAvg", "Ahead of FedAvg") == {
        "FedAvg": ["55.0 ± 7.1", "55.0 ± 7.1", "reference", ""],
        "FedBCS": ["59.0 ± 1.4", "59.0 ± 1.4", "+4.0 [−72.2, 80.2]", "1 of 2"],  # 10 and -2; t is 12.706 of 1 degree
    }


def test_fairness_is_the_spread_of_the_trained_sites(compared):
    table = tables.cost(compared)[0].table
    columns = ("SD over sites, points", "Best − worst site, points", "Training, minutes", "Peak memory, MiB")
    assert printed(table, *columns) == {
        "FedAvg": ["21.2 ± 10.0", "30.0 ± 14.1", "1.5 ± 0.7", "1024 ± 0"],
        "FedBCS": ["21.2", "30.0", "1.0", "1024"],
        "Local only": ["7.1", "10.0", "1.0", "1024"],
    }


def test_a_difference_of_several_seeds_has_their_spread_and_then_the_interval_over_cases(row):
    """0 and 20 points at Ash with seeds 0 and 1, nothing at Birch: 5 on average, with a standard deviation of 7.07."""
    avg = [{"Ash": [0.5, 0.6], "Birch": [0.5, 0.5]}] * 2
    bcs = [avg[0], {"Ash": [0.7, 0.8], "Birch": [0.5, 0.5]}]
    found = tables.comparison(read_results(TaskPlan("x", (row("FedAvg", *avg), row("FedBCS", *bcs)))))[0]
    assert printed(found.table, "AVG − FedAvg")["FedBCS"] == ["+5.0 ± 7.1 [5.0, 5.0]"]
    assert "Test cases: Ash 2, Birch 2. ± is the standard deviation over runs, of 2 seeds a method." in found.note
    assert "over test cases alone" in found.note


def test_what_staying_out_costs_has_its_spread_over_seeds(row):
    """0 with seed 0; with seed 1 0.9 and 0.95 less: 46.25 on average, with a standard deviation of 65.4."""
    alone = {"sites": ["Ash", "Birch", "Elm"], "unseen": ["Ash", "Elm"]}
    within = [{"Ash": [0.6, 0.8], "Birch": [0.5, 0.5], "Elm": [0.1, 0.1]}, {**AVG[1], "Ash": [1.0, 1.0]}]
    without = [within[0], {**within[1], "Ash": [0.1, 0.05]}]
    inside, outside = row("FedAvg", *within, **UNSEEN), row("FedAvg", *without, key="a", **alone)
    (found,) = left_out(read_results(TaskPlan("nuclei", (inside,), left_out={"Ash": (outside,)})))
    ((said,),) = printed(found.table, "AVG − trained there").values()
    assert said.startswith("−46.2 ± 65.4 [")
    assert "of 2 seeds a method" in found.note
