"""A day's CSV lines as published texts."""

from __future__ import annotations

import pyarrow as pa
import pytest

from taxi_assets.trips.parse_csv import read_lines_as_text

HEADER = b"VendorID,pickup,total\n"


@pytest.mark.parametrize(
    ("lines", "rows"),
    [
        (b"", []),
        (
            b"1,2021-01-05 08:00:00,10.50\n2,,\n",
            [("1", "2021-01-05 08:00:00", "10.50"), ("2", "", "")],
        ),
        (b'1,"a, ""b""",007\r\n', [("1", 'a, "b"', "007")]),
        (b"1,x,NULL\n1,x,nan\n", [("1", "x", "NULL"), ("1", "x", "nan")]),
        # rows of different lengths: for years TLC's files had empty fields beyond the header
        (b"1,x,5,,\n2,y\n", [("1", "x", "5"), ("2", "y", "")]),
        (b"1,x,5,,\n2,y,6,,\n", [("1", "x", "5"), ("2", "y", "6")]),
        (b"1,caf\xe9,5\n", [("1", "caf\N{REPLACEMENT CHARACTER}", "5")]),
    ],
)
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_text_table_holds_every_value_as_published(
    mark: bytes, lines: bytes, rows: list[tuple[str, ...]]
) -> None:
    table = read_lines_as_text(pa.py_buffer(mark + HEADER + lines))
    assert table.column_names == ["VendorID", "pickup", "total"]
    assert {str(kind) for kind in table.schema.types} == {"string"}
    assert list(zip(*(column.to_pylist() for column in table.columns), strict=True)) == rows
