"""Parse CSV lines of a day into the service's types.

pyarrow parses all values at once if none of them is unusual; otherwise each field is converted by
`values.py`. Both give the same result, because a value must not depend on its neighbours.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain, zip_longest
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from taxi_assets.tlc.column import TYPES, Kind
from taxi_assets.tlc.header import FIRST_LINE, Header, read_header_line
from taxi_assets.tlc.values import (
    FIRST_TIME,
    convert_values,
    decode_labels,
    is_amount,
    list_null_spellings,
    replace_null_marks,
)
from taxi_assets.tlc.zone_polygons import ZonePolygons
from taxi_assets.trips.locate import find_missing_zones
from taxi_assets.trips.parsed import Parsed, combine_fields, list_fields, parse_by_value

PARSE_BLOCK = 1 << 20
"""Bytes that pyarrow parses at a time: with 1 MiB the buffers are reused and a month takes 0.7 s of
one core; with 8 MiB every block faults in fresh pages and it takes 1.5 s."""

# Characters of values that pyarrow accepts as numbers (0x10, a surrounding tab) or times (an ISO
# T), and that are invalid here.
LENIENT = (b"x", b"X", b"\t", b"T")
STAMP = pa.binary(19)
"""Type for reading times: it rejects a value of another length, and is faster."""
DATE_LENGTH = 10


def read_lines_as_text(lines: pa.Buffer) -> pa.Table:
    """Read CSV lines without conversion: every value is text, an empty field an empty text."""
    header = read_header_line(lines).decode("utf-8-sig", "replace").rstrip("\r\n")
    names = next(csv.reader([header]))
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


def parse_lines(lines: pa.Buffer, header: Header, zones: ZonePolygons | None) -> Parsed:
    """Parse CSV lines under their header."""
    rows = lines[len(read_header_line(lines)) :].to_pybytes()
    if not rows:
        return Parsed(header.service.arrow_schema.empty_table(), [])
    marks = LENIENT[:-1] if header.schema_version.labels else LENIENT
    if not any(mark in rows for mark in marks):
        kinds = {kind: types.arrow for kind, types in TYPES.items()} | {"time": STAMP}
        surplus = _count_surplus_fields(rows, header)
        # Comparing each field with 143 spellings of "no value" takes 0.2 s per month. TLC's files
        # have none, and a number or a time that is one fails the first attempt.
        labels = frozenset(chain.from_iterable(header.labels.values()))
        for null_marks in ([""], list_null_spellings(labels)):
            try:
                text = _read_csv(lines, header, kinds, surplus, null_marks)
                parsed = _parse_at_once(text, rows, header, zones)
            except pa.ArrowInvalid:
                continue  # A value is not of its type.
            if parsed:
                return parsed
            break
    return _parse_by_value(lines, rows, header, zones)


def _count_surplus_fields(rows: bytes, header: Header) -> int:
    """Return the number of surplus fields of the first row; in most files all rows have as many."""
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
    """Read the fields of the service's columns and coordinates, named by their position."""
    types = {
        str(at): pa.string() if column.name in header.labels else kinds[column.kind]
        for at, column in list_fields(header)
    }
    types |= {str(at): pa.string() for pair in header.points.values() for at in pair}
    return pa_csv.read_csv(
        pa.BufferReader(lines),
        read_options=pa_csv.ReadOptions(
            column_names=[str(at) for at in range(len(header.names) + surplus)],
            skip_rows=1,
            block_size=PARSE_BLOCK,
            use_threads=False,
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=types,
            include_columns=list(types),
            strings_can_be_null=True,
            null_values=list(null_marks),
        ),
    )


def _parse_at_once(
    text: pa.Table, rows: bytes, header: Header, zones: ZonePolygons | None
) -> Parsed | None:
    """Parse all values at once with pyarrow; None if pyarrow may have accepted an invalid one.

    Raises:
        pa.ArrowInvalid: a value is not of its type.
    """
    unknown = Counter[str]()
    arrays: dict[int, Any] = {}
    blanks = 0
    for at, column in list_fields(header):
        name, values = column.name, text[str(at)]
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
        arrays[at] = values
    missing_zones = find_missing_zones(header, zones, lambda at: text[str(at)])
    table = combine_fields(arrays, text.num_rows, header, missing_zones)
    return Parsed(table, [], unknown) if _is_strict(table, rows, blanks, header) else None


def _has_iso_mark(stamps: pa.ChunkedArray) -> bool:
    marks = pc.utf8_slice_codeunits(stamps, DATE_LENGTH, DATE_LENGTH + 1)
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
    """Convert text field by field; a line with an invalid value is unreadable."""
    as_text = dict.fromkeys(TYPES, pa.string())
    try:
        text = _read_csv(lines, header, as_text, _count_surplus_fields(rows, header))
    except pa.ArrowInvalid:  # rows of different lengths
        even = b"".join(
            [b"\n", *(_cut_surplus_fields(line, header) for line in rows.splitlines(keepends=True))]
        )
        text = _read_csv(pa.py_buffer(even), header, as_text, 0)
    return parse_by_value(
        lambda at: text[str(at)], text.num_rows, header, zones, first_row=FIRST_LINE, unit="line"
    )


def _cut_surplus_fields(line: bytes, header: Header) -> bytes:
    """Return a line without its surplus empty fields."""
    content = line.rstrip(b"\r\n")
    while _count_surplus_fields(content, header) > 0:
        content = content[:-1]
    return content + line[len(line.rstrip(b"\r\n")) :]
