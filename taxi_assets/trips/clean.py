"""From a day's CSV lines to its cleaned frame.

The cleaning rule is the one the old transformers had: keep `passenger_count > 0`. Null is not
above 0, and is counted apart from zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from taxi_assets.services import ARROW_TYPES, Kind, Service
from taxi_assets.windows import Window

PARSE_BLOCK = 1 << 20
"""Bytes pyarrow parses at a time: with 1 MiB the buffers are reused, a month parses in 0.7 s of
one core; with 8 MiB every block faults in fresh pages and it takes 1.5 s."""


@dataclass(frozen=True)
class UnreadableValue:
    """A value that is not of its column's type."""

    row: int
    """Number of the line in the day's slice; its header is line 1."""
    column: str
    value: str

    def __str__(self) -> str:
        return f"line {self.row}: {self.column}={self.value[:40]!r}"


@dataclass(frozen=True)
class Parsed:
    """A day's rows in the service's types, and what could not be read."""

    table: pa.Table
    unreadable: list[UnreadableValue]
    """One entry a line, its first bad value."""


@dataclass(frozen=True)
class Cleaned:
    """A day's cleaned rows and why the others are not among them."""

    frame: pd.DataFrame
    raw_rows: int
    dropped: dict[str, int]
    """Rows by reason; every reason is there, also with 0."""
    unreadable: list[UnreadableValue]


def parse(lines: pa.Buffer, service: Service) -> Parsed:
    """Read a slice (header and lines) into the service's columns and types.

    Which values are of their type is said by `_by_value`. The fast way reads the same values as
    the same, or leaves the slice to `_by_value`: a value must not depend on its neighbours.
    """
    rows = lines.to_pybytes().partition(b"\n")[2]
    if not rows:
        return Parsed(service.arrow_schema.empty_table(), [])
    if not any(mark in rows for mark in LENIENT):
        try:
            table = _at_once(lines, service)
        except pa.ArrowInvalid:
            pass  # some value is not of its type
        else:
            if _is_strict(table, rows, service):
                return Parsed(table, [])
    return _by_value(lines, service)


def clean(lines: pa.Buffer, service: Service) -> Cleaned:
    """Parse a day's slice and drop what the rule drops."""
    parsed = parse(lines, service)
    table, dropped = drop(parsed.table, service)
    dropped["unreadable"] = len(parsed.unreadable)
    raw_rows = parsed.table.num_rows + len(parsed.unreadable)
    return Cleaned(to_frame(table), raw_rows, dropped, parsed.unreadable)


def drop(table: pa.Table, service: Service) -> tuple[pa.Table, dict[str, int]]:
    """Rows that stay, and the number of others by reason."""
    if service.passengers is None:
        return table, {}
    passengers = table[service.passengers]
    keep = pc.fill_null(pc.greater(passengers, 0), False)
    kept = table.filter(keep)
    nulls = passengers.null_count
    return kept, {
        "zero_passengers": table.num_rows - kept.num_rows - nulls,
        "null_passengers": nulls,
    }


def to_frame(table: pa.Table) -> pd.DataFrame:
    """The frame with nullable types: Int64, float64, datetime64[us], string."""
    types: dict[pa.DataType, Any] = {
        pa.int64(): pd.Int64Dtype(),
        pa.string(): pd.StringDtype("pyarrow"),
    }
    frame: pd.DataFrame = table.to_pandas(types_mapper=types.get, split_blocks=True)
    return frame


def to_table(frame: pd.DataFrame, service: Service) -> pa.Table:
    """The frame as Arrow in the service's schema; pandas' own metadata stays with it."""
    return pa.Table.from_pandas(frame, service.arrow_schema, preserve_index=False, nthreads=1)


def outside(frame: pd.DataFrame, day: date, service: Service) -> int:
    """Rows whose pickup does not lie in the day."""
    window = Window.of_day(day)
    pickup = frame[service.pickup_column]
    inside = (pickup >= pd.Timestamp(window.start)) & (pickup < pd.Timestamp(window.end))
    return int((~inside).sum())


# Marks of values that pyarrow takes for numbers (0x10, and a tab around any) or times (an ISO T),
# and that are none here.
LENIENT = (b"x", b"X", b"\t", b"T")
STAMP = pa.binary(19)
"""Type that times are read as: a value of another length is refused, and it is faster, too."""
FIRST_TIME = pa.scalar(datetime(1, 1, 1), pa.timestamp("us"))  # noqa: DTZ001 - New York wall time
FORMAT = "%Y-%m-%d %H:%M:%S"
WHOLE = r"^-?\d+(\.0*)?$"
"""Whole numbers are also written "1.0"."""
DECIMAL = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
LARGEST = Decimal(2**63 - 1)


def _read(lines: pa.Buffer, service: Service, types: Mapping[Kind, pa.DataType]) -> pa.Table:
    return pa_csv.read_csv(
        pa.BufferReader(lines),
        read_options=pa_csv.ReadOptions(
            column_names=[column.name for column in service.columns],
            skip_rows=1,
            block_size=PARSE_BLOCK,
            use_threads=False,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types={column.name: types[column.kind] for column in service.columns},
            strings_can_be_null=True,
            null_values=[""],
        ),
    )


def _at_once(lines: pa.Buffer, service: Service) -> pa.Table:
    """Everything at once, as pyarrow reads it.

    Raises:
        pa.ArrowInvalid: some value is not of its type.
    """
    table = _read(lines, service, {**ARROW_TYPES, "time": STAMP})
    for at, column in enumerate(service.columns):
        if column.kind == "time":
            times = table[column.name].cast(pa.string()).cast(column.arrow)
            table = table.set_column(at, column.name, times)
    return table


def _is_strict(table: pa.Table, rows: bytes, service: Service) -> bool:
    """Whether pyarrow took nothing for a value that is none: ' 1', 'nan', the year 0."""
    times = [table[column.name] for column in service.columns if column.kind == "time"]
    amounts = [table[column.name] for column in service.columns if column.kind == "amount"]
    return (
        rows.count(b" ") == sum(len(column) - column.null_count for column in times)
        and not any(pc.any(pc.less(column, FIRST_TIME)).as_py() for column in times)
        and all(pc.all(pc.is_finite(column)).as_py() is not False for column in amounts)
    )


def _by_value(lines: pa.Buffer, service: Service) -> Parsed:
    """Convert text column by column; a line with a value that does not fit is put aside."""
    text = _read(lines, service, dict.fromkeys(ARROW_TYPES, pa.string()))
    columns: list[Any] = []
    bad: dict[int, UnreadableValue] = {}
    for column in service.columns:
        values = text[column.name].combine_chunks()
        converted = CONVERSIONS[column.kind](values)
        misfits = pc.and_(pc.is_valid(values), pc.is_null(converted))
        for at in pc.indices_nonzero(misfits).to_pylist():
            bad.setdefault(at, UnreadableValue(at + 2, column.published, values[at].as_py()))
        columns.append(converted)
    table = pa.table(columns, schema=service.arrow_schema)
    if bad:
        keep = np.ones(table.num_rows, np.bool_)
        keep[list(bad)] = False
        table = table.filter(pa.array(keep))
    return Parsed(table, [bad[at] for at in sorted(bad)])


def _matching(values: pa.Array, pattern: str) -> pa.Array:
    return pc.if_else(pc.match_substring_regex(values, pattern), values, None)


def _to_ids(values: pa.Array) -> pa.Array:
    digits = pc.replace_substring_regex(_matching(values, WHOLE), r"\.0*$", "")
    digits = pc.replace_substring_regex(digits, r"^(-?)0+(\d)", r"\1\2")
    numbers = _matching(digits, r"^-?\d{1,19}$").cast(pa.decimal128(38, 0))
    fits = pc.and_(pc.less_equal(numbers, LARGEST), pc.greater_equal(numbers, -LARGEST - 1))
    return pc.if_else(fits, numbers, None).cast(pa.int64())


def _to_amounts(values: pa.Array) -> pa.Array:
    numbers = _matching(values, DECIMAL).cast(pa.float64())
    return pc.if_else(pc.is_finite(numbers), numbers, None)


def _to_times(values: pa.Array) -> pa.Array:
    times = pc.strptime(values, FORMAT, "s", error_is_null=True)
    # strptime reads February 30 as March 2, and a day of one digit.
    same = pc.equal(times.cast(pa.string()), values)
    return pc.if_else(pc.and_(same, pc.greater_equal(times, FIRST_TIME)), times, None).cast(
        "timestamp[us]"
    )


CONVERSIONS: dict[Kind, Callable[[pa.Array], pa.Array]] = {
    "id": _to_ids,
    "amount": _to_amounts,
    "time": _to_times,
    "text": lambda values: values,
}
