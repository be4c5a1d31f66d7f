"""``fedbcs list``: everything that can be named, with one line about it."""

import json

from fedbcs_monai.catalog import benchmarks, sizes, tasks, variants
from fedbcs_monai.cli.main import main
from fedbcs_monai.registry import method_names


def test_everything_that_can_be_named_is_listed_with_a_line(capsys):
    assert main(["list", "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert all(record["about"] for record in records)
    named = {event: [r["name"] for r in records if r["event"] == event] for event in {r["event"] for r in records}}
    assert named == {
        "task": tasks(),
        "size": [f"{task} --size {size}" for task in tasks() for size in sizes(task)],
        "method": method_names(),
        "variant": variants(),
        "benchmark": benchmarks(),
    }


def test_the_list_is_printed_in_five_tables(capsys):
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert [line for line in said.splitlines() if line.isalpha()] == [
        *("tasks", "sizes", "methods", "variants", "benchmarks")
    ]
    assert "FedBCS" in said
