"""Score tables: per-site means of per-case scores, their uncertainty, and printed tables."""

import csv
import io
import math
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy.special import stdtrit

MISSING = "–"


def mean_of(count: int) -> str:
    """What stands for a case's name where a site reports only the mean of its cases."""
    return f"mean of {count}"


def cases_in(case: str) -> int:
    """How many cases a row of scores stands for, by the name in it.

    >>> cases_in(mean_of(6)), cases_in("0a1b2c3d")
    (6, 1)
    """
    count = re.fullmatch(r"mean of (\d+)", case)
    return int(count[1]) if count else 1


class Score(NamedTuple):
    """What one test case scored, or several on average; a value that is not finite means the score is undefined."""

    site: str
    case: str
    value: float

    @property
    def cases(self) -> int:
        """How many cases this is the mean of."""
        return cases_in(self.case)


class Spread(NamedTuple):
    """Mean and sample standard deviation of `repeats` values; with fewer than two repeats `sd` is NaN."""

    mean: float
    sd: float
    repeats: int


class Interval(NamedTuple):
    """A difference and the ends of its interval; without an interval they are NaN."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """How much one method scores above another: over repeated runs, and over test cases with the runs as they are.

    `sd` is the standard deviation over `repeats` runs that both have, NaN with fewer than two; `low` and `high` are the
    ends of the interval over test cases alone, NaN where there is none.
    """

    value: float
    sd: float
    repeats: int
    low: float
    high: float


def site_means(scores: Iterable[Score]) -> dict[str, float]:
    """Mean of the defined scores of every site, in order of appearance; NaN for a site with none.

    >>> site_means([Score("Elm", "a", 0.5), Score("Elm", "b", 1.0), Score("Elm", "c", math.nan)])
    {'Elm': 0.75}
    """
    values: dict[str, list[float]] = {}
    for score in scores:
        values.setdefault(score.site, []).append(score.value)
    return {site: mean_sd(of_site).mean for site, of_site in values.items()}


def case_means(repeats: Iterable[Iterable[Score]]) -> list[Score]:
    """One score a case: the mean of its defined scores over repeated runs."""
    values: dict[tuple[str, str], list[float]] = {}
    for scores in repeats:
        for score in scores:
            values.setdefault((score.site, score.case), []).append(score.value)
    return [Score(site, case, mean_sd(of_case).mean) for (site, case), of_case in values.items()]


def average(means: Mapping[str, float], unseen: Collection[str] = ()) -> float:
    """AVG: the unweighted mean over the sites that were trained on.

    One site without a number makes it NaN, because a mean over fewer sites is another quantity.
    """
    seen = [value for site, value in means.items() if site not in unseen]
    return sum(seen) / len(seen) if seen else math.nan


def worst_site(means: Mapping[str, float], unseen: Collection[str] = (), lower_is_worse: bool = True) -> str | None:
    """The trained site with the worst mean; the first of several equal ones, None if no site has a number."""
    seen = {site: value for site, value in means.items() if site not in unseen and math.isfinite(value)}
    if not seen:
        return None
    return min(seen, key=seen.__getitem__) if lower_is_worse else max(seen, key=seen.__getitem__)


def mean_sd(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation (n - 1) of the finite values."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Spread(math.nan, math.nan, 0)
    sd = float(np.std(finite, ddof=1)) if len(finite) > 1 else math.nan
    return Spread(float(np.mean(finite)), sd, len(finite))


def mean_interval(values: Iterable[float], level: float = 0.95) -> Interval:
    """Mean of the finite values with Student's interval of that mean; fewer than two values have no interval."""
    spread = mean_sd(values)
    if spread.repeats < 2:
        return Interval(spread.mean, math.nan, math.nan)
    half = float(stdtrit(spread.repeats - 1, (1 + level) / 2)) * spread.sd / math.sqrt(spread.repeats)
    return Interval(spread.mean, spread.mean - half, spread.mean + half)


def paired_bootstrap(
    a: Iterable[Score],
    b: Iterable[Score],
    resamples: int = 2000,
    seed: int = 0,
    unseen: Collection[str] = (),
    level: float = 0.95,
) -> Interval:
    """How much the AVG of `a` exceeds that of `b`, with the percentile interval of a paired bootstrap.

    Cases are drawn with replacement within each site, the same ones for `a` and `b`; cases that either lacks are left
    out. The interval covers what another choice of test cases could have given, not another training. Where a site has
    fewer than two of them, or reports only a mean, there is no interval. Without a common case at one of the sites
    everything is NaN, as their AVG is.
    """
    gains = _paired_gains(a, b, unseen)
    if not gains or not all(gains.values()):
        return Interval(math.nan, math.nan, math.nan)
    value = float(np.mean([np.mean(gain) for gain in gains.values()]))
    if any(len(gain) < 2 for gain in gains.values()):
        return Interval(value, math.nan, math.nan)
    generator = np.random.default_rng(seed)
    drawn = np.zeros(resamples)
    for gain in gains.values():
        picks = generator.integers(0, len(gain), size=(resamples, len(gain)))
        drawn += np.asarray(gain)[picks].mean(axis=1) / len(gains)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _paired_gains(a: Iterable[Score], b: Iterable[Score], unseen: Collection[str]) -> dict[str, list[float]]:
    """Finite differences of the cases that both have, of every trained site that either has."""
    one, other = ({(score.site, score.case): score.value for score in sorted(scores)} for scores in (a, b))
    gains: dict[str, list[float]] = {site: [] for site, _ in sorted(one.keys() | other.keys()) if site not in unseen}
    for site, case in sorted(one.keys() & other.keys()):
        gain = one[site, case] - other[site, case]
        if site not in unseen and math.isfinite(gain):
            gains[site].append(gain)
    return gains


Value = float | str | Spread | Interval | Difference


class Column(NamedTuple):
    """A column of a table: which end of it is better ("" ranks nothing), how many digits it shows, and of how many test
    cases its numbers are (0: of none).
    """

    name: str
    better: Literal["high", "low", ""] = ""
    digits: int = 1
    cases: int = 0


LATEX = str.maketrans(
    {
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
        **{"−": "$-$", "–": "--", "±": r"$\pm$", "τ": r"$\tau$", "✓": r"\checkmark{}"},
    }
)
"""What LaTeX would take for something else, or does not know."""


class Cell(NamedTuple):
    """A value as printed, and whether it is the best or the second of its column."""

    text: str
    mark: Literal["best", "second", ""] = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows of values, to be printed as Markdown, CSV or HTML.

    The best of a ranked column is bold and the second underlined, judged by the digits printed: equal numbers share a
    mark. A mean of fewer repeats than others in its column is not ranked. A lone row has no mark, and of two rows only
    the better one.

    >>> print(Table((Column("Method"), Column("AVG", "high")), (("FedAvg", 80.0), ("FedBCS", 81.24))).to_markdown())
    | Method | AVG |
    |---|---:|
    | FedAvg | 80.0 |
    | FedBCS | **81.2** |
    <BLANKLINE>
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    apart: tuple[tuple[Value, ...], ...] = ()
    """Rows printed below the others and not ranked with them, such as bounds."""

    def cells(self) -> list[list[Cell]]:
        """Every row as printed cells; those of `apart` come last, without marks."""
        marks = [self._marks(index) for index in range(len(self.columns))]
        return [
            [
                Cell(text(value, column.digits), marks[j][i] if i < len(self.rows) else "")
                for j, (column, value) in enumerate(zip(self.columns, row, strict=True))
            ]
            for i, row in enumerate((*self.rows, *self.apart))
        ]

    def _marks(self, index: int) -> list[Literal["best", "second", ""]]:
        column = self.columns[index]
        values = [row[index] for row in self.rows]
        most = max((value.repeats for value in values if isinstance(value, Spread)), default=0)
        less = [isinstance(value, Spread) and value.repeats < most for value in values]
        keys = [
            math.nan if few else round(_number(value), column.digits) for value, few in zip(values, less, strict=True)
        ]
        ranked = sorted({key for key in keys if math.isfinite(key)}, reverse=column.better == "high")
        if not column.better or len(ranked) < 2:
            return [""] * len(keys)
        second = ranked[1] if len(self.rows) > 2 else None
        return ["best" if key == ranked[0] else "second" if key == second else "" for key in keys]

    def to_markdown(self) -> str:
        """A Markdown table: best in bold, second underlined."""
        wrap = {"best": "**{}**", "second": "<u>{}</u>", "": "{}"}
        lines = [[column.name for column in self.columns]]
        lines += [[wrap[cell.mark].format(cell.text) for cell in row] for row in self.cells()]
        printed = ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]
        printed.insert(1, "|---" + "|---:" * (len(self.columns) - 1) + "|")
        return "\n".join(printed) + "\n"

    def to_latex(self) -> str:
        r"""A LaTeX `tabular` with booktabs rules: best in bold, second underlined, rows apart below a rule.

        >>> print(Table((Column("Method"), Column("AVG", "high")), (("A_1", 80.0), ("B", 81.0))).to_latex())
        \begin{tabular}{lr}
        \toprule
        Method & AVG \\
        \midrule
        A\_1 & 80.0 \\
        B & \textbf{81.0} \\
        \bottomrule
        \end{tabular}
        <BLANKLINE>
        """
        wrap = {"best": r"\textbf{%s}", "second": r"\underline{%s}", "": "%s"}
        lines = [[wrap[cell.mark] % cell.text.translate(LATEX) for cell in row] for row in self.cells()]
        printed = [" & ".join(line) + r" \\" for line in lines]
        heads = " & ".join(column.name.translate(LATEX) for column in self.columns) + r" \\"
        body = [*printed[: len(self.rows)], *([r"\midrule"] if self.apart else []), *printed[len(self.rows) :]]
        begin = rf"\begin{{tabular}}{{l{'r' * (len(self.columns) - 1)}}}"
        return "\n".join([begin, r"\toprule", heads, r"\midrule", *body, r"\bottomrule", r"\end{tabular}", ""])

    def to_csv(self) -> str:
        """A CSV for other programs: six digits, spreads and interval ends in columns of their own, missing empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        parts = [self._parts(index) for index in range(len(self.columns))]
        writer.writerow(
            [f"{column.name} {part}".strip() for column, of in zip(self.columns, parts, strict=True) for part in of]
        )
        for row in (*self.rows, *self.apart):
            writer.writerow([_plain(value, part) for value, of in zip(row, parts, strict=True) for part in of])
        return out.getvalue()

    def _parts(self, index: int) -> Sequence[str]:
        values = [row[index] for row in (*self.rows, *self.apart)]
        spread = any(isinstance(value, Spread | Difference) and math.isfinite(value.sd) for value in values)
        interval = any(isinstance(value, Interval | Difference) for value in values)
        return ["", *(["sd"] if spread else []), *(["low", "high"] if interval else [])]


def with_columns(
    table: Table, at: int, columns: Sequence[Column], values: Callable[[Sequence[Value]], tuple[Value, ...]]
) -> Table:
    """A table with more columns from position ``at`` on.

    Args:
        table: without them.
        at: where they begin.
        columns: their heads.
        values: from a row to what stands in them.
    """

    def wider(row: tuple[Value, ...]) -> tuple[Value, ...]:
        return (*row[:at], *values(row), *row[at:])

    heads = (*table.columns[:at], *columns, *table.columns[at:])
    return Table(heads, tuple(map(wider, table.rows)), tuple(map(wider, table.apart)))


def text(value: Value, digits: int = 1) -> str:
    """A value as a reader wants it: what is not finite is a dash, a difference carries its sign.

    >>> text(Spread(81.25, 0.5, 3)), text(Interval(-1.0, -2.04, 0.0)), text(math.nan)
    ('81.2 ± 0.5', '−1.0 [−2.0, 0.0]', '–')
    >>> text(Difference(7.8, 7.9, 3, 7.0, 8.6))
    '+7.8 ± 7.9 [7.0, 8.6]'
    """
    if isinstance(value, str):
        return value
    sd = value.sd if isinstance(value, Spread | Difference) else math.nan
    spread = f" ± {_fixed(sd, digits)}" if math.isfinite(sd) else ""
    if isinstance(value, Interval | Difference):
        ends = f" [{_fixed(value.low, digits)}, {_fixed(value.high, digits)}]" if math.isfinite(value.low) else ""
        return f"{signed(value.value, digits)}{spread}{ends}" if math.isfinite(value.value) else MISSING
    if isinstance(value, Spread):
        return _fixed(value.mean, digits) + spread
    return _fixed(value, digits)


def signed(value: float, digits: int = 1) -> str:
    """A difference with its sign; one that rounds to nothing has none."""
    printed = _fixed(value, digits)
    return f"+{printed}" if round(value, digits) > 0 else printed


def _fixed(value: float, digits: int) -> str:
    if not math.isfinite(value):
        return MISSING
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _number(value: Value) -> float:
    if isinstance(value, str):
        return math.nan
    if isinstance(value, Spread):
        return value.mean
    return value.value if isinstance(value, Interval | Difference) else value


def _plain(value: Value, part: str) -> str:
    if isinstance(value, str):
        return value if not part else ""
    number = getattr(value, part, math.nan) if part else _number(value)
    return f"{number:.6g}" if math.isfinite(number) else ""
