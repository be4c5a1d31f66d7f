"""Published results: the numbers printed in the paper, kept apart from measured ones."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from fedbcs_monai.metrics.tables import Column, Interval, Table, Value, with_columns
from fedbcs_monai.report.scoreboard import Titled


class Published(NamedTuple):
    """One task of one published table.

    Args:
        source: the paper.
        title: of the table.
        sites: columns.
        rows: from a row's name to a number for each site, and the printed AVG last.
    """

    source: str
    title: str
    sites: Sequence[str]
    rows: Mapping[str, Sequence[float]]

    def average(self, row: str) -> float:
        """The printed AVG of a row; NaN where there is none."""
        return self.rows[row][-1] if row in self.rows else math.nan

    def printed(self, key: str, first: str) -> Titled:
        """The table as it was printed; ``first`` heads the column of names."""
        columns = (Column(first), *(Column(site, "high", 2) for site in (*self.sites, "AVG")))
        table = Table(columns, tuple((name, *numbers) for name, numbers in self.rows.items()))
        note = f"Figures of the paper ({self.source}), from other data: not to be ranked with what was measured here."
        return Titled(key, f"Published: {self.title}", table, note)

    def beside(self, table: Table, reference: str, named: Callable[[Sequence[Value]], str]) -> Table:
        """A measured table with the published AVG, and its difference to a published row, in every row.

        Args:
            table: measured.
            reference: name of the published row that is subtracted.
            named: from a measured row to the name of its published one.
        """

        def values(row: Sequence[Value]) -> tuple[Value, ...]:
            less = Interval(self.average(named(row)) - self.average(reference), math.nan, math.nan)
            return self.average(named(row)), "reference" if named(row) == reference else less

        columns = (Column("AVG, published", "", 2), Column(f"AVG − {reference}, published", "", 2))
        return with_columns(table, len(table.columns), columns, values)


def published(table: str, task: str) -> Published | None:
    """A published table: ``comparison``, ``ablation`` or ``prototypes``; None where the paper has none of this task."""
    content = _content()
    found = content[table].get(task)
    return found and Published(content["source"], content[table]["title"], found["sites"], found["rows"])


@cache
def _content() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(__file__).with_name("published.json").read_text(encoding="utf-8"))
    return found
