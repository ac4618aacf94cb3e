"""INT96, the time of Hive, Impala and old Spark, is read without a shift."""

from __future__ import annotations

import struct
from datetime import date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.date_ranges import Month
from taxi_assets.defs.checks.raw import check_raw_month
from taxi_assets.tlc.int96 import find_int96_options
from taxi_assets.tlc.services import YELLOW
from taxi_assets.trips.clean import parse_partition
from taxi_assets_tests.tlc.files import open_raw_month
from taxi_assets_tests.tlc.test_arrow_types import read_contents
from taxi_assets_tests.tlc.test_parquet_batches import START, make_trips

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
JULIAN = 2_440_588
"""Julian day of 1970-01-01, from which INT96 counts."""
PLACEHOLDER = datetime(2021, 2, 1, 1, 2, 3)  # noqa: DTZ001


def encode_int96(days: int, nanoseconds: int = 0) -> bytes:
    return struct.pack("<qI", nanoseconds, (days + JULIAN) % 2**32)


def write_trips(path: Path, dropoffs: list[datetime | int]) -> None:
    """Write trips with INT96 dropoffs; an integer is a day since 1970, maybe beyond Python's dates.

    pyarrow writes nanoseconds only, so each dropoff replaces a mark in the file's bytes.
    """
    marks = [PLACEHOLDER + timedelta(seconds=number) for number in range(len(dropoffs))]
    table = make_trips(
        [START] * len(dropoffs), tpep_dropoff_datetime=pa.array(marks, pa.timestamp("us"))
    )
    pq.write_table(
        table,
        path,
        use_deprecated_int96_timestamps=True,
        compression="none",
        use_dictionary=False,
        write_page_checksum=False,
    )
    content = path.read_bytes()
    for mark, dropoff in zip(marks, dropoffs, strict=True):
        since = mark - EPOCH
        placeholder = encode_int96(since.days, since.seconds * 10**9)
        if isinstance(dropoff, datetime):
            since = dropoff - EPOCH
            new = encode_int96(since.days, since.seconds * 10**9 + since.microseconds * 1000)
        else:
            new = encode_int96(dropoff)
        assert content.count(placeholder) == 1
        content = content.replace(placeholder, new)
    path.write_bytes(content)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.datetimes(), min_size=1, max_size=5))
def test_time_of_any_year_is_exact_to_the_microsecond(
    tmp_path_factory: pytest.TempPathFactory, dropoffs: list[datetime]
) -> None:
    path = tmp_path_factory.getbasetemp() / "int96.parquet"
    write_trips(path, dropoffs)
    _, days = read_contents(path)
    parsed = parse_partition(days[1], YELLOW)
    assert parsed.unreadable == []
    assert parsed.table["tpep_dropoff_datetime"].to_pylist() == dropoffs


@pytest.mark.parametrize(
    ("other_dropoff", "unit"),
    [
        (START, "ns"),
        (datetime(2300, 1, 1), "us"),  # noqa: DTZ001
        (datetime(1600, 1, 1), "us"),  # noqa: DTZ001
        (2**30, "ms"),
        (2**31, "ms"),
    ],
)
def test_times_are_read_in_the_finest_possible_unit(
    tmp_path: Path, other_dropoff: datetime | int, unit: str
) -> None:
    path = tmp_path / "m.parquet"
    write_trips(path, [START, other_dropoff])
    options = find_int96_options(path)
    assert options.int96 == ("tpep_pickup_datetime", "tpep_dropoff_datetime")
    assert options.int96_unit == unit
    _, days = read_contents(path)
    assert days[1].schema.field("tpep_dropoff_datetime").type == pa.timestamp(unit)


def test_time_past_9999_is_named_by_its_date(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write_trips(path, [START, (date(9999, 12, 31) - date(1970, 1, 1)).days + 1, START])
    _, days = read_contents(path)
    parsed = parse_partition(days[1], YELLOW)
    assert list(map(str, parsed.unreadable)) == [
        "row 2: tpep_dropoff_datetime='10000-01-01 00:00:00.000000'"
    ]
    assert parsed.table.num_rows == 2


@pytest.mark.parametrize("is_int96", [False, True])
def test_int96_columns_are_named_by_a_warning(tmp_path: Path, is_int96: bool) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(make_trips([START]), path, use_deprecated_int96_timestamps=is_int96)
    month = open_raw_month(path)
    list(month.read_days(lambda _: None))
    (result,) = (
        candidate for candidate in check_raw_month(month) if candidate.check == "no_int96_times"
    )
    columns = "tpep_pickup_datetime, tpep_dropoff_datetime" if is_int96 else ""
    assert (result.passed, result.metadata["columns"]) == (not is_int96, columns)


def test_nested_int96_times_are_read(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    nested = pa.array([[{"at": START}]], pa.list_(pa.struct([("at", pa.timestamp("ns"))])))
    table = make_trips([START]).append_column("stops", nested)
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert find_int96_options(path).int96[-1].startswith("stops.")
    month = open_raw_month(path, month=Month(2021, 2))
    assert sum(part.rows for part in month.read_days(lambda _: None)) == 1
