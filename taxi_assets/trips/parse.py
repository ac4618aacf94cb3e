"""A day's raw slice in the service's columns and types: CSV lines, or rows of a Parquet month."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from taxi_assets.errors import PartitionRejectedError
from taxi_assets.tlc.arrow_types import format_value
from taxi_assets.tlc.column import ARROW_TYPES, Column, Kind
from taxi_assets.tlc.header import MAX_HEADER_BYTES, Header, HeaderError, parse_stored_header
from taxi_assets.tlc.null_marks import list_null_spellings, replace_null_marks
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.values import (
    FIRST_TIME,
    convert_column,
    convert_values,
    decode_labels,
    is_amount,
)
from taxi_assets.tlc.zone_polygons import ZonePolygons
from taxi_assets.trips.locate import find_missing_zones

PARSE_BLOCK = 1 << 20
"""Bytes pyarrow parses at a time: with 1 MiB the buffers are reused, a month parses in 0.7 s of
one core; with 8 MiB every block faults in fresh pages and it takes 1.5 s."""

# Marks of values that pyarrow takes for numbers (0x10, and a tab around any) or times (an ISO T),
# and that are none here.
LENIENT = (b"x", b"X", b"\t", b"T")
STAMP = pa.binary(19)
"""Type that times are read as: a value of another length is refused, and it is faster, too."""
DATE = 10
"""Characters before the blank in a time."""


@dataclass(frozen=True)
class InvalidValue:
    """A value that is not of its column's type."""

    row: int
    """Number of the line in the day's slice, whose header is line 1; of a table the row, from 1."""
    column: str
    value: str
    unit: str = "line"

    def __str__(self) -> str:
        return f"{self.unit} {self.row}: {self.column}={self.value[:40]!r}"


@dataclass(frozen=True)
class Parsed:
    """A day's rows in the service's types, and what could not be read."""

    table: pa.Table
    unreadable: list[InvalidValue]
    """One entry a row, its first bad value."""
    unknown_labels: Counter[str] = field(default_factory=Counter[str])
    """Rows by `column=label` that TLC's dictionary does not have; null in the table."""
    located: tuple[str, ...] = ()
    """Columns of zones that coordinates gave."""


def parse_partition(
    content: pa.Buffer | pa.Table, service: Service, zones: ZonePolygons | None = None
) -> Parsed:
    """Read a slice into the service's columns and types; what its file lacked is null.

    Where it has coordinates in place of zones, `zones` gives these.

    Raises:
        PartitionRejectedError: the slice's columns are not the service's.
    """
    try:
        header = parse_stored_header(content, service)
    except HeaderError as error:
        raise PartitionRejectedError(
            f"the raw slice has {error}: materialize {service.name}/raw_trips again"
        ) from None
    if isinstance(content, pa.Table):
        parsed = _parse_table(content, header, zones)
    else:
        _, _, rows = content.to_pybytes().partition(b"\n")
        parsed = _parse_lines(content, rows, header, zones)
    return replace(parsed, located=tuple(header.points)) if zones else parsed


def read_lines_as_text(lines: pa.Buffer) -> pa.Table:
    """Read CSV lines as published: every value is its text, an empty field the empty text."""
    header, _, _ = lines[:MAX_HEADER_BYTES].to_pybytes().partition(b"\n")
    names = next(csv.reader([header.decode("utf-8-sig", "replace").rstrip("\r")]))
    try:
        return pa_csv.read_csv(
            pa.BufferReader(lines),
            pa_csv.ReadOptions(column_names=names, skip_rows=1, use_threads=False),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid:  # rows of different lengths, or text that is not UTF-8
        _, *rows = csv.reader(io.StringIO(str(lines, "utf-8-sig", "replace"), newline=""))
        columns = list(zip_longest(names, *rows, fillvalue=""))[: len(names)]
        return pa.table([pa.array(values, pa.string()) for _, *values in columns], names)


def _parse_lines(
    lines: pa.Buffer, rows: bytes, header: Header, zones: ZonePolygons | None
) -> Parsed:
    """Read CSV lines.

    Which values are of their type is said by `_by_value`. The fast way reads the same values as
    the same, or leaves the slice to `_by_value`: a value must not depend on its neighbours.
    """
    if not rows:
        return Parsed(header.service.arrow_schema.empty_table(), [])
    marks = LENIENT[:-1] if header.schema_version.labels else LENIENT
    if not any(mark in rows for mark in marks):
        kinds, surplus = {**ARROW_TYPES, "time": STAMP}, _count_surplus_fields(rows, header)
        # Comparing each field with 143 spellings of "no value" takes 0.2 s of a month: TLC's own
        # files have none, and a number or a time that is one fails the first attempt.
        for null_marks in ([""], list_null_spellings(_list_labels(header))):
            try:
                text = _read_csv(lines, header, kinds, surplus, null_marks)
                parsed = _parse_at_once(text, rows, header, zones)
            except pa.ArrowInvalid:
                continue  # some value is not of its type
            if parsed:
                return parsed
            break
    return _parse_by_value(lines, rows, header, zones)


def _list_labels(header: Header) -> frozenset[str]:
    """Return all labels of a file."""
    return frozenset(label for labels in header.labels.values() for label in labels)


def _count_surplus_fields(rows: bytes, header: Header) -> int:
    """Empty fields of the first row beyond the header's; most files have the same in all rows."""
    first = rows[: rows.find(b"\n") + 1 or len(rows)]
    if b'"' in first:
        return len(next(csv.reader([first.decode()]))) - len(header.names)
    return first.count(b",") + 1 - len(header.names)


def _read_csv(
    lines: pa.Buffer,
    header: Header,
    kinds: Mapping[Kind, pa.DataType],
    surplus: int,
    null_marks: Sequence[str] = ("",),
) -> pa.Table:
    names = [f"raw {at}" for at in range(len(header.names))]
    columns: dict[str, Column] = {}
    for key, at, column in _fields(header):
        names[at], columns[key] = key, column
    coordinates = [names[at] for pair in header.points.values() for at in pair]
    return pa_csv.read_csv(
        pa.BufferReader(lines),
        read_options=pa_csv.ReadOptions(
            column_names=[*names, *(f"surplus {at}" for at in range(surplus))],
            skip_rows=1,
            block_size=PARSE_BLOCK,
            use_threads=False,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(coordinates, pa.string())
            | {
                key: pa.string() if column.name in header.labels else kinds[column.kind]
                for key, column in columns.items()
            },
            include_columns=[*columns, *coordinates],
            strings_can_be_null=True,
            null_values=list(null_marks),
        ),
    )


def _fields(header: Header) -> list[tuple[str, int, Column]]:
    """Name, position and column of each field that is read: a column may be in several."""
    return [
        (name if place == 0 else f"{name} {place}", at, header.service.by_name[name])
        for name, places in header.all_places.items()
        for place, at in enumerate(places)
    ]


def _first_of_each(arrays: Mapping[str, Any], header: Header) -> dict[str, Any]:
    """Return the columns; a column in several fields takes the first value of each row."""
    found: dict[str, Any] = {}
    for key, _, column in _fields(header):
        values = arrays[key]
        found[column.name] = (
            pc.coalesce(found[column.name], values) if column.name in found else values
        )
    return found


def _parse_at_once(
    text: pa.Table, rows: bytes, header: Header, zones: ZonePolygons | None
) -> Parsed | None:
    """Parse everything at once with pyarrow; None if that may be too lenient.

    Raises:
        pa.ArrowInvalid: some value is not of its type.
    """
    unknown = Counter[str]()
    arrays: dict[str, Any] = {}
    blanks = 0
    for key, _, column in _fields(header):
        name, values = column.name, text[key]
        if column.kind == "time":
            stamps = values.cast(pa.string())
            if header.schema_version.labels and _has_iso_mark(stamps):
                return None
            values = stamps.cast(column.arrow)
            blanks += len(values) - values.null_count
        elif name in header.labels or column.kind == "text":
            values = values.combine_chunks()
            blanks += pc.sum(pc.count_substring(values, " ")).as_py() or 0
            values = replace_null_marks(values, header.labels.get(name, {}))
        if name in header.labels:
            decoded = decode_labels(values, column, header.labels[name], unknown)
            values = convert_values(decoded, column)
            if values.null_count != decoded.null_count:
                return None
        arrays[key] = values
    columns = _first_of_each(arrays, header)
    columns |= find_missing_zones(header, zones, lambda at: text[f"raw {at}"])
    table = _complete_table(columns, text.num_rows, header.service)
    return Parsed(table, [], unknown) if _is_strict(table, rows, blanks, header) else None


def _has_iso_mark(stamps: pa.ChunkedArray) -> bool:
    marks = pc.utf8_slice_codeunits(stamps, DATE, DATE + 1)
    return pc.all(pc.equal(marks, " ")).as_py() is False


def _is_strict(table: pa.Table, rows: bytes, blanks: int, header: Header) -> bool:
    """Return whether pyarrow accepted no invalid value: ' 1', 'nan', the year 0."""
    columns = [column for column in header.columns if column]
    times = [table[column.name] for column in columns if column.kind == "time"]
    amounts = [table[column.name] for column in columns if column.kind == "amount"]
    return (
        rows.count(b" ") == blanks
        and not any(pc.any(pc.less(column, FIRST_TIME)).as_py() for column in times)
        and all(pc.all(is_amount(column)).as_py() is not False for column in amounts)
    )


def _parse_by_value(
    lines: pa.Buffer, rows: bytes, header: Header, zones: ZonePolygons | None
) -> Parsed:
    """Convert text column by column; a line with a value that does not fit is quarantined."""
    as_text = dict.fromkeys(ARROW_TYPES, pa.string())
    try:
        text = _read_csv(lines, header, as_text, _count_surplus_fields(rows, header))
    except pa.ArrowInvalid:  # rows of different lengths
        even = b"".join(
            [b"\n", *(_cut_surplus_fields(line, header) for line in rows.splitlines(keepends=True))]
        )
        text = _read_csv(pa.py_buffer(even), header, as_text, 0)
    unknown = Counter[str]()
    arrays: dict[str, Any] = {}
    bad: dict[int, InvalidValue] = {}
    for key, place, column in _fields(header):
        values = text[key].combine_chunks()
        labels = header.labels.get(column.name, {})
        arrays[key], misfits = convert_column(values, column, labels, unknown)
        for at in misfits:
            bad.setdefault(at, InvalidValue(at + 2, header.names[place], format_value(values[at])))
    columns = _first_of_each(arrays, header)
    columns |= find_missing_zones(header, zones, lambda at: text[f"raw {at}"])
    return _remove_rows(_complete_table(columns, text.num_rows, header.service), bad, unknown)


def _cut_surplus_fields(line: bytes, header: Header) -> bytes:
    """Return a line without the empty fields beyond the header's."""
    content = line.rstrip(b"\r\n")
    while _count_surplus_fields(content, header) > 0:
        content = content[:-1]
    return content + line[len(line.rstrip(b"\r\n")) :]


def _parse_table(table: pa.Table, header: Header, zones: ZonePolygons | None) -> Parsed:
    """Convert the columns of a Parquet month's slice."""
    unknown = Counter[str]()
    arrays: dict[str, Any] = {}
    bad: dict[int, InvalidValue] = {}
    for key, place, column in _fields(header):
        values = table.column(place).combine_chunks()
        labels = header.labels.get(column.name, {})
        arrays[key], misfits = convert_column(values, column, labels, unknown)
        for at in misfits:
            value = InvalidValue(at + 1, header.names[place], format_value(values[at]), "row")
            bad.setdefault(at, value)
    columns = _first_of_each(arrays, header)
    columns |= find_missing_zones(header, zones, table.column)
    return _remove_rows(_complete_table(columns, table.num_rows, header.service), bad, unknown)


def _complete_table(arrays: Mapping[str, Any], rows: int, service: Service) -> pa.Table:
    """Return the service's table; columns that the file does not have are null."""
    columns = [
        arrays[column.name] if column.name in arrays else pa.nulls(rows, column.arrow)
        for column in service.columns
    ]
    return pa.Table.from_arrays(columns, schema=service.arrow_schema)


def _remove_rows(table: pa.Table, bad: Mapping[int, InvalidValue], labels: Counter[str]) -> Parsed:
    if bad:
        keep = np.ones(table.num_rows, np.bool_)
        keep[list(bad)] = False
        table = table.filter(pa.array(keep))
    return Parsed(table, [bad[at] for at in sorted(bad)], labels)
