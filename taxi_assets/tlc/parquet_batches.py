"""Read a Parquet month as batches of the published columns and types.

Row groups whose statistics prove that all rows are of other days are read for their pickup times
only. `parquet_split.py` splits the batches by pickup day.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from taxi_assets.date_ranges import Month
from taxi_assets.errors import SourceError
from taxi_assets.lazy_partitions import prefetch
from taxi_assets.settings.areas import MAX_DAY_BYTES
from taxi_assets.tlc.arrow_types import replace_view_types
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.header import Header, HeaderError, match_header
from taxi_assets.tlc.int96 import Options, find_int96_options
from taxi_assets.tlc.integrity import DOWNLOAD_AGAIN, MAX_UNPACKED_BYTES
from taxi_assets.tlc.parquet_limits import TooLargeError, reject_parquet_bomb
from taxi_assets.tlc.values import accepts_type

ROWS = 1 << 16
"""Rows of a batch: 10 MB; TLC's row groups have a million and more."""


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
        raise file.build_error("; ".join(error.describe(file.service))) from None
    except (pa.ArrowException, OSError) as error:
        raise file.build_damage_error(error) from error
    all_null = check_column_types(file, header, schema, footer)
    pickup = schema.names[header.pickup_index]
    places = _find_leaves(footer, pickup)
    skip = {
        at
        for at in range(footer.num_row_groups)
        if _is_other_day(footer.row_group(at), places, file.month, days)
    }
    batches = _check_nulls(_read_batches(file, options, footer, pickup, skip), all_null)
    return ParquetMonth(header, schema, options.int96, prefetch(batches))


def _reject_bomb(file: MonthFile, max_day_bytes: int) -> None:
    """Reject a file that would unpack to more than a month may have."""
    try:
        reject_parquet_bomb(str(file.path), max_day_bytes, MAX_UNPACKED_BYTES)
    except TooLargeError as error:
        raise file.build_error(
            f"({file.size:,} bytes) is too large for a month of trips: {error}. Nothing was "
            f"stored; {DOWNLOAD_AGAIN}, or raise TAXI_MAX_DAY_BYTES"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise file.build_damage_error(error) from error


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
        error = file.build_error(
            f"has {field.name} as {field.type}, which cannot be read as {column.arrow}: write the "
            f"column as {column.arrow}, or check that this is the file that TLC publishes"
        )
        if at == header.pickup_index or not _is_null(footer, field.name):
            raise error
        all_null[field.name] = error
    return all_null


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
                    raise file.build_damage_error(ValueError(problem))
                first, read_bytes = first + rows, share
    except (pa.ArrowException, OSError) as error:
        raise file.build_damage_error(error) from error


def _replace_views(rows: pa.RecordBatch) -> pa.RecordBatch:
    """Replace view types; the stored raw object has the published types again."""
    plain = pa.schema([field.with_type(replace_view_types(field.type)) for field in rows.schema])
    return rows if plain.equals(rows.schema.remove_metadata()) else rows.cast(plain)
