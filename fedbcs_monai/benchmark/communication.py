"""Communication cost: prototypes (Table 3) and bytes per round, counted in the messages."""

import math
from collections.abc import Iterable, Sequence

import numpy as np

from fedbcs_monai.benchmark.published import published
from fedbcs_monai.benchmark.results import TaskResults
from fedbcs_monai.metrics.tables import Column, Table, Value
from fedbcs_monai.report.groups import MethodGroup
from fedbcs_monai.report.scoreboard import Titled, scaled


def communication(results: TaskResults) -> list[Titled]:
    """Table 3: prototypes and bytes, counted from the messages."""
    tables = [_prototypes(results), _bytes(results)]
    found = published("prototypes", results.name)
    if found is not None and tables[0] is not None:
        tables.append(found.printed("published_prototypes", "Method"))
    return [table for table in tables if table is not None]


def _prototypes(results: TaskResults) -> Titled | None:
    """Prototypes per site and round, for the methods that send or receive any."""
    compared = results.methods
    kinds = ("sent_prototypes", "received_prototypes")
    sending = [group for group in compared.scored if any(_mean_of(group, kind, compared.trained) > 0 for kind in kinds)]
    found = published("prototypes", results.name)
    rows: list[tuple[Value, ...]] = []
    for group in sending:
        sent = [_mean_of(group, "sent_prototypes", [site]) for site in compared.trained]
        dice = scaled(group.average("dice", compared.tested, compared.unseen), 100)
        printed = [_mean(found.rows.get(group.label, [math.nan, math.nan])[:-1])] if found else []
        rows.append((group.label, *sent, _mean_of(group, "received_prototypes", compared.trained), dice, *printed))
    if not rows:
        return None
    columns = [Column("Method"), *(Column(site, "", 2) for site in compared.trained)]
    columns += [Column("received", "", 2), Column("AVG Dice", "high")]
    columns += [Column("sent, published (mean over its sites)", "", 2)] if found else []
    title = "Table 3. Prototypes that a site sends in a round"
    note = (
        "Vectors that describe a class, counted in the messages; mean over rounds and runs. Received: mean over sites."
    )
    return Titled("prototypes", title, Table(tuple(columns), tuple(rows)), note)


def _bytes(results: TaskResults) -> Titled | None:
    """KiB per site and round, network and payload apart, each way."""
    compared = results.methods
    kinds = ("sent_weight_bytes", "sent_shared_bytes", "received_weight_bytes", "received_shared_bytes")
    counted = {
        group.label: [_mean_of(group, kind, compared.trained) / 1024 for kind in kinds] for group in compared.scored
    }
    rows = [(label, *numbers, sum(numbers)) for label, numbers in counted.items() if math.isfinite(sum(numbers))]
    if not rows:
        return None
    names = ("network, sent", "payload, sent", "network, received", "payload, received", "together")
    note = (
        "Values of the tensors in the messages of training, mean over sites, rounds and runs; "
        "what a transport adds or saves is not in it."
    )
    columns = (Column("Method"), *(Column(name, "", 1) for name in names))
    return Titled("bytes", "KiB that a site sends and receives in a round", Table(columns, tuple(rows)), note)


def _mean_of(group: MethodGroup, metric: str, sites: Sequence[str]) -> float:
    """Mean over runs, sites and rounds of something that was counted."""
    return _mean([_mean(run.curves.get(metric, {}).get(site, {}).values()) for run in group.scored for site in sites])


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(np.mean(found)) if found else math.nan
