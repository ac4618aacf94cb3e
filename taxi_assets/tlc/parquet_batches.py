"""Read a Parquet month as batches and split them by pickup day; columns and types as published."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError, format_one_line
from taxi_assets.settings.areas import MAX_DAY_BYTES
from taxi_assets.tlc.arrow_types import (
    convert_to_plain,
    find_storable_text,
    format_value,
    get_plain_type,
    is_text_type,
    replace_view_types,
    take_rows,
)
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.csv_blocks import build_header_error, prefetch
from taxi_assets.tlc.csv_lines import Unreadable
from taxi_assets.tlc.csv_split import OUTSIDE, UNREADABLE
from taxi_assets.tlc.header import Header, HeaderError, match_header
from taxi_assets.tlc.int96 import PER_DAY, Options, find_int96_options
from taxi_assets.tlc.integrity import DOWNLOAD_AGAIN, MAX_UNPACKED_BYTES
from taxi_assets.tlc.parquet_limits import TooLargeError, reject_parquet_bomb
from taxi_assets.tlc.values import accepts_type, parse_times

ROWS = 1 << 16
"""Rows of a batch: 10 MB; TLC's row groups have a million and more."""
MIN_VIEW_ROWS = 1 << 14
"""Minimum number of rows that are passed on as a view of their batch. Fewer rows may wait in memory
for others of their day, and a view would keep the entire batch there."""


@dataclass(frozen=True)
class RowsOfDay:
    """Rows of one batch with the same key, in file order."""

    key: int
    """Day of the month, or OUTSIDE, UNREADABLE."""
    batch: pa.RecordBatch
    rows: int

    @property
    def size(self) -> int:
        """Bytes of these rows in memory, without other rows of the batch."""
        return int(self.batch.nbytes)


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of the file."""

    first_row: int
    """Number of the first row, from 1."""
    pickups: pa.Array
    data: pa.RecordBatch | None
    """All columns; None if no row is of a requested day."""
    read_bytes: int
    """Bytes of the file up to the end of this batch, estimated by row groups."""


@dataclass(frozen=True)
class SplitRows:
    """A batch's rows, grouped by key."""

    groups: list[RowsOfDay]
    rows: dict[int, int]
    """Number of rows by key."""
    unreadable: list[Unreadable]


@dataclass(frozen=True)
class ParquetMonth:
    """An open Parquet month with valid columns."""

    header: Header
    schema: pa.Schema
    int96: tuple[str, ...]
    """Columns stored as INT96."""
    batches: Generator[Batch]
    """All batches; close the generator to stop reading early."""


def open_parquet_month(
    file: MonthFile, days: AbstractSet[int], max_day_bytes: int = MAX_DAY_BYTES
) -> ParquetMonth:
    """Open a `.parquet` month and check its columns.

    Args:
        file: the month's file.
        days: requested days of the month; of other days only pickup times are read.
        max_day_bytes: maximum size of a day's rows, and so of a batch.

    Raises:
        SourceError: the file is not Parquet, or its columns or types are not the service's. While
            reading: the file is damaged.
    """
    _reject_bomb(file, max_day_bytes)
    try:
        options = find_int96_options(file.path)
        with options.open(file.path) as parquet:
            footer, schema = parquet.metadata, parquet.schema_arrow.remove_metadata()
        names = tuple(schema.names)
        header = match_header(names, file.service, by_name=True, month=file.month)
    except HeaderError as error:
        raise build_header_error(error, file) from None
    except (pa.ArrowException, OSError) as error:
        raise build_damage_error(file, error) from error
    all_null = check_column_types(file, header, schema, footer)
    pickup = schema.names[header.pickup_index]
    places = _find_leaves(footer, pickup)
    skip = {
        at
        for at in range(footer.num_row_groups)
        if _is_other_day(footer.row_group(at), places, file.month, days)
    }
    batches = prefetch(
        lambda: _check_nulls(_read_batches(file, options, footer, pickup, skip), all_null)
    )
    return ParquetMonth(header, schema, options.int96, batches)


def _reject_bomb(file: MonthFile, max_day_bytes: int) -> None:
    """Reject a file that would unpack to more than a month may have."""
    try:
        reject_parquet_bomb(str(file.path), max_day_bytes, MAX_UNPACKED_BYTES)
    except TooLargeError as error:
        raise SourceError(
            f"{file.service.name} {file.month}: {file.url} ({file.size:,} bytes) is too large "
            f"for a month of trips: {error}. Nothing was stored; {DOWNLOAD_AGAIN}, or raise "
            "TAXI_MAX_DAY_BYTES"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise build_damage_error(file, error) from error


def build_damage_error(file: MonthFile, error: Exception) -> SourceError:
    """Build the error for a file that cannot be read as Parquet."""
    return SourceError(
        f"{file.service.name} {file.month}: {file.url} is damaged "
        f"({format_one_line(error)[:200]}): fetch it again "
        f"(delete {file.path} if it was downloaded)"
    )


def check_column_types(
    file: MonthFile, header: Header, schema: pa.Schema, footer: pq.FileMetaData
) -> dict[str, SourceError]:
    """Reject a column whose type cannot represent the service's values, unless all are null.

    pandas writes a column without values as double.

    Returns:
        for each column that is all null by the statistics, the error if they are wrong.

    Raises:
        SourceError: naming the column, its type and the expected type.
    """
    all_null = {}
    for name, at in header.places.items():
        column, field = file.service.by_name[name], schema.field(at)
        if accepts_type(column, field.type, labels=name in header.labels):
            continue
        error = SourceError(
            f"{file.service.name} {file.month}: {file.url} has {field.name} as {field.type}, "
            f"which cannot be read as {column.arrow}: write the column as {column.arrow}, or "
            "check that this is the file that TLC publishes"
        )
        if at == header.pickup_index or not _is_null(footer, field.name):
            raise error
        all_null[field.name] = error
    return all_null


def split_parquet_batch(
    batch: Batch, header: Header, month: Month, requested_keys: AbstractSet[int]
) -> SplitRows:
    """Sort a batch's rows by pickup day, stably; rows of other keys are only counted."""
    keys = _assign_days(batch.pickups, month)
    unreadable = [
        Unreadable(
            batch.first_row + at,
            f"{header.names[header.pickup_index]}={_quote_pickup(batch.pickups[at])} "
            "is not a pickup time",
        )
        for at in np.flatnonzero(keys == UNREADABLE).tolist()
    ]
    unique_keys, counts = np.unique(keys, return_counts=True)
    groups = [
        RowsOfDay(
            key, batch.data if rows == len(keys) else _select_rows(batch.data, keys == key), rows
        )
        for key, rows in zip(unique_keys.tolist(), counts.tolist(), strict=True)
        if key in requested_keys and batch.data is not None
    ]
    rows_by_key = dict(zip(unique_keys.tolist(), counts.tolist(), strict=True))
    return SplitRows(groups, rows_by_key, unreadable)


def _select_rows(rows: pa.RecordBatch, which: npt.NDArray[np.bool_]) -> pa.RecordBatch:
    """Select rows as a view if they are contiguous, and as a copy otherwise."""
    at = np.flatnonzero(which)
    if len(at) >= MIN_VIEW_ROWS and at[-1] - at[0] + 1 == len(at):
        return rows.slice(int(at[0]), len(at))
    columns = [take_rows(column, at) for column in rows.columns]
    return pa.RecordBatch.from_arrays(columns, schema=rows.schema)


def _quote_pickup(pickup: pa.Scalar) -> str:
    """Return a pickup time for a message: text in quotes, any other value as it is."""
    text = format_value(pickup)
    return repr(text) if is_text_type(get_plain_type(pickup.type)) else text


def _assign_days(pickups: pa.Array, month: Month) -> npt.NDArray[np.int8]:
    """Return the day of the month of each pickup, or OUTSIDE or UNREADABLE.

    A time before the year 1 or after 9999 is unreadable, as in CSV.
    """
    pickups = convert_to_plain(pickups)
    if is_text_type(pickups.type):
        pickups = parse_times(find_storable_text(pickups))
    if pa.types.is_null(pickups.type):
        return np.full(len(pickups), UNREADABLE, np.int8)
    since = pc.fill_null(pickups.cast(pa.int64()), 0).to_numpy(zero_copy_only=False)
    days = since // PER_DAY[pickups.type.unit]
    day = days - _get_epoch_day(month.window.start)
    inside = (day >= 0) & (day < len(month.window))
    keys = np.where(inside, day + 1, OUTSIDE).astype(np.int8)
    keys[(days < _get_epoch_day(date.min)) | (days > _get_epoch_day(date.max))] = UNREADABLE
    if pickups.null_count:
        keys[pc.is_null(pickups).to_numpy(zero_copy_only=False)] = UNREADABLE
    return keys


def _get_epoch_day(day: date) -> int:
    """Return the number of days from 1970-01-01 to a day."""
    return int(np.datetime64(day, "D").astype(np.int64))


def _find_leaves(footer: pq.FileMetaData, name: str) -> list[int]:
    """Return the positions of a column's leaves; a column of simple type is its own leaf."""
    if not footer.num_row_groups:
        return []
    row_group = footer.row_group(0)
    paths = [row_group.column(at).path_in_schema for at in range(footer.num_columns)]
    return [at for at, path in enumerate(paths) if f"{path}.".startswith(f"{name}.")]


def _is_null(footer: pq.FileMetaData, name: str) -> bool:
    """Return whether the statistics say that a column has no values."""
    chunks = [
        footer.row_group(at).column(place)
        for at in range(footer.num_row_groups)
        for place in _find_leaves(footer, name)
    ]
    return bool(chunks) and all(
        chunk.statistics is not None and chunk.statistics.null_count == chunk.num_values
        for chunk in chunks
    )


def _is_other_day(row_group: Any, places: list[int], month: Month, days: AbstractSet[int]) -> bool:
    """Return whether the statistics prove that all rows are of other days."""
    statistics = row_group.column(places[0]).statistics if places else None
    if statistics is None or not (statistics.has_min_max and statistics.has_null_count):
        return False
    try:
        first, last = _get_naive_time(statistics.min), _get_naive_time(statistics.max)
    except (ValueError, OverflowError):  # a time that Python cannot represent
        return False
    if statistics.null_count or first is None or last is None:
        return False
    window = month.window
    if first.date() not in window or last.date() not in window:
        return False
    return not any(first.day <= day <= last.day for day in days)


def _get_naive_time(value: object) -> datetime | None:
    return value if isinstance(value, datetime) and value.tzinfo is None else None


def _check_nulls(batches: Iterator[Batch], all_null: dict[str, SourceError]) -> Iterator[Batch]:
    """Pass batches on, unless the statistics of an all-null column are wrong."""
    for batch in batches:
        for name, error in all_null.items():
            if batch.data is not None and batch.data.column(name).null_count < len(batch.data):
                raise error
        yield batch


def _read_batches(
    file: MonthFile, options: Options, footer: pq.FileMetaData, pickup: str, skip: set[int]
) -> Iterator[Batch]:
    first, read_bytes = 1, 0
    try:
        with closing(options.open(file.path)) as parquet:
            for at in range(footer.num_row_groups):
                rows = footer.row_group(at).num_rows
                share = file.size * (first - 1 + rows) // max(footer.num_rows, 1)
                columns = [pickup] if at in skip else None
                begin = first
                for data in parquet.iter_batches(
                    ROWS, row_groups=[at], columns=columns, use_threads=False
                ):
                    yield Batch(
                        begin,
                        data.column(pickup),
                        None if at in skip else _replace_views(data),
                        read_bytes + (share - read_bytes) * (begin + data.num_rows - first) // rows,
                    )
                    begin += data.num_rows
                # Arrow ends early, without an error, if a column chunk declares too few values.
                if begin != first + rows:
                    problem = f"row group {at + 1} has {begin - first:,} rows, not {rows:,}"
                    raise build_damage_error(file, ValueError(problem))
                first, read_bytes = first + rows, share
    except (pa.ArrowException, OSError) as error:
        raise build_damage_error(file, error) from error


def _replace_views(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Replace view types; the stored raw object has the published types again."""
    plain = pa.schema([field.with_type(replace_view_types(field.type)) for field in rows.schema])
    return rows if plain.equals(rows.schema.remove_metadata()) else rows.cast(plain)
