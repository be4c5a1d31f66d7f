"""Documentation: every command and link of a page works as the page says."""

import csv
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedbcs_monai.benchmark.read_plan import Choice, read_suite

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
SMALL = ("--network_def::features", "[8, 8, 16, 16, 16]", "--batch_size", "2", "--device", "cpu")
PROGRAMS = {"fedbcs": "fedbcs_monai", "pytest": "pytest"}
"""The module behind each name, since a name is on the PATH only where the environment is activated."""
QUICK = {"fedbcs train": SMALL, "fedbcs benchmark": (*SMALL, "--rounds", "2", "--seeds", "0"), "pytest": ("-q",)}
"""So that a command of a document takes seconds."""


def blocks(text, *languages):
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for language, block in found if language in languages]


def anchors(path):
    """The names of the headings of a page, as Markdown on a web page spells them."""
    prose = re.sub(r"^```.*?^```$", "", path.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, anchor = target.partition("#")
            there = (page.parent / path).resolve() if path else page
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


def test_the_tables_of_recipes_are_those_of_the_data():
    with (ROOT / "results" / "recipes" / "trials.csv").open(encoding="utf-8") as file:
        trials = list(csv.DictReader(file))
    text = (DOCS / "concepts" / "recipes.md").read_text(encoding="utf-8").replace("**", "")
    shown = re.findall(r"^\| (.*?) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| (\d+|–) \|$", text, re.MULTILINE)
    columns = ("setting", "rounds", "validation", "test", "worst_site", "cpu_s")
    assert shown == [tuple(trial[column] or "–" for column in columns) for trial in trials]


@pytest.fixture(scope="module")
def page():
    return (DOCS / "how-to" / "add_a_method.md").read_text(encoding="utf-8")


def test_a_method_takes_at_most_60_lines(page):
    code = "".join(blocks(page, "python", "yaml"))
    assert 0 < sum(bool(line.strip()) for line in code.splitlines()) <= 60


def test_a_method_goes_from_nothing_to_a_row(page, nuclei_sites, tmp_path):
    here = shutil.copytree(nuclei_sites.parent, tmp_path / "here")
    for text in blocks(page, "python", "yaml"):
        (here / text.splitlines()[0].removeprefix("# ")).write_text(text, encoding="utf-8")
    commands = [line for text in blocks(page, "") for line in text.splitlines()]
    assert commands.pop(0) == "export PYTHONPATH=."
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([".", os.environ.get("PYTHONPATH", "")])}
    for command in commands:
        more = next(options for start, options in QUICK.items() if command.startswith(start))
        name, *words = command.split()
        python = [sys.executable, "-m", PROGRAMS[name]]
        done = subprocess.run([*python, *words, *more], cwd=here, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    rows = (here / "runs" / "mine" / "tables.md").read_text(encoding="utf-8")
    assert "| FedAvg |" in rows
    assert "| FedMoment |" in rows


SUITES = {"every_level": ["small"], "encoder_levels": ["small", "shift", "batch"]}


@pytest.mark.parametrize(("state", "name"), [(state, name) for state, names in SUITES.items() for name in names])
def test_the_data_have_every_method_and_bound_of_a_suite(state, name, nuclei_sites, tmp_path):
    sites = dict.fromkeys(("nuclei", "prostate"), nuclei_sites)
    for plan in read_suite(name, tmp_path, Choice(sites=sites)).tasks:
        with (ROOT / "results" / f"benchmark_{name}" / state / f"{plan.name}_dice.csv").open(
            encoding="utf-8"
        ) as stream:
            rows = {row["Method"] for row in csv.DictReader(stream)}
        assert rows >= {row.label for row in (*plan.methods, *plan.bounds)}


@pytest.fixture(scope="module")
def pages():
    """The script that makes the tables of the pages of results."""
    made = importlib.util.spec_from_file_location("pages", ROOT / "benchmarks" / "pages.py")
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["results.md", "study.md"])
def test_every_table_of_a_page_of_results_is_that_of_the_data(name, pages):
    text = (DOCS / name).read_text(encoding="utf-8")
    assert pages.rendered(name, text) == text
    (before, _), (_, after) = text.split(pages.START), text.split(pages.END)
    assert not re.search(r"^\|", before + after, re.MULTILINE)


@pytest.mark.parametrize("name", ["results.md", "study.md"])
def test_every_decimal_of_a_page_of_results_is_in_the_data(name):
    data = "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "results").rglob("*.csv")))
    prose = re.sub(r"^```.*?^```$", "", (DOCS / name).read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    numbers = set(re.findall(r"\d+\.\d+", prose))
    assert len(numbers) > 10
    assert numbers - set(re.findall(r"\d+\.\d+", data)) == set()
