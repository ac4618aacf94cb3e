"""TLC's own rows: counts against the published ones and against pandas, slices byte for byte.

The rows are no part of this repository; where they are not, these tests are skipped.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections import defaultdict
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.tlc.raw_month import BLANK, OUTSIDE, UNREADABLE, RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import Cleaned, clean_partition, count_rows_outside_day
from taxi_assets_tests.tlc.files import passed_over, raw_month

ROWS = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MANIFEST = ROWS / "MANIFEST.csv"
CSV_MONTH = re.compile(r"tlc/(yellow|green)/\w+_tripdata_(20(?:19|20|21))-(\d\d)[a-z.-]*")


def published() -> dict[str, dict[str, str]]:
    """Counts of the CSV months of 2019 to 2021, by file."""
    if not MANIFEST.exists():
        return {}
    with MANIFEST.open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    return {
        name: row
        for name, row in rows.items()
        if CSV_MONTH.fullmatch(name) and not name.endswith(".parquet")
    }


PUBLISHED = published()
pytestmark = pytest.mark.skipif(not PUBLISHED, reason=f"no real rows in {ROWS}")
each_file = pytest.mark.parametrize("name", PUBLISHED)


@dataclass
class Read:
    """A month file after the pass, every slice cleaned."""

    service: Service
    content: bytes
    month: RawMonth
    slices: dict[int, bytes]
    cleaned: dict[int, Cleaned]


@cache
def read(name: str) -> Read:
    path = ROWS / name
    match = CSV_MONTH.fullmatch(name)
    assert match
    service = SERVICES[match[1]]
    content = path.read_bytes()
    month = raw_month(path, service, Month(int(match[2]), int(match[3])), max_invalid_ratio=0)
    slices = passed_over(month)
    cleaned = {
        key: clean_partition(pa.py_buffer(month.line + lines), service)
        for key, lines in slices.items()
        if key != BLANK
    }
    content = gzip.decompress(content) if name.endswith(".gz") else content
    return Read(service, content, month, slices, cleaned)


@each_file
def test_counts_are_the_published_ones(name: str) -> None:
    done, row = read(name), PUBLISHED[name]
    counts = {
        "rows": done.month.file_rows,
        "out_of_month": done.month.rows[OUTSIDE],
        "bad_pickup": done.month.rows[UNREADABLE],
        "blank_lines": done.month.rows[BLANK],
        "columns": len(done.service.header),
        "zero_passengers": sum(day.dropped["zero_passengers"] for day in done.cleaned.values()),
        "null_passengers": sum(day.dropped["null_passengers"] for day in done.cleaned.values()),
        # the manifest's rule asks for a distance, too
        "kept": sum(int((day.frame["trip_distance"] > 0).sum()) for day in done.cleaned.values()),
    }
    assert counts == {count: int(row[count]) for count in counts}
    assert sum(day.dropped["unreadable"] for day in done.cleaned.values()) == 0


@each_file
def test_days_are_those_that_pandas_counts(name: str) -> None:
    done = read(name)
    passengers = done.service.find_role("passengers")
    frame = pd.read_csv(ROWS / name, dtype=str, keep_default_na=False)
    frame["day"] = frame[done.service.pickup].str[:10]
    number = pd.to_numeric(frame[passengers])
    frame["kept"], frame["null"] = number > 0, frame[passengers] == ""
    expected = frame.groupby("day").agg(
        rows=("kept", "size"), kept=("kept", "sum"), null=("null", "sum")
    )
    month = str(done.month.file.month)
    inside = {day: (*counts,) for day, *counts in expected.itertuples() if day[:7] == month}
    found = {
        f"{month}-{key:02d}": (day.raw_rows, len(day.frame), day.dropped["null_passengers"])
        for key, day in done.cleaned.items()
        if key != OUTSIDE
    }
    assert found == inside
    for key, day in done.cleaned.items():
        if key != OUTSIDE:
            at = date(done.month.file.month.year, done.month.file.month.month, key)
            assert count_rows_outside_day(day.frame, at, done.service) == 0
            assert done.month.count_day_rows(at) == day.raw_rows


@each_file
def test_money_adds_up_to_what_pandas_adds(name: str) -> None:
    done = read(name)
    frame = pd.read_csv(ROWS / name, usecols=["total_amount", "passenger_count"])
    total = frame.loc[frame["passenger_count"] > 0, "total_amount"].sum()
    parts = [
        pc.sum(pa.array(day.frame["total_amount"])).as_py() or 0 for day in done.cleaned.values()
    ]
    assert sum(parts) == pytest.approx(total, abs=0.001)


@each_file
def test_slices_are_the_published_lines_byte_for_byte(name: str) -> None:
    done = read(name)
    month = str(done.month.file.month).encode()
    header, *lines = done.content.splitlines(keepends=True)
    expected: defaultdict[int, list[bytes]] = defaultdict(list)
    for line in lines:
        pickup = line.split(b",")[1] if line.strip() else b""
        key = int(pickup[8:10]) if pickup[:7] == month else OUTSIDE
        expected[key if pickup else BLANK].append(line)
    assert done.month.line == header
    assert done.slices == {key: b"".join(found) for key, found in expected.items()}


def test_published_line_ends_are_among_them() -> None:
    assert any(b"\r\n" in read(name).content for name in PUBLISHED)
    assert any(b"\r\n" not in read(name).content for name in PUBLISHED)


def test_the_three_months_that_everybody_loads() -> None:
    """266,855 rows: green 2020-10 to 2020-12, a course's published answer."""
    months = [read(f"tlc/green/green_tripdata_2020-{month}.csv.gz") for month in (10, 11, 12)]
    assert [one.month.file_rows for one in months] == [95_120, 88_605, 83_130]
    rows = [day for one in months for day in one.cleaned.values()]
    assert sum(int((day.frame["trip_distance"] > 0).sum()) for day in rows) == 139_370
    vendors = {vendor for day in rows for vendor in day.frame["vendorid"].dropna().unique()}
    assert vendors == {1, 2}
