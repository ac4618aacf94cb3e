"""From a day's CSV lines to its cleaned frame.

The cleaning rule is the one the old transformers had: keep `passenger_count > 0`. Null is not
above 0, and is counted apart from zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from taxi_assets.services import Service
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
    """Read a slice (header and lines) into the service's columns and types."""
    try:
        return Parsed(_named(_read(lines, service, service.published_schema), service), [])
    except pa.ArrowInvalid:
        # Some value is not of its type: read text, then convert column by column.
        text = pa.schema([(name, pa.string()) for name in service.header])
        return _convert(_read(lines, service, text), service)


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
    return table.to_pandas(types_mapper=types.get, split_blocks=True)


def to_table(frame: pd.DataFrame, service: Service) -> pa.Table:
    """The frame as Arrow in the service's schema; pandas' own metadata stays with it."""
    return pa.Table.from_pandas(frame, service.arrow_schema, preserve_index=False, nthreads=1)


def outside(frame: pd.DataFrame, day: date, service: Service) -> int:
    """Rows whose pickup does not lie in the day."""
    window = Window.of_day(day)
    pickup = frame[service.pickup_column]
    inside = (pickup >= pd.Timestamp(window.start)) & (pickup < pd.Timestamp(window.end))
    return int((~inside).sum())


def _read(lines: pa.Buffer, service: Service, schema: pa.Schema) -> pa.Table:
    return pa_csv.read_csv(
        pa.BufferReader(lines),
        read_options=pa_csv.ReadOptions(
            column_names=list(service.header),
            skip_rows=1,
            block_size=max(PARSE_BLOCK, _longest_line(lines)),
            use_threads=False,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=schema, strings_can_be_null=True, null_values=[""]
        ),
    )


def _longest_line(lines: pa.Buffer) -> int:
    # pyarrow refuses a line that spans more than two blocks; only a huge slice line can.
    return 0 if lines.size < 2 * PARSE_BLOCK else lines.size if _spans(lines) else 0


def _spans(lines: pa.Buffer) -> bool:
    view = memoryview(lines)
    step = PARSE_BLOCK // 2
    return any(b"\n" not in bytes(view[at : at + step]) for at in range(0, lines.size - step, step))


def _named(table: pa.Table, service: Service) -> pa.Table:
    return table.rename_columns([column.name for column in service.columns])


# Text that is a value of the kind: whole numbers are also written "1.0".
PATTERNS = {
    "id": r"^[+-]?\d{1,18}(\.0*)?$",
    "amount": r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$",
    "time": r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$",
    "text": r"(?s)^.*$",
}


def _convert(text: pa.Table, service: Service) -> Parsed:
    """Convert column by column; a line with a value that does not fit is put aside."""
    columns: list[Any] = []
    bad: dict[int, UnreadableValue] = {}
    for column in service.columns:
        values = text[column.published].combine_chunks()
        fits = pc.fill_null(pc.match_substring_regex(values, PATTERNS[column.kind]), True)
        if column.kind == "time":
            parsed = pc.strptime(values, "%Y-%m-%d %H:%M:%S", "us", error_is_null=True)
            fits = pc.and_(fits, pc.equal(pc.is_null(parsed), pc.is_null(values)))
        for at in pc.indices_nonzero(pc.invert(fits)).to_pylist():
            bad.setdefault(at, UnreadableValue(at + 2, column.published, values[at].as_py()))
        usable = pc.if_else(fits, values, None)
        if column.kind == "id":
            usable = pc.replace_substring_regex(usable, r"\.0*$", "")
        columns.append(usable.cast(column.arrow))
    table = pa.table(columns, schema=service.arrow_schema)
    if bad:
        keep = [at not in bad for at in range(table.num_rows)]
        table = table.filter(pa.array(keep))
    return Parsed(table, [bad[at] for at in sorted(bad)])
