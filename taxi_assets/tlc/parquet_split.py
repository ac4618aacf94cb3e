"""Split a batch of Parquet rows into the days of their pickups."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.arrow_types import (
    convert_to_plain,
    find_storable_text,
    format_value,
    get_plain_type,
    is_text_type,
    take_rows,
)
from taxi_assets.tlc.csv_lines import Unreadable
from taxi_assets.tlc.csv_split import OUTSIDE, UNREADABLE, SplitPart
from taxi_assets.tlc.header import Header
from taxi_assets.tlc.int96 import PER_DAY
from taxi_assets.tlc.parquet_batches import Batch
from taxi_assets.tlc.values import parse_times

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


def split_parquet_batch(
    batch: Batch, header: Header, month: Month, requested_keys: AbstractSet[int]
) -> SplitPart[RowsOfDay]:
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
    rows_by_key = dict(zip(unique_keys.tolist(), counts.tolist(), strict=True))
    groups = [
        RowsOfDay(
            key, batch.data if rows == len(keys) else _select_rows(batch.data, keys == key), rows
        )
        for key, rows in rows_by_key.items()
        if key in requested_keys and batch.data is not None
    ]
    return SplitPart(groups, rows_by_key, unreadable, batch.read_bytes)


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
