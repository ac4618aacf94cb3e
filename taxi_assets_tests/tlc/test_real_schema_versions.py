"""TLC's own rows of every schema version at hand, against published counts.

The rows are not part of this repository; without them these tests are skipped.
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
from taxi_assets.tlc.csv_split import BLANK, OUTSIDE, UNREADABLE
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import Cleaned, clean_partition, parse_partition
from taxi_assets_tests.tlc.files import open_raw_month
from taxi_assets_tests.trips.test_real_rows import MANIFEST, ROWS

FILE = re.compile(r"tlc/(yellow|green)/(?:drift/)?\w+_tripdata_(20\d\d)-(\d\d)[a-z.-]*")
CSV_2020_12, PARQUET_2020_12 = (
    f"tlc/green/green_tripdata_2020-12.{end}" for end in ("csv.gz", "parquet")
)


def read_manifest() -> dict[str, dict[str, str]]:
    """Return the manifest's rows for all yellow and green months, by file."""
    if not MANIFEST.exists():
        return {}
    with MANIFEST.open(newline="") as file:
        return {row["file"]: row for row in csv.DictReader(file) if FILE.fullmatch(row["file"])}


PUBLISHED = read_manifest()
pytestmark = pytest.mark.skipif(not PUBLISHED, reason=f"no real rows in {ROWS}")
each_file = pytest.mark.parametrize("name", PUBLISHED)


@dataclass
class RawSlices:
    """A month's raw slices as stored, by place."""

    service: Service
    month: RawMonth
    contents: dict[int, pa.Buffer | pa.Table]

    def cleaned(self, *rules: str) -> list[Cleaned]:
        """Clean all rows of the file that have a pickup, also those of other months."""
        return [clean_partition(content, self.service, rules) for content in self.contents.values()]


@cache
def read_month(name: str) -> RawSlices:
    match = FILE.fullmatch(name)
    assert match
    service = SERVICES[match[1]]
    month = open_raw_month(
        ROWS / name, service, Month(int(match[2]), int(match[3])), max_invalid_ratio=0
    )
    spools: dict[int, Spool] = {}
    for part in month.read_days(lambda _: None):
        if part.key != BLANK:
            spools.setdefault(part.key, open_spool(month)).add(part)
    return RawSlices(service, month, {key: _unpack(spools[key], month) for key in sorted(spools)})


def _unpack(spool: Spool, month: RawMonth) -> Any:
    stored = pa.BufferReader(spool.build_content({}))
    if not month.is_parquet:
        return pa.CompressedInputStream(stored, "zstd").read_buffer()
    rows = pq.ParquetFile(stored).read()
    assert rows.schema.remove_metadata() == month.schema
    return rows


PASSENGERS = ("zero_passengers", "null_passengers")


@each_file
def test_counts_equal_the_manifest(name: str) -> None:
    slices, row = read_month(name), PUBLISHED[name]
    assert slices.month.header
    days = slices.cleaned(*PASSENGERS, "zero_distance")
    counts = {
        "rows": slices.month.file_rows,
        "columns": len(slices.month.header.names),
        "out_of_month": slices.month.rows[OUTSIDE],
        "bad_pickup": slices.month.rows[UNREADABLE],
        "blank_lines": slices.month.rows[BLANK],
        "zero_passengers": sum(day.dropped["zero_passengers"] for day in days),
        "null_passengers": sum(day.dropped["null_passengers"] for day in days),
        "kept": sum(len(day.frame) for day in days),
    }
    assert counts == {count: int(row[count]) for count in counts}
    assert sum(day.dropped["unreadable"] for day in days) == 0
    assert not any(day.unknown_labels for day in days)
    assert slices.month.header.unknown == ()
    every = slices.cleaned()
    vendors = sum(int(day.frame["vendorid"].isna().sum()) for day in every)
    assert vendors == int(row["null_vendor"])
    negative = sum(int((day.frame["fare_amount"] < 0).sum()) for day in every)
    assert negative == int(row["negative_fares"])


@each_file
def test_money_and_times_equal_those_of_pandas(name: str) -> None:
    slices = read_month(name)
    path = ROWS / name
    if slices.month.is_parquet:
        frame = pd.read_parquet(path)
    else:
        frame = pd.read_csv(path, skip_blank_lines=True, index_col=False, low_memory=False)
    frame.columns = [column.strip().lower() for column in frame.columns]
    (pickup,) = (column for column in frame.columns if column.endswith("pickup_datetime"))
    cleaned = pd.concat([day.frame for day in slices.cleaned()])
    for column in ("total_amount", "trip_distance", "tip_amount"):
        assert cleaned[column].sum() == pytest.approx(frame[column].sum(), abs=0.001)
    seconds = pd.to_datetime(frame[pickup]).sort_values(ignore_index=True)
    times = cleaned[slices.service.pickup_column].sort_values(ignore_index=True)
    assert (times == seconds).all()
    zones = "pulocationid"
    assert (
        cleaned[zones].isna().all()
        if zones not in frame
        else (cleaned[zones].sum() == frame[zones].sum())
    )


def test_labels_of_2014_become_codes() -> None:
    cleaned = pd.concat(
        [
            day.frame
            for day in read_month("tlc/yellow/drift/yellow_tripdata_2014-05.head.csv").cleaned()
        ]
    )
    path = ROWS / "tlc/yellow/drift/yellow_tripdata_2014-05.head.csv"
    published = pd.read_csv(path, skipinitialspace=True)
    codes = {"CMT": 1, "VTS": 2, "CRD": 1, "CSH": 2, "NOC": 3, "DIS": 4, "UNK": 5}
    for column, published_column in (("vendorid", "vendor_id"), ("payment_type", "payment_type")):
        expected = published[published_column].map(codes).value_counts().to_dict()
        assert cleaned[column].value_counts().to_dict() == expected


def test_months_of_a_course_have_its_row_count() -> None:
    """266,855 rows of green 2020-10 to 2020-12, and 139,370 after the course's rules.

    The course counts all rows of the files. Days hold those of their own month only: 14 rows of
    other months are quarantined, of which the rules keep 12.
    """
    months = [read_month(f"tlc/green/green_tripdata_2020-{month}.csv.gz") for month in (10, 11, 12)]
    assert sum(slices.month.file_rows for slices in months) == 266_855
    rules = (*PASSENGERS, "zero_distance")
    counts = [
        {
            key: len(clean_partition(content, slices.service, rules).frame)
            for key, content in slices.contents.items()
        }
        for slices in months
    ]
    assert sum(sum(slices.values()) for slices in counts) == 139_370
    assert sum(slices.month.rows[OUTSIDE] for slices in months) == 14
    assert sum(slices[OUTSIDE] for slices in counts) == 12


def test_short_trips_of_november_2025() -> None:
    """8,007 trips of at most 1 mile with a pickup in the month, another course's answer."""
    slices = read_month("tlc/green/green_tripdata_2025-11.parquet")
    days = [
        clean_partition(rows, slices.service, ())
        for key, rows in slices.contents.items()
        if key != OUTSIDE
    ]
    assert sum(int((day.frame["trip_distance"] <= 1).sum()) for day in days) == 8_007
    keys = {key for key in slices.contents if key != OUTSIDE}
    assert keys == set(range(1, 31))


def test_csv_and_parquet_of_a_month_differ_in_vendors_only() -> None:
    """TLC's Parquet of green 2020-12 has a vendor in the 36,838 rows that had none in the CSV.

    They are the rows without passengers, rate code, flag, payment and trip type, which both lack.
    They are the rows without passengers, rate code, flag, payment and trip type in both files.
    """
    csv_month, parquet_month = read_month(CSV_2020_12), read_month(PARQUET_2020_12)
    assert list(csv_month.contents) == list(parquet_month.contents)
    filled: dict[int, int] = {}
    for key, content in csv_month.contents.items():
        csv_table = parse_partition(content, csv_month.service).table
        parquet_table = parse_partition(parquet_month.contents[key], parquet_month.service).table
        assert csv_table.drop_columns("vendorid").equals(parquet_table.drop_columns("vendorid"))
        was_null = pc.is_null(csv_table["vendorid"])
        assert csv_table.filter(pc.invert(was_null)).equals(
            parquet_table.filter(pc.invert(was_null))
        )
        assert was_null.equals(pc.is_null(csv_table["passenger_count"]))
        for count in parquet_table.filter(was_null)["vendorid"].value_counts().to_pylist():
            filled[count["values"]] = filled.get(count["values"], 0) + count["counts"]
    assert filled == {2: 36_740, 1: 98}


def test_published_types_drift_and_ours_do_not() -> None:
    types: dict[str, set[str]] = {}
    for name in PUBLISHED:
        if name.startswith("tlc/green") and name.endswith(".parquet"):
            slices = read_month(name)
            assert slices.month.schema is not None
            for field in slices.month.schema:
                types.setdefault(field.name, set()).add(str(field.type))
            rows = slices.contents[date(2020, 1, 5).day]
            assert parse_partition(rows, slices.service).table.schema == slices.service.arrow_schema
    assert types["VendorID"] == {"int32", "int64"}
    assert types["passenger_count"] == {"double", "int64"}
    assert types["store_and_fwd_flag"] == {"string", "large_string"}
    assert types["ehail_fee"] == {"double", "null"}
