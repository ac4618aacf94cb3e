"""First lines as a table, with any content; columns of a file with other columns."""

from __future__ import annotations

import pyarrow as pa
import pytest

from taxi_assets.defs.metadata.table_metadata import (
    build_published_schema,
    preview_columns,
    preview_lines,
)
from taxi_assets.tlc.arrow_types import format_rows
from taxi_assets.tlc.services import SERVICES

GREEN = SERVICES["green"]
HEADER = b"\xef\xbb\xbfVendorID,fare,note\r\n"


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        (b"", []),
        (b"1,2.50,x\r\n2,,\r\n", [["1", "2.50", "x"], ["2", "", ""]]),
        (b'1,"2,50",x\n\n3,4\n', [["1", "2,50", "x"], ["3", "4", None]]),
        (b"1,2,a\rb\n", [["1,2,a\rb", None, None]]),
        (b"1,2,\xff\n", [["1", "2", "�"]]),
        (b"1,2,3,4,5\n" * 9, [["1", "2", "3"]] * 3),
        (
            b"-73.991957000000002,2021-01-05 00:11:44,x\n",
            [["-73.9919570…", "2021-01-05 00:11:44", "x"]],
        ),
    ],
)
def test_first_lines_become_a_table_with_a_line_for_each_column(
    lines: bytes, rows: list[list[str]]
) -> None:
    table = preview_lines(HEADER, lines)
    headings = ["column", "row 1", "row 2", "row 3"][: 1 + len(rows)]
    assert [column.name for column in table.schema.columns] == headings
    names, *values = zip(*(record.data.values() for record in table.records), strict=True)
    assert names == ("VendorID", "fare", "note")
    assert list(map(list, values)) == rows


def test_first_rows_of_a_parquet_month_become_texts() -> None:
    rows = pa.record_batch({"VendorID": [1, 2], "fare": [None, 3.5]})
    table = preview_columns(rows.schema.names, format_rows(rows))
    lines = [list(record.data.values()) for record in table.records]
    assert lines == [["VendorID", "1", "2"], ["fare", None, "3.5"]]


def test_unknown_column_has_no_description() -> None:
    schema = build_published_schema(("Fare_amount", "moon"), ("string", "string"), GREEN)
    assert [column.description for column in schema.columns] == [
        "Time-and-distance fare (dollars)",
        None,
    ]
