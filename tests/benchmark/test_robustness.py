"""The benchmark of robustness: one attack and one rule, from nothing to a row."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_prints_a_row_for_each_attack_and_a_column_for_each_rule():
    words = ["--rounds", "1", "--cases", "4", "--methods", "FedAvg", "--attacks", "x10"]
    words += ["--rules", "coordinate_median", "krum"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "robustness.py", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    (row,) = [line for line in done.stdout.splitlines() if line.startswith("| x10")]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert 0 <= float(cells[1].split()[0]) <= 1
    assert cells[2] == "-"  # krum with one hostile site needs five
