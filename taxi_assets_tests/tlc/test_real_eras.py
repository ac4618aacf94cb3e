"""TLC's own rows of every era that there are some of, against counts of others.

The rows are no part of this repository; where they are not, these tests are skipped.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.defs.month_split import Spool, open_spool
from taxi_assets.tlc.raw_month import BLANK, OUTSIDE, UNREADABLE, RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import Cleaned, clean_partition
from taxi_assets.trips.parse import parse_partition
from taxi_assets_tests.tlc.files import raw_month
from taxi_assets_tests.trips.test_real_rows import MANIFEST, ROWS

FILE = re.compile(r"tlc/(yellow|green)/(?:drift/)?\w+_tripdata_(20\d\d)-(\d\d)[a-z.-]*")
CSV_2020_12, PARQUET_2020_12 = (
    f"tlc/green/green_tripdata_2020-12.{end}" for end in ("csv.gz", "parquet")
)


def published() -> dict[str, dict[str, str]]:
    """Counts of all yellow and green months, by file."""
    if not MANIFEST.exists():
        return {}
    with MANIFEST.open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file) if FILE.fullmatch(row["file"])}


PUBLISHED = published()
pytestmark = pytest.mark.skipif(not PUBLISHED, reason=f"no real rows in {ROWS}")
each_file = pytest.mark.parametrize("name", PUBLISHED)


@dataclass
class Slices:
    """A month's raw slices as they are stored, by place."""

    service: Service
    month: RawMonth
    contents: dict[int, pa.Buffer | pa.Table]

    def cleaned(self, *rules: str) -> list[Cleaned]:
        """All rows of the file that have a pickup, also those of other months."""
        return [clean_partition(content, self.service, rules) for content in self.contents.values()]


@cache
def read(name: str) -> Slices:
    match = FILE.fullmatch(name)
    assert match
    service = SERVICES[match[1]]
    month = raw_month(
        ROWS / name, service, Month(int(match[2]), int(match[3])), max_invalid_ratio=0
    )
    spools: dict[int, Spool] = {}
    for part in month.read_days(lambda _: None):
        if part.key != BLANK:
            spools.setdefault(part.key, open_spool(month)).add(part)
    return Slices(service, month, {key: _unpacked(spools[key], month) for key in sorted(spools)})


def _unpacked(spool: Spool, month: RawMonth) -> Any:
    stored = pa.BufferReader(spool.build_content({}))
    if not month.is_parquet:
        return pa.CompressedInputStream(stored, "zstd").read_buffer()
    rows = pq.ParquetFile(stored).read()
    assert rows.schema.remove_metadata() == month.schema
    return rows


PASSENGERS = ("zero_passengers", "null_passengers")


@each_file
def test_counts_are_those_of_the_manifest(name: str) -> None:
    done, row = read(name), PUBLISHED[name]
    assert done.month.header
    days = done.cleaned(*PASSENGERS, "zero_distance")
    counts = {
        "rows": done.month.file_rows,
        "columns": len(done.month.header.names),
        "out_of_month": done.month.rows[OUTSIDE],
        "bad_pickup": done.month.rows[UNREADABLE],
        "blank_lines": done.month.rows[BLANK],
        "zero_passengers": sum(day.dropped["zero_passengers"] for day in days),
        "null_passengers": sum(day.dropped["null_passengers"] for day in days),
        "kept": sum(len(day.frame) for day in days),
    }
    assert counts == {count: int(row[count]) for count in counts}
    assert sum(day.dropped["unreadable"] for day in days) == 0
    assert not any(day.unknown_labels for day in days)
    assert done.month.header.unknown == ()
    every = done.cleaned()
    vendors = sum(int(day.frame["vendorid"].isna().sum()) for day in every)
    assert vendors == int(row["null_vendor"])
    negative = sum(int((day.frame["fare_amount"] < 0).sum()) for day in every)
    assert negative == int(row["negative_fares"])


@each_file
def test_money_and_times_are_those_that_pandas_reads(name: str) -> None:
    done = read(name)
    path = ROWS / name
    if done.month.is_parquet:
        frame = pd.read_parquet(path)
    else:
        frame = pd.read_csv(path, skip_blank_lines=True, index_col=False, low_memory=False)
    frame.columns = [column.strip().lower() for column in frame.columns]
    (pickup,) = (one for one in frame.columns if one.endswith("pickup_datetime"))
    found = pd.concat([day.frame for day in done.cleaned()])
    for column in ("total_amount", "trip_distance", "tip_amount"):
        assert found[column].sum() == pytest.approx(frame[column].sum(), abs=0.001)
    seconds = pd.to_datetime(frame[pickup]).sort_values(ignore_index=True)
    times = found[done.service.pickup_column].sort_values(ignore_index=True)
    assert (times == seconds).all()
    zones = "pulocationid"
    assert (
        found[zones].isna().all()
        if zones not in frame
        else (found[zones].sum() == frame[zones].sum())
    )


def test_labels_of_2014_are_codes() -> None:
    found = pd.concat(
        [day.frame for day in read("tlc/yellow/drift/yellow_tripdata_2014-05.head.csv").cleaned()]
    )
    path = ROWS / "tlc/yellow/drift/yellow_tripdata_2014-05.head.csv"
    words = pd.read_csv(path, skipinitialspace=True)
    codes = {"CMT": 1, "VTS": 2, "CRD": 1, "CSH": 2, "NOC": 3, "DIS": 4, "UNK": 5}
    for ours, theirs in (("vendorid", "vendor_id"), ("payment_type", "payment_type")):
        expected = words[theirs].map(codes).value_counts().to_dict()
        assert found[ours].value_counts().to_dict() == expected


def test_the_months_that_a_course_loads() -> None:
    """266,855 rows of green 2020-10 to 2020-12, and 139,370 after the course's rules.

    The course counts all rows of the files. Days hold those of their own month only: 14 rows of
    other months are quarantined, of which the rules keep 12.
    """
    months = [read(f"tlc/green/green_tripdata_2020-{month}.csv.gz") for month in (10, 11, 12)]
    assert sum(one.month.file_rows for one in months) == 266_855
    rules = (*PASSENGERS, "zero_distance")
    kept = [
        {
            key: len(clean_partition(content, one.service, rules).frame)
            for key, content in one.contents.items()
        }
        for one in months
    ]
    assert sum(sum(one.values()) for one in kept) == 139_370
    assert sum(one.month.rows[OUTSIDE] for one in months) == 14
    assert sum(one[OUTSIDE] for one in kept) == 12


def test_short_trips_of_november_2025() -> None:
    """8,007 trips of at most 1 mile with a pickup in the month, another course's answer."""
    done = read("tlc/green/green_tripdata_2025-11.parquet")
    days = [
        clean_partition(rows, done.service, ())
        for key, rows in done.contents.items()
        if key != OUTSIDE
    ]
    assert sum(int((day.frame["trip_distance"] <= 1).sum()) for day in days) == 8_007
    days_of = {key for key in done.contents if key != OUTSIDE}
    assert days_of == set(range(1, 31))


def test_csv_and_parquet_of_a_month_differ_in_vendors_only() -> None:
    """TLC's Parquet of green 2020-12 has a vendor in the 36,838 rows that had none in the CSV.

    They are the rows without passengers, rate code, flag, payment and trip type, which both lack.
    All else is the same, row by row.
    """
    before, after = read(CSV_2020_12), read(PARQUET_2020_12)
    assert list(before.contents) == list(after.contents)
    filled: dict[int, int] = {}
    for key, content in before.contents.items():
        one = parse_partition(content, before.service).table
        other = parse_partition(after.contents[key], after.service).table
        assert one.drop_columns("vendorid").equals(other.drop_columns("vendorid"))
        was_null = pc.is_null(one["vendorid"])
        assert one.filter(pc.invert(was_null)).equals(other.filter(pc.invert(was_null)))
        assert was_null.equals(pc.is_null(one["passenger_count"]))
        for count in other.filter(was_null)["vendorid"].value_counts().to_pylist():
            filled[count["values"]] = filled.get(count["values"], 0) + count["counts"]
    assert filled == {2: 36_740, 1: 98}


def test_types_drift_between_parquet_months_and_ours_do_not() -> None:
    types: dict[str, set[str]] = {}
    for name in PUBLISHED:
        if name.startswith("tlc/green") and name.endswith(".parquet"):
            done = read(name)
            assert done.month.schema is not None
            for field in done.month.schema:
                types.setdefault(field.name, set()).add(str(field.type))
            rows = done.contents[date(2020, 1, 5).day]
            assert parse_partition(rows, done.service).table.schema == done.service.arrow_schema
    assert types["VendorID"] == {"int32", "int64"}
    assert types["passenger_count"] == {"double", "int64"}
    assert types["store_and_fwd_flag"] == {"string", "large_string"}
    assert types["ehail_fee"] == {"double", "null"}
