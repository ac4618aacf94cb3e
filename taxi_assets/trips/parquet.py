"""A Parquet month as batches of rows, sorted by pickup day; columns and types as published."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxi_assets.errors import SourceError
from taxi_assets.trips.header import Header, HeaderError, header_of
from taxi_assets.trips.lines import prefetch, wrong_header
from taxi_assets.trips.source import MonthFile
from taxi_assets.trips.split import OUTSIDE, UNREADABLE, Unreadable
from taxi_assets.trips.values import accepts, is_text, to_times
from taxi_assets.windows import Month

ROWS = 1 << 17
"""Rows of a batch: 20 MB; TLC's row groups have a million and more."""
BUFFER = 1 << 20
"""Bytes of a column read at a time."""
PER_DAY = {
    unit: 86_400 * scale
    for unit, scale in zip(["s", "ms", "us", "ns"], (1, 10**3, 10**6, 10**9), strict=True)
}


@dataclass(frozen=True)
class RowsOfDay:
    """Rows of one batch that go to one place, in file order."""

    key: int
    """Day of the month, or OUTSIDE, UNREADABLE."""
    batch: pa.RecordBatch
    rows: int


@dataclass(frozen=True)
class Batch:
    """Rows that follow each other in the file."""

    first_row: int
    """Number of the first one, from 1."""
    data: pa.RecordBatch
    read: int
    """Bytes of the file's row groups up to here, those that were left out included."""


@dataclass(frozen=True)
class ParquetMonth:
    """A Parquet month that was opened and whose columns are the service's."""

    header: Header
    schema: pa.Schema
    skipped: int
    """Rows of row groups that hold no row of the wanted days, outside the month or without a
    pickup time, as their statistics prove."""
    batches: Generator[Batch]
    """Close it to stop the reading early."""


def open_parquet(file: MonthFile, days: set[int]) -> ParquetMonth:
    """Open a `.parquet` month and look at its footer.

    Args:
        file: the month's file.
        days: days of the month that are wanted; the others need not be read.

    Raises:
        SourceError: it is no Parquet, or its columns or their types are not the service's; while
            reading: it is damaged.
    """
    try:
        with pq.ParquetFile(file.path, buffer_size=BUFFER) as parquet:
            footer, schema = parquet.metadata, parquet.schema_arrow.remove_metadata()
        header = header_of(tuple(schema.names), file.service, by_name=True)
    except HeaderError as error:
        raise wrong_header(error, file) from None
    except (pa.ArrowException, OSError) as error:
        raise damaged(file, error) from error
    check_types(file, header, schema)
    place = _leaf(footer, schema.names[header.pickup_index])
    skip = {
        at
        for at in range(footer.num_row_groups)
        if _is_elsewhere(footer.row_group(at), place, file.month, days)
    }
    skipped = sum(footer.row_group(at).num_rows for at in skip)
    return ParquetMonth(header, schema, skipped, prefetch(lambda: _batches(file, footer, skip)))


def damaged(file: MonthFile, error: Exception) -> SourceError:
    """What is said of a file that cannot be read as Parquet."""
    text = " ".join(str(error).split())
    return SourceError(
        f"{file.service.name} {file.month}: {file.url} is damaged ({text[:200]}): fetch it again "
        f"(delete {file.path} if it was downloaded)"
    )


def check_types(file: MonthFile, header: Header, schema: pa.Schema) -> None:
    """Refuse a column whose type can hold none of the service's values.

    Raises:
        SourceError: naming the column, its type and the one that is wanted.
    """
    for name, at in header.places.items():
        column, found = file.service.by_name[name], schema.field(at)
        if not accepts(column, found.type, words=name in header.words):
            raise SourceError(
                f"{file.service.name} {file.month}: {file.url} has {found.name} as {found.type}, "
                f"which is never read as {column.arrow}: write the column as one of "
                f"{column.arrow}, or see whether the file is what TLC publishes"
            )


def split_batch(
    batch: Batch, header: Header, month: Month
) -> tuple[list[RowsOfDay], list[Unreadable]]:
    """Sort a batch's rows by pickup day, stably."""
    pickups = batch.data.column(header.pickup_index)
    keys = _keys(pickups, month)
    unreadable = [
        Unreadable(
            batch.first_row + at,
            f"{header.names[header.pickup_index]}={pickups[at].as_py()!r} is no pickup time",
        )
        for at in np.flatnonzero(keys == UNREADABLE).tolist()
    ]
    order = np.argsort(keys, kind="stable")
    moved = batch.data
    if len(keys) and keys.min() != keys.max():
        moved = batch.data.take(pa.array(order))
    places, firsts = np.unique(keys[order], return_index=True)
    bounds = [*firsts.tolist(), len(keys)]
    groups = [
        RowsOfDay(key, moved.slice(first, last - first), last - first)
        for key, first, last in zip(places.tolist(), bounds, bounds[1:], strict=False)
    ]
    return groups, unreadable


def _keys(pickups: pa.Array, month: Month) -> npt.NDArray[np.int8]:
    """Day of the month where the pickup lies in it, else OUTSIDE or UNREADABLE."""
    if pa.types.is_dictionary(pickups.type):
        pickups = pickups.dictionary_decode()
    if is_text(pickups.type):
        pickups = to_times(pickups.cast(pa.string()))
    if pa.types.is_null(pickups.type):
        return np.full(len(pickups), UNREADABLE, np.int8)
    since = pc.fill_null(pickups.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    day = since // PER_DAY[pickups.type.unit] - _epoch_day(month)
    inside = (day >= 0) & (day < len(month.window))
    keys = np.where(inside, day + 1, OUTSIDE).astype(np.int8)
    if pickups.null_count:
        keys[pc.is_null(pickups).to_numpy(zero_copy_only=False)] = UNREADABLE
    return keys


def _epoch_day(month: Month) -> int:
    """Days from 1970 to the month's first."""
    return int(np.datetime64(month.window.start, "D").astype(np.int64))


def _leaf(footer: pq.FileMetaData, name: str) -> int:
    """Position of a column among the file's leaves."""
    row_group = footer.row_group(0) if footer.num_row_groups else None
    paths = (
        [row_group.column(at).path_in_schema for at in range(footer.num_columns)]
        if row_group
        else []
    )
    return paths.index(name) if name in paths else -1


def _is_elsewhere(row_group: Any, place: int, month: Month, days: set[int]) -> bool:
    """Whether the statistics prove that all rows are of other days of the month."""
    statistics = row_group.column(place).statistics if place >= 0 else None
    if statistics is None or not (statistics.has_min_max and statistics.has_null_count):
        return False
    try:
        first, last = _naive(statistics.min), _naive(statistics.max)
    except (ValueError, OverflowError):  # no time that Python has
        return False
    if statistics.null_count or first is None or last is None:
        return False
    window = month.window
    if first.date() not in window or last.date() not in window:
        return False
    return not any(first.day <= day <= last.day for day in days)


def _naive(value: object) -> datetime | None:
    return value if isinstance(value, datetime) and value.tzinfo is None else None


def _batches(file: MonthFile, footer: pq.FileMetaData, skip: set[int]) -> Iterator[Batch]:
    first, read = 1, 0
    try:
        with closing(pq.ParquetFile(file.path, buffer_size=BUFFER)) as parquet:
            for at in range(footer.num_row_groups):
                rows = footer.row_group(at).num_rows
                share = file.size * (first - 1 + rows) // max(footer.num_rows, 1)
                if at not in skip:
                    begin = first
                    for data in parquet.iter_batches(ROWS, row_groups=[at], use_threads=False):
                        yield Batch(
                            begin,
                            data,
                            read + (share - read) * (begin + data.num_rows - first) // rows,
                        )
                        begin += data.num_rows
                first, read = first + rows, share
    except (pa.ArrowException, OSError) as error:
        raise damaged(file, error) from error
