"""Compare two versions of a day's rows: find added, removed and changed rows.

Trips have no key. Rows that are equal in every column cancel out, one for one. Of the rest, two
rows with the same pickup time are one changed row if most of their columns agree; the closest pairs
are matched first. All other rows were added or removed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import pandas as pd
import pyarrow as pa
from pandas.util import hash_pandas_object

from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import convert_to_frame, parse_partition, sum_total_amount

EXAMPLES = 5
"""Number of rows of each kind that are shown."""
MAX_ROWS = 100_000
"""Number of differing rows per version that are compared one by one."""
MAX_PAIRS = 200_000
"""Number of pairs with the same pickup time that are compared; further rows count as added and
removed."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class RowDiff:
    """The difference between two versions of a day."""

    rows_before: int
    rows_after: int
    added: int = 0
    removed: int = 0
    changed: int = 0
    columns: dict[str, int] = field(default_factory=dict[str, int])
    """Number of changed rows by column."""
    revenue_change: float | None = None
    """Revenue after minus before, in dollars; None for a service without revenue."""
    examples: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """`added` and `removed` rows with their values, and `changed` rows with both values."""

    @property
    def is_empty(self) -> bool:
        """Whether both versions have the same rows, in any order."""
        return not (self.added or self.removed or self.changed)

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.removed} removed, {self.changed} changed"
        columns = ", ".join(f"{name} in {rows}" for name, rows in self.columns.items())
        money = "" if self.revenue_change is None else f"; revenue {self.revenue_change:+,.2f}"
        return f"{counts}{f' ({columns})' if columns else ''}{money}"


def diff_rows(before: pa.Table, after: pa.Table, service: Service) -> RowDiff:
    """Compare two versions of a day, both in the service's columns and types."""
    columns = [column.name for column in service.columns]
    old_table, new_table = _remove_common_rows(before.select(columns), after.select(columns))
    old_rows, new_rows = _list_rows(old_table), _list_rows(new_table)
    pairs = _pair_rows(old_rows, new_rows, columns.index(service.pickup_column))
    changed = [(old_rows[old], new_rows[new]) for old, new in pairs]
    paired_old, paired_new = {old for old, _ in pairs}, {new for _, new in pairs}
    removed = [row for at, row in enumerate(old_rows) if at not in paired_old]
    added = [row for at, row in enumerate(new_rows) if at not in paired_new]
    by_column = Counter(
        name
        for old_row, new_row in changed
        for name, old, new in zip(columns, old_row, new_row, strict=True)
        if old != new
    )
    return RowDiff(
        before.num_rows,
        after.num_rows,
        new_table.num_rows - len(pairs),
        old_table.num_rows - len(pairs),
        len(pairs),
        dict(by_column.most_common()),
        _compute_revenue_change(before, after, service),
        {
            "added": [_format_row(row, columns) for row in added[:EXAMPLES]],
            "removed": [_format_row(row, columns) for row in removed[:EXAMPLES]],
            "changed": [
                _describe_change(old, new, columns, service) for old, new in changed[:EXAMPLES]
            ],
        },
    )


def diff_content(
    before: pa.Buffer | pa.Table, after: pa.Buffer | pa.Table, service: Service
) -> RowDiff:
    """Compare two raw contents of a day by the service's columns, CSV or Parquet alike.

    Rows with a value that is not of its column's type take no part; checks name them.

    Raises:
        PartitionRejectedError: the columns of one are not the service's.
    """
    return diff_rows(
        parse_partition(before, service).table, parse_partition(after, service).table, service
    )


def sum_diffs(diffs: Iterable[RowDiff]) -> RowDiff:
    """Add up the differences of several days; the examples are those of the first days."""
    total = list(diffs)
    columns: Counter[str] = Counter()
    examples: dict[str, list[Any]] = defaultdict(list)
    for diff in total:
        columns.update(diff.columns)
        for kind, rows in diff.examples.items():
            examples[kind] += rows
    money = [diff.revenue_change for diff in total if diff.revenue_change is not None]
    return RowDiff(
        sum(diff.rows_before for diff in total),
        sum(diff.rows_after for diff in total),
        sum(diff.added for diff in total),
        sum(diff.removed for diff in total),
        sum(diff.changed for diff in total),
        dict(columns.most_common()),
        round(sum(money), 2) if money else None,
        {kind: rows[:EXAMPLES] for kind, rows in examples.items()},
    )


def _remove_common_rows(before: pa.Table, after: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows of each version that are not in the other, with multiplicity.

    Rows are compared by 64-bit hashes of all their columns; a day has up to a million rows.
    """
    old, new = _hash_rows(before), _hash_rows(after)
    return before.filter(pa.array(~old.isin(new))), after.filter(pa.array(~new.isin(old)))


def _hash_rows(table: pa.Table) -> pd.Series[Any]:
    """Return a hash of each row and of its number among equal rows."""
    # With nullable types the hash of an id does not depend on nulls in its column.
    rows = hash_pandas_object(convert_to_frame(table), index=False)
    numbered = rows.to_frame("row").assign(nth=rows.groupby(rows).cumcount())
    return hash_pandas_object(numbered, index=False)


def _list_rows(table: pa.Table) -> list[Row]:
    """Return rows as tuples with NaN replaced by None."""
    values = [
        [None if value != value else value for value in column.to_pylist()]  # noqa: PLR0124 - NaN
        for column in table.slice(0, MAX_ROWS).columns
    ]
    return list(zip(*values, strict=True))


def _pair_rows(
    old_rows: Sequence[Row], new_rows: Sequence[Row], pickup: int
) -> list[tuple[int, int]]:
    """Pair positions of rows with the same pickup that differ in under half of their columns."""
    by_time: defaultdict[Any, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for version, rows in enumerate((old_rows, new_rows)):
        for at, row in enumerate(rows):
            by_time[row[pickup]][version].append(at)
    candidates: list[tuple[int, int, int]] = []
    for old_places, new_places in by_time.values():
        if len(candidates) + len(old_places) * len(new_places) > MAX_PAIRS:
            continue
        for old, new in product(old_places, new_places):
            differing = sum(a != b for a, b in zip(old_rows[old], new_rows[new], strict=True))
            if differing * 2 < len(old_rows[old]):
                candidates.append((differing, old, new))
    paired_old, paired_new = set[int](), set[int]()
    pairs: list[tuple[int, int]] = []
    for _, old, new in sorted(candidates):
        if old not in paired_old and new not in paired_new:
            paired_old.add(old)
            paired_new.add(new)
            pairs.append((old, new))
    return sorted(pairs)


def _compute_revenue_change(before: pa.Table, after: pa.Table, service: Service) -> float | None:
    if service.total is None:
        return None
    sums = [sum_total_amount(table, service) or 0.0 for table in (before, after)]
    return round(sums[1] - sums[0], 2)


def _describe_change(
    old_row: Row, new_row: Row, columns: Sequence[str], service: Service
) -> dict[str, Any]:
    """Return the pickup of a changed row, and both values of each differing column."""
    changes = {
        name: (_format_value(old), _format_value(new))
        for name, old, new in zip(columns, old_row, new_row, strict=True)
        if old != new
    }
    pickup = _format_value(old_row[columns.index(service.pickup_column)])
    return {"pickup": pickup, "changes": changes}


def _format_row(row: Row, columns: Sequence[str]) -> dict[str, str]:
    """Return the values of a row that are not null."""
    return {
        name: _format_value(value)
        for name, value in zip(columns, row, strict=True)
        if value is not None
    }


def _format_value(value: object) -> str:
    return "null" if value is None else str(value)
