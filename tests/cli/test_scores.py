"""What the command line says of scores: true counts, and numbers and nulls in JSON."""

import csv
import json
import math

import pytest

from fedbcs_monai.backends.local import train
from fedbcs_monai.bundle.record import read_record
from fedbcs_monai.cli import main
from fedbcs_monai.cli.console import JsonConsole, RichConsole
from fedbcs_monai.cli.scores import COVERED, score_table, summary
from fedbcs_monai.config import load_config
from fedbcs_monai.data.sites import read_sites, write_sites
from fedbcs_monai.metrics.cases import CaseScore


@pytest.fixture(scope="module")
def run(tiny):
    return train(tiny(rounds=1))


def lines(capsys):
    """Objects in JSON proper, which has no NaN."""

    def refuse(constant):
        raise ValueError(f"{constant} is no JSON")

    return [json.loads(line, parse_constant=refuse) for line in capsys.readouterr().out.splitlines()]


def summary_of(*sites):
    cases = {"train": 4, "val": 1, "test": 2}
    return {"name": "FedAvg", "rounds": 1, "selected_round": 1, "sites": dict.fromkeys(sites, cases)}


def test_a_row_is_of_its_cases_and_of_what_is_defined():
    each = [CaseScore("a", 0.5, 4.0, math.nan, math.nan), CaseScore("b", 1.0, math.nan, math.nan, math.nan)]
    assert summary("Ash", each) == ["Ash", 2, 75.0, 4.0, None]
    assert summary("Ash", [CaseScore("mean of 6", 0.5, math.nan, math.nan, math.nan)]) == ["Ash", 6, 50.0, None, None]
    assert summary("Ash", []) == ["Ash", 0, None, None, None]


def test_scores_of_a_run_are_numbers_and_nulls_in_json_and_name_every_site(run, tmp_path, capsys):
    """Alder tells a mean of two cases, Birch nothing."""
    rows = [("selected", "Alder", "test", "mean of 2", 0.5, "nan", "", "nan")]
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("model", "site", "split", *CaseScore._fields), *rows])
    (tmp_path / "summary.json").write_text(json.dumps(summary_of("Alder", "Birch")))
    (tmp_path / "rounds.csv").write_text("round,site,metric,value\n")
    score_table(tmp_path, JsonConsole())
    note, alder, birch = lines(capsys)
    assert note["text"] == COVERED
    assert list(alder.values())[1:] == ["Alder", 2, 50.0, None, None]
    assert list(birch.values())[1:] == ["Birch", 0, None, None, None]
    score_table(tmp_path, RichConsole())
    assert [part.strip() for part in capsys.readouterr().out.splitlines()[-2].strip("│").split("│")] == [
        *("Birch", "0", "-", "-", "-")
    ]


def test_json_has_no_number_that_is_not_finite(capsys):
    JsonConsole().on_evaluation(3, {"Alder": math.nan, "Birch": 0.5})
    JsonConsole().on_client_end(3, "Alder", {"loss": math.inf})
    evaluated, trained = lines(capsys)
    assert evaluated["val_dice_percent"] == {"Alder": None, "Birch": 50.0}
    assert trained["loss"] is None


def test_an_evaluation_names_the_sites_without_cases(run, nuclei_sites, tmp_path, capsys):
    first, *others = read_sites(nuclei_sites).values()
    kept = tuple(case for case in first.cases if case.split != "test")
    write_sites(tmp_path / "fewer.json", [type(first)(first.name, "", first.root, kept), *others], "nuclei")
    assert main(["evaluate", str(run), "--sites", str(tmp_path / "fewer.json"), "--json"]) == 0
    said = lines(capsys)
    assert f"{first.name} has no labelled test cases: not scored" in [line.get("text") for line in said]
    scored = [line for line in said if "dice_percent" in line]
    assert [line["site"] for line in scored] == sorted(site.name for site in others)
    assert all(isinstance(line["dice_percent"], float) and isinstance(line["cases"], int) for line in scored)


def test_a_record_counts_the_cases_of_a_mean(run, tmp_path):
    """0.5 of six cases at Alder and 0.7 of three at Birch, one undefined: 0.6 of nine; a site weighs as another."""
    config = load_config(run / "config.json")
    for name in ("summary.json", "environment.json"):
        (tmp_path / name).write_text((run / name).read_text())
    rows = [("selected", "Alder", "test", "mean of 6", 0.5), ("selected", "Elm", "test", "mean of 9", 0.1)]
    rows += [("selected", "Birch", "test", name, dice) for name, dice in (("1", 0.6), ("2", 0.8), ("3", "nan"))]
    full = [(*row, "nan", "nan", "nan") for row in rows]
    with (tmp_path / "scores.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("model", "site", "split", *CaseScore._fields), *full])
    record = read_record(tmp_path, config, "selected")
    assert {site: score["cases"] for site, score in record.scores.items()} == {"Alder": 6, "Birch": 3, "Elm": 9}
    assert record.scores["Birch"]["dice"] == 0.7
    assert record.scores["Birch"]["hd95_mm"] is None
    assert (record.mean_dice, record.test_cases) == (pytest.approx(0.6), 9)
