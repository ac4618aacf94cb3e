"""TLC's own rows: counts against the published ones and against pandas, slices byte for byte.

The rows are not part of this repository; without them these tests are skipped.
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
from taxi_assets.tlc.csv_split import BLANK, OUTSIDE, UNREADABLE
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import Cleaned, clean_partition, count_rows_outside_day
from taxi_assets_tests.tlc.files import collect_lines, open_raw_month

ROWS = Path(__file__).resolve().parents[2].parent / "shared" / "data"
MANIFEST = ROWS / "MANIFEST.csv"
CSV_MONTH = re.compile(r"tlc/(yellow|green)/\w+_tripdata_(20(?:19|20|21))-(\d\d)[a-z.-]*")


def read_manifest() -> dict[str, dict[str, str]]:
    """Return the manifest's rows for the CSV months of 2019 to 2021, by file."""
    if not MANIFEST.exists():
        return {}
    with MANIFEST.open(newline="") as file:
        rows = {row["file"]: row for row in csv.DictReader(file)}
    return {
        name: row
        for name, row in rows.items()
        if CSV_MONTH.fullmatch(name) and not name.endswith(".parquet")
    }


PUBLISHED = read_manifest()
pytestmark = pytest.mark.skipif(not PUBLISHED, reason=f"no real rows in {ROWS}")
each_file = pytest.mark.parametrize("name", PUBLISHED)


@dataclass
class CleanedMonth:
    """A month file after the pass, with every slice cleaned."""

    service: Service
    content: bytes
    month: RawMonth
    slices: dict[int, bytes]
    cleaned: dict[int, Cleaned]


@cache
def clean_month(name: str) -> CleanedMonth:
    path = ROWS / name
    match = CSV_MONTH.fullmatch(name)
    assert match
    service = SERVICES[match[1]]
    content = path.read_bytes()
    month = open_raw_month(path, service, Month(int(match[2]), int(match[3])), max_invalid_ratio=0)
    slices = collect_lines(month)
    cleaned = {
        key: clean_partition(pa.py_buffer(month.line + lines), service)
        for key, lines in slices.items()
        if key != BLANK
    }
    content = gzip.decompress(content) if name.endswith(".gz") else content
    return CleanedMonth(service, content, month, slices, cleaned)


@each_file
def test_counts_equal_the_published_ones(name: str) -> None:
    cleaned_month, row = clean_month(name), PUBLISHED[name]
    counts = {
        "rows": cleaned_month.month.file_rows,
        "out_of_month": cleaned_month.month.rows[OUTSIDE],
        "bad_pickup": cleaned_month.month.rows[UNREADABLE],
        "blank_lines": cleaned_month.month.rows[BLANK],
        "columns": len(cleaned_month.service.header),
        "zero_passengers": sum(
            day.dropped["zero_passengers"] for day in cleaned_month.cleaned.values()
        ),
        "null_passengers": sum(
            day.dropped["null_passengers"] for day in cleaned_month.cleaned.values()
        ),
        # the manifest's rule demands a distance, too
        "kept": sum(
            int((day.frame["trip_distance"] > 0).sum()) for day in cleaned_month.cleaned.values()
        ),
    }
    assert counts == {count: int(row[count]) for count in counts}
    assert sum(day.dropped["unreadable"] for day in cleaned_month.cleaned.values()) == 0


@each_file
def test_days_equal_those_that_pandas_counts(name: str) -> None:
    cleaned_month = clean_month(name)
    passengers = cleaned_month.service.find_role("passengers")
    frame = pd.read_csv(ROWS / name, dtype=str, keep_default_na=False)
    frame["day"] = frame[cleaned_month.service.pickup].str[:10]
    number = pd.to_numeric(frame[passengers])
    frame["kept"], frame["null"] = number > 0, frame[passengers] == ""
    expected = frame.groupby("day").agg(
        rows=("kept", "size"), kept=("kept", "sum"), null=("null", "sum")
    )
    month = str(cleaned_month.month.file.month)
    inside = {day: (*counts,) for day, *counts in expected.itertuples() if day[:7] == month}
    actual = {
        f"{month}-{key:02d}": (day.raw_rows, len(day.frame), day.dropped["null_passengers"])
        for key, day in cleaned_month.cleaned.items()
        if key != OUTSIDE
    }
    assert actual == inside
    for key, day in cleaned_month.cleaned.items():
        if key != OUTSIDE:
            at = date(
                cleaned_month.month.file.month.year, cleaned_month.month.file.month.month, key
            )
            assert count_rows_outside_day(day.table, at, cleaned_month.service) == 0
            assert cleaned_month.month.rows[at.day] == day.raw_rows


@each_file
def test_total_amounts_equal_those_of_pandas(name: str) -> None:
    cleaned_month = clean_month(name)
    frame = pd.read_csv(ROWS / name, usecols=["total_amount", "passenger_count"])
    total = frame.loc[frame["passenger_count"] > 0, "total_amount"].sum()
    parts = [
        pc.sum(pa.array(day.frame["total_amount"])).as_py() or 0
        for day in cleaned_month.cleaned.values()
    ]
    assert sum(parts) == pytest.approx(total, abs=0.001)


@each_file
def test_slices_hold_the_published_lines_byte_for_byte(name: str) -> None:
    cleaned_month = clean_month(name)
    month = str(cleaned_month.month.file.month).encode()
    header, *lines = cleaned_month.content.splitlines(keepends=True)
    expected: defaultdict[int, list[bytes]] = defaultdict(list)
    for line in lines:
        pickup = line.split(b",")[1] if line.strip() else b""
        key = int(pickup[8:10]) if pickup[:7] == month else OUTSIDE
        expected[key if pickup else BLANK].append(line)
    assert cleaned_month.month.line == header
    assert cleaned_month.slices == {
        key: b"".join(lines_of_day) for key, lines_of_day in expected.items()
    }


def test_real_files_have_several_line_ends() -> None:
    assert any(b"\r\n" in clean_month(name).content for name in PUBLISHED)
    assert any(b"\r\n" not in clean_month(name).content for name in PUBLISHED)


def test_green_quarter_has_the_published_row_count() -> None:
    """266,855 rows: green 2020-10 to 2020-12, a course's published answer."""
    months = [
        clean_month(f"tlc/green/green_tripdata_2020-{month}.csv.gz") for month in (10, 11, 12)
    ]
    assert [cleaned_month.month.file_rows for cleaned_month in months] == [95_120, 88_605, 83_130]
    rows = [day for cleaned_month in months for day in cleaned_month.cleaned.values()]
    assert sum(int((day.frame["trip_distance"] > 0).sum()) for day in rows) == 139_370
    vendors = {vendor for day in rows for vendor in day.frame["vendorid"].dropna().unique()}
    assert vendors == {1, 2}
