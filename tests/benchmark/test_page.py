"""The benchmark's page and files: four of them, one structure, nothing from elsewhere."""

import csv
import io
import re

import pytest

from fedbcs_monai.benchmark import write_benchmark
from fedbcs_monai.benchmark.plan import BenchmarkPlan, Sweep, TaskPlan
from fedbcs_monai.errors import UserError

DICES = {"Ash": [0.6, 0.8], "Birch": [0.5, 0.5]}
BETTER = {"Ash": [0.7, 0.9], "Birch": [0.6, 0.5]}


@pytest.fixture
def benchmark(row, tmp_path):
    methods = (row("FedAvg", DICES, BETTER), row("Fed_BCS & <co>", BETTER))
    sweep = Sweep("method::tau", (0.1, 0.4), (row("tau 0.1", DICES), row("tau 0.4", BETTER)))
    return BenchmarkPlan("Two & two", tmp_path / "out", (TaskPlan("nuclei", methods, style=methods, sweep=sweep),))


def test_four_files_are_written(benchmark):
    assert [path.name for path in write_benchmark(benchmark)] == [
        "benchmark.html",
        "tables.md",
        "tables.csv",
        "tables.tex",
    ]
    assert all(path.stat().st_size for path in benchmark.output.iterdir())


def test_the_page_needs_nothing_from_elsewhere_and_escapes_names(benchmark):
    page = write_benchmark(benchmark)[0].read_text()
    assert not re.search(r"https?://", page)
    assert "<co>" not in page
    assert "Fed_BCS &amp; &lt;co&gt;" in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    assert all(link.startswith(("#", "data:")) for link in re.findall(r'(?:href|src)="([^"]*)"', page))


def test_the_paper_s_figures_are_drawn(benchmark):
    page = write_benchmark(benchmark)[0].read_text()
    blocks = dict(re.findall(r'<article id="nuclei-(\w+)">(.*?)</article>', page, re.DOTALL))
    titles = {
        "sweep": ("Figure 3", "Test Dice by method::tau, nuclei"),
        "convergence": ("Figure 4 a", "Dice on the validation cases, by round"),
        "style": ("Figure 4 b", "Dice of every test case, by site"),
    }
    for block, (figure, title) in titles.items():
        assert figure in blocks[block]
        assert blocks[block].count("<img ") == blocks[block].count(f'alt="{title}"') == 1


def test_a_reconstruction_is_called_one_beneath_every_table_that_was_measured(row, tmp_path):
    rows = (row("FedAvg", DICES), row("FedContrast", BETTER, counts={"sent_prototypes": 9}))
    _, markdown, *_ = write_benchmark(
        BenchmarkPlan("x", tmp_path / "out", (TaskPlan("nuclei", rows, ablation=rows[:1]),))
    )
    for table in markdown.read_text().split("\n### ")[1:]:
        measured = "| FedContrast |" in table and not table.startswith("Published")
        assert ("FedContrast is a reconstruction" in table) == measured, table


def test_every_number_of_the_markdown_is_in_the_csv(benchmark):
    _, markdown, table, _ = write_benchmark(benchmark)
    rows = list(csv.DictReader(io.StringIO(table.read_text())))
    assert {row["task"] for row in rows} == {"nuclei"}
    average = next(row for row in rows if (row["table"], row["row"], row["column"]) == ("dice", "FedAvg", "AVG"))
    assert [float(average[part]) for part in ("value", "sd", "repeats")] == pytest.approx([63.75, 5.3033, 2])
    assert average["cases"] == "4"
    said = markdown.read_text()
    assert all(row["text"] in said for row in rows)


def test_latex_escapes_what_it_must(benchmark):
    said = write_benchmark(benchmark)[3].read_text()
    assert r"Fed\_BCS \& <co>" in said
    assert r"$\pm$" in said
    assert said.count(r"\begin{tabular}") == said.count(r"\end{tabular}") == said.count(r"\caption")
    assert not set("−–±✓") & set(said)


def test_the_files_are_the_same_whenever_they_are_written(benchmark):
    first = [path.read_bytes() for path in write_benchmark(benchmark)]
    assert [path.read_bytes() for path in write_benchmark(benchmark)] == first


def test_what_is_missing_is_said(row, tmp_path):
    benchmark = BenchmarkPlan("x", tmp_path / "out", (TaskPlan("nuclei", (row("FedAvg", DICES, {}),)),))
    page, markdown, *_ = write_benchmark(benchmark)
    for file in (page, markdown):
        assert "1 of 2 runs are not finished: fedavg_seed1." in file.read_text()


def test_nothing_is_written_before_a_run_is_finished(row, tmp_path):
    benchmark = BenchmarkPlan("x", tmp_path / "out", (TaskPlan("nuclei", (row("FedAvg", {}),)),))
    with pytest.raises(UserError, match="no run is finished"):
        write_benchmark(benchmark)
    assert not benchmark.output.exists()
