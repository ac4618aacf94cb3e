"""What differs between two versions of a day's rows: added, removed and changed ones.

Trips have no key. Rows that are equal in every column cancel each other out, each once. Of the
rest, two rows with the same pickup time are one changed row if most of their columns agree; the
closest pair comes first. Everything else was added or removed.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import convert_to_frame
from taxi_assets.trips.parse import parse_partition

EXAMPLES = 5
"""Rows of each kind that are shown."""
MAX_ROWS = 100_000
"""Rows of a version that the other one does not have and that are looked at one by one."""
MAX_PAIRS = 200_000
"""Pairs of rows with one pickup time that are compared; rows beyond are added and removed ones."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class ChangedRow:
    """One row before and after, by the columns that differ."""

    pickup: str
    changes: dict[str, tuple[str, str]]


@dataclass(frozen=True)
class RowDiff:
    """How one version of a day differs from the other."""

    rows_before: int
    rows_after: int
    added: int = 0
    removed: int = 0
    changed: int = 0
    columns: dict[str, int] = field(default_factory=dict[str, int])
    """Changed rows by column."""
    revenue_change: float | None = None
    """Of all rows, after less before; None for a service without a column of revenue."""
    examples: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    """`added` and `removed` rows by column, and `changed` ones with both values."""

    @property
    def is_empty(self) -> bool:
        """Whether the versions hold the same rows, in whatever order."""
        return not (self.added or self.removed or self.changed)

    def figures(self) -> dict[str, Any]:
        """Return plain values for records and pages."""
        return asdict(self)

    def __str__(self) -> str:
        counts = f"{self.added} added, {self.removed} removed, {self.changed} changed"
        columns = ", ".join(f"{name} in {rows}" for name, rows in self.columns.items())
        money = "" if self.revenue_change is None else f"; revenue {self.revenue_change:+,.2f}"
        return f"{counts}{f' ({columns})' if columns else ''}{money}"


def diff_rows(before: pa.Table, after: pa.Table, service: Service) -> RowDiff:
    """Compare two versions of a day, both in the service's columns and types."""
    columns = [column.name for column in service.columns]
    left, right = _without_common(before.select(columns), after.select(columns))
    gone, come = _rows(left), _rows(right)
    pairs = _pair(gone, come, columns.index(service.pickup_column))
    changed = [(gone[one], come[other]) for one, other in pairs]
    lost, won = {one for one, _ in pairs}, {other for _, other in pairs}
    removed = [row for at, row in enumerate(gone) if at not in lost]
    added = [row for at, row in enumerate(come) if at not in won]
    by_column = Counter(
        name
        for old, new in changed
        for name, one, other in zip(columns, old, new, strict=True)
        if one != other
    )
    return RowDiff(
        before.num_rows,
        after.num_rows,
        right.num_rows - len(pairs),
        left.num_rows - len(pairs),
        len(pairs),
        dict(by_column.most_common()),
        _revenue_change(before, after, service),
        {
            "added": [_shown(row, columns) for row in added[:EXAMPLES]],
            "removed": [_shown(row, columns) for row in removed[:EXAMPLES]],
            "changed": [
                asdict(_changed(old, new, columns, service)) for old, new in changed[:EXAMPLES]
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
    """Add up the days of a month; the examples are the first ones."""
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


def _without_common(before: pa.Table, after: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Return the rows of each version that the other does not have, with multiplicity.

    Rows are compared by 64-bit hashes of all their columns; a day has up to a million rows.
    """
    old, new = _hashes(before), _hashes(after)
    counts = Counter(old.tolist())
    counts.subtract(new.tolist())
    return before.filter(_surplus(old, counts, 1)), after.filter(_surplus(new, counts, -1))


def _hashes(table: pa.Table) -> npt.NDArray[np.uint64]:
    from pandas.util import hash_pandas_object  # noqa: PLC0415 - heavy at import

    # With nullable types an id has one hash, whether or not its column has nulls.
    return np.asarray(hash_pandas_object(convert_to_frame(table), index=False), np.uint64)


def _surplus(hashes: npt.NDArray[np.uint64], counts: Counter[int], sign: int) -> pa.Array:
    """Return which rows exceed those of the other version; of equal rows the first."""
    left = {row: sign * rows for row, rows in counts.items() if sign * rows > 0}
    mask = list[bool]()
    for row in hashes.tolist():
        more = left.get(row, 0)
        mask.append(more > 0)
        if more > 0:
            left[row] = more - 1
    return pa.array(mask, pa.bool_())


def _rows(table: pa.Table) -> list[Row]:
    """Return rows as tuples with NaN replaced by null."""
    values = [
        [None if value != value else value for value in column.to_pylist()]  # noqa: PLR0124 - NaN
        for column in table.slice(0, MAX_ROWS).columns
    ]
    return list(zip(*values, strict=True))


def _pair(gone: Sequence[Row], come: Sequence[Row], pickup: int) -> list[tuple[int, int]]:
    """Match positions of rows of one pickup time that differ in under half of their columns."""
    by_time: defaultdict[Any, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for at, row in enumerate(gone):
        by_time[row[pickup]][0].append(at)
    for at, row in enumerate(come):
        by_time[row[pickup]][1].append(at)
    candidates: list[tuple[int, int, int]] = []
    for left, right in by_time.values():
        if len(candidates) + len(left) * len(right) > MAX_PAIRS:
            continue
        for one in left:
            for other in right:
                differing = sum(a != b for a, b in zip(gone[one], come[other], strict=True))
                if differing * 2 < len(gone[one]):
                    candidates.append((differing, one, other))
    used_left, used_right = set[int](), set[int]()
    found: list[tuple[int, int]] = []
    for _, one, other in sorted(candidates):
        if one not in used_left and other not in used_right:
            used_left.add(one)
            used_right.add(other)
            found.append((one, other))
    return sorted(found)


def _revenue_change(before: pa.Table, after: pa.Table, service: Service) -> float | None:
    if service.total is None:
        return None
    sums = [float(pc.sum(table[service.total]).as_py() or 0) for table in (before, after)]
    return round(sums[1] - sums[0], 2)


def _changed(left: Row, right: Row, columns: Sequence[str], service: Service) -> ChangedRow:
    at = columns.index(service.pickup_column)
    return ChangedRow(
        _text(left[at]),
        {
            name: (_text(one), _text(other))
            for name, one, other in zip(columns, left, right, strict=True)
            if one != other
        },
    )


def _shown(row: Row, columns: Sequence[str]) -> dict[str, str]:
    """Return the values of a row that are not null."""
    return {
        name: _text(value) for name, value in zip(columns, row, strict=True) if value is not None
    }


def _text(value: object) -> str:
    if isinstance(value, datetime | date):
        return str(value)
    return "null" if value is None else str(value)
