"""Profile a day's cleaned rows: figures of each column, the first rows, three distributions.

Each column is counted once, on the table that is about to be stored. The profile is stored with it,
so that every store reports the same figures without reading the rows again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import reduce
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.tlc.column import SHARED, normalize_name
from taxi_assets.tlc.schema import Interval, Service

FIRST_ROWS = 5
TOP_VALUES = 3
FEW_VALUES = 32
"""Number of values up to which a full sort is as fast as a partial one."""
HOURS = 24
MICROSECONDS = 1_000_000
EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - New York wall time
FEW_DAYS = 7 * 24 * 3600
"""Seconds."""

Value = str | int | float | None


@dataclass(frozen=True)
class Bins:
    """The bins of a column's values, which are the same for every day so that days compare."""

    column: str
    width: float
    """Width of a bin, in the column's unit."""
    count: int = 24

    @property
    def end(self) -> float:
        """End of the last bin."""
        return self.width * self.count

    def count_rows(self, values: Any, rows: Any) -> list[int]:
        """Return the number of rows below 0, in each bin, and from `end` on."""
        places = np.clip(np.floor(values / self.width), -1, self.count).astype(np.int64) + 1
        return [int(count) for count in np.bincount(places, rows, self.count + 2)]


def list_bins(service: Service) -> list[Bins]:
    """Return the bins for a service's charts: of amounts, then of intervals."""
    widths = {column.name: column.bin_width for column in service.columns}
    widths |= {interval.name: interval.bin_width for interval in service.intervals}
    return [Bins(name, width) for name, width in widths.items() if width]


@dataclass(frozen=True)
class ColumnProfile:
    """Figures of one column of a day; None if the column has no such figure."""

    column: str
    nulls: int
    distinct: int = 0
    """Distinct values that are not null."""
    least: Value = None
    mean: float | None = None
    most: Value = None
    top: list[tuple[Value, int]] = field(default_factory=list[tuple[Value, int]])
    """The most frequent values and their number of rows; empty for times."""
    median: float | None = None
    """Median of an amount; None in partitions that were stored before it was computed."""


@dataclass(frozen=True)
class DayProfile:
    """Figures of a day's rows."""

    rows: int
    columns: list[ColumnProfile]
    first: list[list[Value]]
    """Values of the first rows, in the order of the columns; times as `2021-01-05 08:30:00`."""
    hours: list[int]
    """Number of rows by hour of the pickup."""
    bins: dict[str, list[int]]
    """Number of rows by bin of `list_bins`, by column or interval."""
    medians: dict[str, float]
    """Medians of the columns and intervals with bins."""
    shared: int | None = None
    """Number of shared rides; None if the service does not publish it."""
    zones: dict[str, int] = field(default_factory=dict[str, int])
    """Number of rows by pickup zone."""

    def to_metadata(self) -> dict[str, Any]:
        """Return plain values for the metadata of a stored object.

        `dataclasses.asdict` copies every number of them, which takes 5 ms a day.
        """
        return {**vars(self), "columns": [dict(vars(column)) for column in self.columns]}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> DayProfile | None:
        """Create a profile from a stored object's metadata; None if it has another form."""
        if set(metadata) != {figure.name for figure in fields(cls)}:
            return None
        columns = [
            ColumnProfile(**{**column, "top": [tuple(pair) for pair in column["top"]]})
            for column in metadata["columns"]
        ]
        return cls(**{**metadata, "columns": columns})


def profile_partition(table: pa.Table, service: Service) -> DayProfile:
    """Return the profile of a day's cleaned rows, which are in the service's schema."""
    binned = {bins.column: bins for bins in list_bins(service)}
    columns: list[ColumnProfile] = []
    counts: dict[str, list[int]] = {}
    medians: dict[str, float] = {}
    zones: dict[str, int] = {}
    for name, chunks in zip(table.schema.names, table.columns, strict=True):
        values = chunks.combine_chunks() if chunks.num_chunks != 1 else chunks.chunk(0)
        if pa.types.is_timestamp(values.type):
            columns.append(_profile_times(name, values))
            continue
        distinct, rows = _count_values(values)
        if pa.types.is_string(values.type):
            columns.append(_profile_texts(name, distinct, rows, values.null_count))
            continue
        numbers = distinct.to_numpy()
        middle = (
            _compute_median(numbers, rows)
            if len(rows) and service.by_name[normalize_name(name)].kind == "amount"
            else None
        )
        columns.append(_profile_numbers(name, numbers, rows, values.null_count, middle))
        if name == service.find_role("pickup_zone"):
            zones = dict(zip(map(str, numbers.tolist()), rows.tolist(), strict=True))
        if name in binned:
            counts[name] = binned[name].count_rows(numbers, rows)
            if middle is not None:
                medians[name] = middle
    for interval in service.intervals:
        if interval.name not in binned:
            continue
        minutes, rows = _count_values(measure_minutes(table, service, interval))
        counts[interval.name] = binned[interval.name].count_rows(minutes.to_numpy(), rows)
        if len(rows):
            medians[interval.name] = _compute_median(minutes.to_numpy(), rows)
    hours = _count_by_hour(table[service.pickup_column].combine_chunks())
    shared = count_shared(table, service)
    return DayProfile(
        table.num_rows, columns, _take_first_rows(table), hours, counts, medians, shared, zones
    )


def measure_minutes(table: pa.Table, service: Service, interval: Interval) -> pa.Array:
    """Return the length of an interval in each row, in minutes with two decimals."""
    begin, end = (
        table[service.by_name[normalize_name(name)].name].combine_chunks().cast(pa.int64())
        for name in (interval.begin, interval.end)
    )
    hundredths = pc.divide(pc.subtract(end, begin), 60 * MICROSECONDS // 100)
    return pc.divide(hundredths.cast(pa.float64()), 100.0)


def count_shared(table: pa.Table, service: Service) -> int | None:
    """Return the number of shared rides; None if no column marks them."""
    marks = [
        pc.fill_null(pc.equal(table[column.name], SHARED[column.kind]), False)
        for column in service.by_role.get("shared", ())
        if column.name in table.schema.names
    ]
    if not marks:
        return None
    return int(pc.sum(reduce(pc.or_, marks)).as_py() or 0)


def _take_first_rows(table: pa.Table) -> list[list[Value]]:
    rows: list[dict[str, Any]] = table.slice(0, FIRST_ROWS).to_pylist()
    return [[_to_plain_value(value) for value in row.values()] for row in rows]


def _count_values(values: pa.Array) -> tuple[pa.Array, Any]:
    """Return the distinct values without null, and their counts."""
    counted = values.value_counts()
    distinct, rows = counted.field(0), counted.field(1)
    if distinct.null_count:
        valid = distinct.is_valid()
        distinct, rows = distinct.filter(valid), rows.filter(valid)
    return distinct, rows.to_numpy()


def _profile_texts(name: str, distinct: pa.Array, rows: Any, nulls: int) -> ColumnProfile:
    if not len(rows):
        return ColumnProfile(name, nulls)
    ends = pc.min_max(distinct).as_py()
    top = [(distinct[at].as_py(), int(rows[at])) for at in _find_most_frequent(rows)]
    return ColumnProfile(name, nulls, len(rows), ends["min"], None, ends["max"], top)


def _profile_numbers(
    name: str, distinct: Any, rows: Any, nulls: int, middle: float | None
) -> ColumnProfile:
    if not len(rows):
        return ColumnProfile(name, nulls)
    minimum, maximum = (_to_plain_value(end.item()) for end in (distinct.min(), distinct.max()))
    mean = _round_plain_number(float(distinct.astype(np.float64) @ rows / rows.sum()))
    top = [
        (_to_plain_value(distinct[at].item()), int(rows[at])) for at in _find_most_frequent(rows)
    ]
    middle = None if middle is None else _round_plain_number(middle)
    return ColumnProfile(name, nulls, len(rows), minimum, mean, maximum, top, middle)


def _find_most_frequent(rows: Any) -> list[int]:
    """Return the positions of the largest counts; the first one wins a tie."""
    places = np.arange(len(rows))
    if len(rows) > FEW_VALUES:
        places = np.flatnonzero(rows >= np.partition(rows, -TOP_VALUES)[-TOP_VALUES])
    return [int(at) for at in places[np.argsort(-rows[places], kind="stable")][:TOP_VALUES]]


def _profile_times(name: str, values: pa.Array) -> ColumnProfile:
    """Return the profile of a column of times, without frequent values."""
    numbers = _to_microseconds(values)
    if not len(numbers):
        return ColumnProfile(name, values.null_count)
    minimum, maximum = _format_time(numbers.min()), _format_time(numbers.max())
    return ColumnProfile(
        name, values.null_count, _count_distinct_times(numbers), minimum, None, maximum, []
    )


def _count_distinct_times(numbers: Any) -> int:
    """Return the number of distinct times; counting seconds is ten times as fast as hashing."""
    seconds = numbers // MICROSECONDS
    seconds -= seconds.min()
    if seconds.max() < FEW_DAYS and not (numbers % MICROSECONDS).any():
        return int(np.count_nonzero(np.bincount(seconds)))
    return len(np.unique(numbers))


def _count_by_hour(values: pa.Array) -> list[int]:
    numbers = _to_microseconds(values) // (3600 * MICROSECONDS) % HOURS
    return [int(count) for count in np.bincount(numbers, minlength=HOURS)]


def _to_microseconds(values: pa.Array) -> Any:
    """Return times as microseconds since 1970, without nulls."""
    return values.drop_null().view(pa.int64()).to_numpy()


def _compute_median(values: Any, rows: Any) -> float:
    """Return the median of values that occur `rows` times each."""
    order = np.argsort(values)
    ends = np.cumsum(rows[order])
    total = int(ends[-1])
    low, high = np.searchsorted(ends, [(total - 1) // 2, total // 2], side="right")
    return (float(values[order[low]]) + float(values[order[high]])) / 2


def _format_time(microseconds: int) -> str:
    # A division would round the last representable time to the year 10000.
    return _format_plain_time(EPOCH + timedelta(microseconds=int(microseconds)))


def _format_plain_time(value: datetime) -> str:
    return value.isoformat(" ", "seconds")


def _round_plain_number(value: float) -> float | None:
    """Round to four decimal places; infinity, which JSON cannot represent, becomes None."""
    return round(value, 4) if math.isfinite(value) else None


def _to_plain_value(value: object) -> Value:
    if isinstance(value, datetime):
        return _format_plain_time(value)
    if isinstance(value, float):
        return _round_plain_number(value)
    if isinstance(value, int):
        return value
    return None if value is None else str(value)
