"""Parquet months: each row in one place, types as published, only needed columns read."""

from __future__ import annotations

import itertools
import re
import resource
from collections import defaultdict
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taxi_assets.date_ranges import Month
from taxi_assets.defs.month_split import open_spool
from taxi_assets.errors import SourceError
from taxi_assets.settings.areas import MAX_DAY_BYTES
from taxi_assets.tlc import parquet_batches as parquet_module
from taxi_assets.tlc.csv_split import OUTSIDE, UNREADABLE
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.services import YELLOW
from taxi_assets.trips.clean import parse_partition
from taxi_assets.trips.content_hash import ContentHash
from taxi_assets_tests.tlc.files import open_raw_month

START = datetime(2021, 2, 1)  # noqa: DTZ001
MICROS = pa.timestamp("us")


def make_trips(
    pickups: list[datetime | None], kind: pa.DataType = MICROS, **columns: Any
) -> pa.Table:
    """Return yellow trips, numbered by passenger_count, in the types of TLC's Parquet."""
    rows = len(pickups)
    values: dict[str, Any] = {}
    for column in YELLOW.header_columns:
        value_of_kind = {"id": 1, "amount": 2.5, "text": "N", "time": START}[column.kind]
        values[column.published] = pa.array([value_of_kind] * rows, column.arrow)
    values["tpep_pickup_datetime"] = pa.array(pickups, MICROS).cast(kind)
    values["passenger_count"] = pa.array(range(rows), pa.float64())
    values["airport_fee"] = pa.nulls(rows)
    return pa.table({**values, **columns})


def write_parquet(path: Path, table: pa.Table, **options: Any) -> Path:
    pq.write_table(table, path, **options)
    return path


def read_tables(month: RawMonth) -> dict[int, pa.Table]:
    """Return the rows of each place."""
    batches: defaultdict[int, list[pa.RecordBatch]] = defaultdict(list)
    for part in month.read_days(lambda _: None):
        batches[part.key].append(part.batch)
    return {key: pa.Table.from_batches(batches_of_key) for key, batches_of_key in batches.items()}


def compute_hash(table: pa.Table) -> str:
    content = ContentHash()
    for batch in table.to_batches():
        content.update(batch)
    return content.hexdigest(table.schema)


PICKUPS = st.lists(
    st.none()
    | st.datetimes(datetime(2021, 1, 30), datetime(2021, 3, 2))  # noqa: DTZ001
    | st.sampled_from([datetime(2008, 12, 31), datetime(2021, 2, 28, 23, 59, 59, 999999)]),  # noqa: DTZ001
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(
    pickups=PICKUPS,
    unit=st.sampled_from(["us", "ns"]),
    group=st.integers(1, 20),
    batch=st.integers(1, 20),
    statistics=st.booleans(),
    day=st.none() | st.integers(1, 28),
)
def test_every_row_is_in_one_place_in_file_order(  # noqa: PLR0913, PLR0917 - drawn
    tmp_path_factory: pytest.TempPathFactory,
    pickups: list[datetime | None],
    unit: str,
    group: int,
    batch: int,
    statistics: bool,
    day: int | None,
) -> None:
    path = tmp_path_factory.getbasetemp() / "conserved.parquet"
    table = make_trips(pickups, pa.timestamp(unit))
    write_parquet(path, table, row_group_size=group, write_statistics=statistics)
    expected: defaultdict[int, list[int]] = defaultdict(list)
    for number, pickup in enumerate(pickups):
        inside = pickup and (pickup.year, pickup.month) == (2021, 2)
        key = pickup.day if pickup and inside else OUTSIDE if pickup else UNREADABLE
        expected[key].append(number)

    month = open_raw_month(path, days=None if day is None else [date(2021, 2, day)])
    with patch.object(parquet_module, "ROWS", batch):
        if set(expected) <= {OUTSIDE, UNREADABLE}:
            with pytest.raises(SourceError, match="has its pickup in 2021-02"):
                read_tables(month)
            return
        tables = read_tables(month)

    expected_keys = {k: v for k, v in expected.items() if day in (None, k) or k > 31}
    numbers = {
        key: table_of_place["passenger_count"].to_pylist() for key, table_of_place in tables.items()
    }
    assert numbers == expected_keys
    assert all(
        table_of_place.schema == month.schema == table.schema for table_of_place in tables.values()
    )
    assert month.file_rows == len(pickups)
    assert month.rows[OUTSIDE] == len(expected[OUTSIDE])
    assert [problem.line - 1 for problem in month.unreadable] == expected[UNREADABLE]
    assert month.rows == {key: len(rows) for key, rows in expected.items() if rows}
    for key, table_of_place in tables.items():
        expected_table = table.take(pa.array(expected[key]))
        assert compute_hash(table_of_place) == compute_hash(expected_table.combine_chunks())


def test_row_groups_of_other_days_are_not_read(tmp_path: Path) -> None:
    pickups: list[datetime | None] = [START + timedelta(hours=number) for number in range(24 * 28)]
    path = write_parquet(tmp_path / "m.parquet", make_trips(pickups), row_group_size=48)
    month = open_raw_month(path, days=[date(2021, 2, 6)])
    read: dict[int, list[str] | None] = {}
    iterate = pq.ParquetFile.iter_batches

    def record_read(self: pq.ParquetFile, *args: Any, **options: Any) -> Any:
        read.update(dict.fromkeys(options["row_groups"], options["columns"]))
        return iterate(self, *args, **options)

    with patch.object(pq.ParquetFile, "iter_batches", record_read):
        tables = read_tables(month)
    assert read.pop(2) is None
    assert read == {number: ["tpep_pickup_datetime"] for number in range(14) if number != 2}
    assert {key: table_of_day.num_rows for key, table_of_day in tables.items()} == {6: 24}
    assert month.rows == dict.fromkeys(range(1, 29), 24)
    month_of_all_days = open_raw_month(path)
    assert compute_hash(read_tables(month_of_all_days)[6]) == compute_hash(tables[6])


@pytest.mark.parametrize("odd", [None, datetime(2021, 3, 1), datetime(2021, 1, 31)])  # noqa: DTZ001
def test_row_group_with_a_row_of_no_day_is_read(tmp_path: Path, odd: datetime | None) -> None:
    path = write_parquet(tmp_path / "m.parquet", make_trips([START, odd]))
    month = open_raw_month(path, days=[date(2021, 2, 6)])
    assert set(read_tables(month)) == {OUTSIDE if odd else UNREADABLE}


def test_rows_that_the_statistics_deny_are_not_passed_over(tmp_path: Path) -> None:
    """The footer says the 9th; the pages hold the 3rd."""
    contents = [
        write_parquet(
            tmp_path / f"{day}.parquet",
            make_trips([datetime(2021, 2, day)] * 5),  # noqa: DTZ001
            compression="none",
            use_dictionary=False,
        ).read_bytes()
        for day in (3, 9)
    ]
    footers = [int.from_bytes(content[-8:-4], "little") + 8 for content in contents]
    path = tmp_path / "m.parquet"
    path.write_bytes(contents[0][: -footers[0]] + contents[1][-footers[1] :])
    assert read_tables(open_raw_month(path))[3].num_rows == 5
    with pytest.raises(SourceError, match=r"statistics of its pickup times are wrong at row 1"):
        read_tables(open_raw_month(path, days=[date(2021, 2, 3)]))


def test_a_column_without_values_is_null_whatever_its_type(tmp_path: Path) -> None:
    """The type of pandas is double."""
    nulls = {name: pa.nulls(5, pa.float64()) for name in ("tpep_dropoff_datetime", "extra")}
    path = write_parquet(tmp_path / "m.parquet", make_trips([START] * 5, **nulls), row_group_size=2)
    parsed = parse_partition(read_tables(open_raw_month(path))[1], YELLOW)
    assert parsed.table["tpep_dropoff_datetime"].null_count == parsed.table.num_rows == 5
    for column in ({"tpep_dropoff_datetime": [1.0, None]}, {"tpep_pickup_datetime": [None] * 2}):
        values = {name: pa.array(value, pa.float64()) for name, value in column.items()}
        path = write_parquet(tmp_path / "m.parquet", make_trips([START] * 2, **values))
        with pytest.raises(SourceError, match="datetime as double, which cannot be read"):
            read_tables(open_raw_month(path))


def test_lists_of_nulls_are_values(tmp_path: Path) -> None:
    """The statistics of a list are those of its elements."""
    lists: list[list[None] | None] = [[None], [None, None]]
    extra = pa.array(lists, pa.list_(pa.int32()))
    path = write_parquet(tmp_path / "m.parquet", make_trips([START] * 2, extra=extra))
    with pytest.raises(SourceError, match=r"has extra as list.*, which cannot be read as double"):
        read_tables(open_raw_month(path))


def test_hash_distinguishes_values_nulls_types_and_order() -> None:
    column = pa.array(["a", None, "", "bc"])
    tables = [
        pa.table({"x": column}),
        pa.table({"x": column.cast(pa.large_string())}),
        pa.table({"y": column}),
        pa.table({"x": ["a", "", None, "bc"]}),
        pa.table({"x": ["a", None, "b", "c"]}),
        pa.table({"x": column[:3]}),
        pa.table({"x": [1, None, 0, 2]}),
        pa.table({"x": [1, 0, None, 2]}),
        pa.table({"x": [1.0, None, 0.0, 2.0]}),
        pa.table({"x": [True, None, False, True]}),
        pa.table({"x": pa.nulls(4)}),
        pa.table({"x": [[1], None, [], [2]]}),
        pa.table({"x": column.dictionary_encode()}),
    ]
    assert len(set(map(compute_hash, tables))) == len(tables)
    for table in tables:
        batches = [batch for index in range(4) for batch in table.slice(index, 1).to_batches()]
        assert compute_hash(pa.Table.from_batches(batches, table.schema)) == compute_hash(table)


@pytest.mark.parametrize(
    ("pickup", "day"),
    [
        ("2009-01-04 02:52:00", 4),
        ("2009-02-01 00:00:00", OUTSIDE),
        ("04/01/2009", UNREADABLE),
        ("2009-01-04 02:52:00\0", UNREADABLE),
    ],
)
def test_text_times_of_2009_are_read(tmp_path: Path, pickup: str, day: int) -> None:
    table = pa.table({name: ["1"] * 2 for name in YELLOW.schema_versions[0].header})
    table = table.drop_columns(["Trip_Pickup_DateTime"])
    for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.binary()):
        pickups = pa.array([pickup, "2009-01-04 00:00:00"]).cast(kind)
        rows = table.append_column("Trip_Pickup_DateTime", pickups)
        path = write_parquet(tmp_path / "m.parquet", rows)
        assert set(read_tables(open_raw_month(path, month=Month(2009, 1)))) == {day, 4}


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"VendorID": pa.array([True])}, "has VendorID as bool, which cannot be read as int64"),
        ({"extra": pa.array([[1.0]])}, "has extra as list<"),
        ({"store_and_fwd_flag": pa.array([date(2021, 2, 1)])}, "has store_and_fwd_flag as date32"),
        ({"tpep_dropoff_datetime": pa.array([1])}, "which cannot be read as timestamp"),
        (
            {"tpep_pickup_datetime": pa.array([datetime(2021, 2, 1, tzinfo=UTC)])},
            r"tpep_pickup_datetime as timestamp\[us, tz=UTC\]",
        ),
        ({"vendor_id": pa.array([1])}, "twice VendorID"),
    ],
)
def test_file_of_other_types_or_columns_is_rejected(
    tmp_path: Path, columns: dict[str, pa.Array], expected: str
) -> None:
    path = write_parquet(tmp_path / "m.parquet", make_trips([START], **columns))
    with pytest.raises(SourceError, match=expected) as raised:
        read_tables(open_raw_month(path))
    assert str(raised.value).startswith(f"yellow 2021-02: {path} ")


@pytest.mark.parametrize("name", ["total_amount", "tpep_pickup_datetime"])
def test_file_without_a_required_column_is_rejected(tmp_path: Path, name: str) -> None:
    path = write_parquet(tmp_path / "m.parquet", make_trips([START]).drop_columns([name]))
    with pytest.raises(SourceError, match=f"wrong header .missing .*{name}"):
        read_tables(open_raw_month(path))


def test_damaged_file_is_rejected(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "m.parquet", make_trips([START] * 5000), use_dictionary=False)
    content = bytearray(path.read_bytes())
    content[50:2000] = b"\xff" * 1950
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"is damaged .*: fetch it again"):
        read_tables(open_raw_month(path))
    path.write_bytes(content[:-9] + b"\xff" * 9)
    with pytest.raises(SourceError, match=r"is damaged .*: fetch it again"):
        read_tables(open_raw_month(path))


def test_wrong_number_in_the_footer_loses_no_row(tmp_path: Path) -> None:
    """Arrow passes over a row group, without an error, if a chunk declares a negative number."""
    table = make_trips([START] * 2000).select(["tpep_pickup_datetime", "total_amount"])
    path = write_parquet(tmp_path / "m.parquet", table, row_group_size=1000, store_schema=False)
    content, thousand, others = path.read_bytes(), b"\xd0\x0f", (b"\xc8\x01", b"\xd1\x0f")
    footer = len(content) - 8 - int.from_bytes(content[-8:-4], "little")
    places = [match.start() for match in re.finditer(re.escape(thousand), content[footer:])]
    problems = list[str]()
    for place, other in itertools.product(places, others):
        at = footer + place
        path.write_bytes(content[:at] + other + content[at + len(other) :])
        try:
            rows = read_tables(open_raw_month(path))
        except SourceError as error:
            problems.append(str(error))
        else:
            assert {key: len(table) for key, table in rows.items()} == {1: 2000}
    assert any("its row groups have 1,100 rows, not 2,000" in problem for problem in problems)
    assert any("row group 1 has 0 rows, not 1,000" in problem for problem in problems)


def test_too_many_rows_without_a_pickup_reject_the_month(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "m.parquet", make_trips([START, None, None]))
    with pytest.raises(SourceError, match=r"2 of 3 rows .* first row 2: tpep_pickup_datetime=None"):
        read_tables(open_raw_month(path, max_invalid_ratio=0.5))


def test_dictionary_columns_and_days_without_rows(tmp_path: Path) -> None:
    flags = pa.array([("N", "Y", None)[at % 3] for at in range(500)]).dictionary_encode()
    pickups: list[datetime | None] = [START + timedelta(hours=at % 600) for at in range(500)]
    table = make_trips(pickups)
    at = table.schema.get_field_index("store_and_fwd_flag")
    table = table.set_column(at, "store_and_fwd_flag", flags)
    for rows in (table, table[:1]):
        month = open_raw_month(write_parquet(tmp_path / "m.parquet", rows, row_group_size=70))
        spools = {day: open_spool(month) for day in range(1, 29)}
        for part in month.read_days(lambda _: None):
            spools[part.key].add(part)
        assert month.file_rows == len(rows)
        stored_tables = [
            pq.ParquetFile(pa.BufferReader(spool.build_content({}))).read()
            for spool in spools.values()
        ]
        assert {stored_table.schema.remove_metadata() for stored_table in stored_tables} == {
            table.schema
        }
        parsed_table = pa.concat_tables(
            parse_partition(stored_table, YELLOW).table for stored_table in stored_tables
        )
        assert parsed_table.sort_by("passenger_count")["store_and_fwd_flag"].to_pylist() == (
            rows["store_and_fwd_flag"].to_pylist()
        )


# Files larger than any published month


def open_limited_month(path: Path, max_day_bytes: int) -> RawMonth:
    month = open_raw_month(path)
    month.max_day_bytes = max_day_bytes
    return month


def test_bomb_is_rejected_before_it_is_unpacked(tmp_path: Path) -> None:
    """20 KB that stand for 1 GB: one text of 20 KB in each of 50,000 rows."""
    rows = 50_000
    flag = pa.DictionaryArray.from_arrays(
        pa.array([0] * rows, pa.int32()), pa.array(["N" * 20_000])
    )
    table = (
        make_trips([START] * rows)
        .drop("store_and_fwd_flag")
        .append_column("store_and_fwd_flag", flag)
    )
    path = write_parquet(tmp_path / "m.parquet", table, compression="zstd", store_schema=False)
    assert path.stat().st_size < 400_000
    peak_before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(SourceError, match="rows of store_and_fwd_flag unpack to 1,000,") as error:
        read_tables(open_raw_month(path))
    assert "TAXI_MAX_DAY_BYTES" in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_before < 200 << 10


def test_day_that_exceeds_memory_rejects_the_file(tmp_path: Path) -> None:
    """Run lengths: 200 KB stand for 40 MB of rows of one day."""
    path = write_parquet(tmp_path / "m.parquet", make_trips([START] * 200_000), compression="zstd")
    with pytest.raises(
        SourceError, match="over 20,000,000 bytes of rows for 2021-02-01, more than a day may have"
    ):
        read_tables(open_limited_month(path, 20_000_000))
    assert read_tables(open_limited_month(path, 60_000_000))[1].num_rows == 200_000


def test_twice_the_largest_published_day_fits() -> None:
    """Measure 900,000 rows of 24 columns, fhvhv's busiest day, as lines and as Parquet."""
    line = (
        "HV0003,B02764,B02764,2021-02-01 00:28:09,2021-02-01 00:31:42,2021-02-01 00:33:44,"
        "2021-02-01 00:49:07,230,166,15.26,1923,122.28,10.00,10.67,11.98,12.50,12.50,10.00,"
        "114.99,N,N,N,N,N"
    )
    fields = line.split(",")
    assert len(fields) == 24
    assert 2 * 900_000 * (len(line) + 1) < MAX_DAY_BYTES
    columns = {
        str(at): pa.array([START if ":" in field else 1.5 if "." in field else field] * 1000)
        for at, field in enumerate(fields)
    }
    assert 2 * 900 * pa.table(columns).nbytes < MAX_DAY_BYTES


def test_large_row_group_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    """TLC's row groups have a million rows and more, and other writers put a month into one."""
    rows = 1_000_000
    minutes = np.arange(rows) * (28 * 1440) // rows
    pickups = np.datetime64("2021-02-01") + minutes.astype("timedelta64[m]")
    times = pa.array(pickups.astype("datetime64[us]"))
    columns = {
        column.published: times if column.kind == "time" else pa.nulls(rows, column.arrow)
        for column in YELLOW.header_columns
    }
    columns |= {
        name: pa.array(np.random.default_rng(1).random(rows)) for name in ("extra", "mta_tax")
    }
    path = tmp_path / "m.parquet"
    pq.write_table(pa.table(columns), path, row_group_size=rows)
    assert pq.read_metadata(path).num_row_groups == 1
    del columns, times, minutes, pickups
    allocated_before, peak, rows_read = pa.total_allocated_bytes(), 0, 0
    for part in open_raw_month(path).read_days(lambda _: None):
        rows_read += part.rows
        peak = max(peak, pa.total_allocated_bytes() - allocated_before)
    assert rows_read == rows
    assert peak < 80 << 20  # the whole row group takes 190 MB
