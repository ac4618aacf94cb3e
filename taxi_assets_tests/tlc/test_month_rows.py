"""Rows of a day are located in their month file by the line numbers of an editor."""

from __future__ import annotations

import gzip
from datetime import date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.month_rows import find_month_rows
from taxi_assets.tlc.services import SERVICES
from taxi_assets.tlc.source import fetch_month_file

GREEN = SERVICES["green"]
DAY = date(2021, 1, 5)
HEADER = ",".join(GREEN.header)


def make_line(day: int, fare: str) -> str:
    fields = dict.fromkeys(GREEN.header, "1")
    fields["lpep_pickup_datetime"] = f"2021-01-{day:02d} 08:00:00"
    fields["lpep_dropoff_datetime"] = f"2021-01-{day:02d} 08:10:00"
    return ",".join((fields | {"fare_amount": fare}).values())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["month.csv", "month.csv.gz"])
def test_lines_of_a_csv_month_are_located(tmp_path: Path, end: str, name: str) -> None:
    # The same line occurs three times, once among another day's lines before.
    lines = [
        HEADER,
        make_line(4, "5"),
        make_line(5, "x"),
        make_line(6, "5"),
        make_line(5, "x"),
        make_line(5, "7"),
        make_line(5, "x"),
    ]
    content = end.join([*lines, ""]).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    file = fetch_month_file(str(path), GREEN, Month(2021, 1), tmp_path / "home", print)
    expected_lines = [text for text in lines if text == HEADER or "2021-01-05" in text]
    slice_ = pa.py_buffer(end.join([*expected_lines, ""]).encode())
    assert find_month_rows(file, DAY, slice_, [2, 3, 5]) == {2: 3, 3: 5, 5: 7}
    assert find_month_rows(file, DAY, slice_, [4]) == {4: 6}


def test_line_that_starts_another_line_is_not_confused_with_it(tmp_path: Path) -> None:
    path = tmp_path / "month.csv"
    longer, shorter = f"{make_line(5, '5')}2", make_line(5, "5")
    path.write_text(f"{HEADER}\n{longer}\n{shorter}\n")
    file = fetch_month_file(str(path), GREEN, Month(2021, 1), tmp_path / "home", print)
    slice_ = pa.py_buffer(path.read_bytes())
    assert find_month_rows(file, DAY, slice_, [3]) == {3: 3}


def test_rows_of_a_parquet_month_are_located(tmp_path: Path) -> None:
    days = [4, 5, 6, 5, 5]
    pickups = [datetime(2021, 1, day, 23, 59, 59) for day in days]  # noqa: DTZ001 - wall time
    columns: dict[str, object] = {name: pa.array([1.0] * len(days)) for name in GREEN.header}
    columns |= {"lpep_pickup_datetime": pickups, "lpep_dropoff_datetime": pickups}
    columns["store_and_fwd_flag"] = ["N"] * len(days)
    table = pa.table(columns)
    path = tmp_path / "month.parquet"
    pq.write_table(table, path, row_group_size=2)
    file = fetch_month_file(str(path), GREEN, Month(2021, 1), tmp_path / "home", print)
    assert find_month_rows(file, DAY, table.take([1, 3, 4]), [1, 3, 4]) == {1: 2, 3: 5}
