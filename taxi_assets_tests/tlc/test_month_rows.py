"""Rows of a day are found again in their month file, by the numbers an editor shows."""

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


def line(day: int, fare: str) -> str:
    fields = dict.fromkeys(GREEN.header, "1")
    fields["lpep_pickup_datetime"] = f"2021-01-{day:02d} 08:00:00"
    fields["lpep_dropoff_datetime"] = f"2021-01-{day:02d} 08:10:00"
    return ",".join((fields | {"fare_amount": fare}).values())


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("name", ["month.csv", "month.csv.gz"])
def test_lines_of_a_csv_month(tmp_path: Path, end: str, name: str) -> None:
    # The same line comes three times, once on another day's place before.
    lines = [
        HEADER,
        line(4, "5"),
        line(5, "x"),
        line(6, "5"),
        line(5, "x"),
        line(5, "7"),
        line(5, "x"),
    ]
    content = end.join([*lines, ""]).encode()
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    file = fetch_month_file(str(path), GREEN, Month(2021, 1), tmp_path / "home", print)
    of_day = [one for one in lines if one == HEADER or "2021-01-05" in one]
    slice_ = pa.py_buffer(end.join([*of_day, ""]).encode())
    assert find_month_rows(file, DAY, slice_, [2, 3, 5]) == {2: 3, 3: 5, 5: 7}
    assert find_month_rows(file, DAY, slice_, [4]) == {4: 6}


def test_a_line_that_is_the_beginning_of_another_is_not_found_in_it(tmp_path: Path) -> None:
    path = tmp_path / "month.csv"
    longer, shorter = f"{line(5, '5')}2", line(5, "5")
    path.write_text(f"{HEADER}\n{longer}\n{shorter}\n")
    file = fetch_month_file(str(path), GREEN, Month(2021, 1), tmp_path / "home", print)
    slice_ = pa.py_buffer(path.read_bytes())
    assert find_month_rows(file, DAY, slice_, [3]) == {3: 3}


def test_rows_of_a_parquet_month(tmp_path: Path) -> None:
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
