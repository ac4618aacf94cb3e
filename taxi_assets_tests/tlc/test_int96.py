"""INT96, the time of Hive, Impala and old Spark: each stays the time that it is."""

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
from taxi_assets.trips.parse import parse_partition
from taxi_assets_tests.tlc.files import raw_month
from taxi_assets_tests.tlc.test_arrow_types import contents
from taxi_assets_tests.tlc.test_parquet_batches import START, trips

EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001
JULIAN = 2_440_588
"""Julian day of 1970-01-01, from which INT96 counts."""
PLACEHOLDER = datetime(2021, 2, 1, 1, 2, 3)  # noqa: DTZ001


def int96(days: int, nanoseconds: int = 0) -> bytes:
    return struct.pack("<qI", nanoseconds, (days + JULIAN) % 2**32)


def write(path: Path, dropoffs: list[datetime | int]) -> None:
    """Trips whose dropoffs are INT96; an integer is a day since 1970 that Python may not have.

    pyarrow writes nanoseconds, so each dropoff is put into the file's bytes in place of a mark.
    """
    marks = [PLACEHOLDER + timedelta(seconds=at) for at in range(len(dropoffs))]
    table = trips(
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
        old = int96(since.days, since.seconds * 10**9)
        if isinstance(dropoff, datetime):
            since = dropoff - EPOCH
            new = int96(since.days, since.seconds * 10**9 + since.microseconds * 1000)
        else:
            new = int96(dropoff)
        assert content.count(old) == 1
        content = content.replace(old, new)
    path.write_bytes(content)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.datetimes(), min_size=1, max_size=5))
def test_a_time_of_any_year_is_itself_to_the_microsecond(
    tmp_path_factory: pytest.TempPathFactory, dropoffs: list[datetime]
) -> None:
    path = tmp_path_factory.getbasetemp() / "int96.parquet"
    write(path, dropoffs)
    _, days = contents(path)
    done = parse_partition(days[1], YELLOW)
    assert done.unreadable == []
    assert done.table["tpep_dropoff_datetime"].to_pylist() == dropoffs


@pytest.mark.parametrize(
    ("other", "unit"),
    [
        (START, "ns"),
        (datetime(2300, 1, 1), "us"),  # noqa: DTZ001
        (datetime(1600, 1, 1), "us"),  # noqa: DTZ001
        (2**30, "ms"),
        (2**31, "ms"),
    ],
)
def test_times_are_read_in_the_finest_unit_that_holds_them_all(
    tmp_path: Path, other: datetime | int, unit: str
) -> None:
    path = tmp_path / "m.parquet"
    write(path, [START, other])
    options = find_int96_options(path)
    assert options.int96 == ("tpep_pickup_datetime", "tpep_dropoff_datetime")
    assert options.int96_unit == unit
    _, days = contents(path)
    assert days[1].schema.field("tpep_dropoff_datetime").type == pa.timestamp(unit)


def test_a_time_past_9999_is_named_by_its_own_date(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    write(path, [START, (date(9999, 12, 31) - date(1970, 1, 1)).days + 1, START])
    _, days = contents(path)
    done = parse_partition(days[1], YELLOW)
    assert list(map(str, done.unreadable)) == [
        "row 2: tpep_dropoff_datetime='10000-01-01 00:00:00.000000'"
    ]
    assert done.table.num_rows == 2


@pytest.mark.parametrize("is_int96", [False, True])
def test_int96_columns_are_named_by_a_warning(tmp_path: Path, is_int96: bool) -> None:
    path = tmp_path / "m.parquet"
    pq.write_table(trips([START]), path, use_deprecated_int96_timestamps=is_int96)
    month = raw_month(path)
    list(month.read_days(lambda _: None))
    (found,) = (one for one in check_raw_month(month) if one.check == "no_int96_times")
    columns = "tpep_pickup_datetime, tpep_dropoff_datetime" if is_int96 else ""
    assert (found.passed, found.metadata["columns"]) == (not is_int96, columns)


def test_times_inside_nested_columns_count_as_well(tmp_path: Path) -> None:
    path = tmp_path / "m.parquet"
    nested = pa.array([[{"at": START}]], pa.list_(pa.struct([("at", pa.timestamp("ns"))])))
    table = trips([START]).append_column("stops", nested)
    pq.write_table(table, path, use_deprecated_int96_timestamps=True)
    assert find_int96_options(path).int96[-1].startswith("stops.")
    month = raw_month(path, month=Month(2021, 2))
    assert sum(part.rows for part in month.read_days(lambda _: None)) == 1
