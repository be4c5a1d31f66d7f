"""Table files: every table as Markdown, CSV and LaTeX."""

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence

from fedbcs_monai.metrics.tables import LATEX, Difference, Interval, Spread, Value, text
from fedbcs_monai.report.scoreboard import Titled

COLUMNS = ("task", "table", "row", "column", "value", "sd", "repeats", "low", "high", "cases", "text")

Tables = Mapping[str, Sequence[Titled]]
"""From a task to its tables."""


def to_markdown(title: str, notes: Sequence[str], tables: Tables) -> str:
    """A document with a section a task."""
    parts = [f"# {title}", *notes]
    for task, found in tables.items():
        parts.append(f"## {task}")
        for one in found:
            parts += [f"### {one.title}", *([one.note] if one.note else []), one.table.to_markdown()]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def to_csv(tables: Tables) -> str:
    """One row a number: task, table, row, column, value, and its spread or interval; six digits, missing empty."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for task, found in tables.items():
        for one in found:
            for row in (*one.table.rows, *one.table.apart):
                for column, value in zip(one.table.columns[1:], row[1:], strict=True):
                    of = [task, one.key, text(row[0]), column.name]
                    writer.writerow([*of, *_numbers(value), column.cases or "", text(value, column.digits)])
    return out.getvalue()


def to_latex(title: str, tables: Tables) -> str:
    """A float a table, for a document to read in."""
    parts = [f"% {title}: tables of `fedbcs benchmark`. Needs \\usepackage{{booktabs,amssymb,graphicx}}."]
    for task, found in tables.items():
        for one in found:
            said = f"{task}. {one.title}. {one.note}".translate(LATEX).strip()
            lines = [
                r"\begin{table}[t]",
                r"\centering",
                rf"\caption{{{said}}}",
                rf"\label{{tab:{task}-{one.key}}}",
                r"\resizebox{\linewidth}{!}{%",
                one.table.to_latex().rstrip() + "}",
                r"\end{table}",
            ]
            parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def _numbers(value: Value) -> Iterator[str]:
    """Value, sd, repeats, low and high, as far as there are."""
    numbers: tuple[float, ...]
    if isinstance(value, str):
        numbers = (math.nan,) * 5
    elif isinstance(value, Spread):
        numbers = (value.mean, value.sd, value.repeats, math.nan, math.nan)
    elif isinstance(value, Difference):
        numbers = value
    elif isinstance(value, Interval):
        numbers = (value.value, math.nan, math.nan, value.low, value.high)
    else:
        numbers = (value, *(math.nan,) * 4)
    return (f"{number:.6g}" if math.isfinite(number) else "" for number in numbers)
