"""Postgres: writes stay in their window, rewrites do not grow it, readers see whole days."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.fs as pa_fs
import pytest

from taxi_assets.defs.io_managers.partition_data import (
    CLEANED,
    Label,
    StoredTrips,
    encode_trips,
    open_stored_trips,
)
from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.io_managers.postgres_partition import build_days_condition
from taxi_assets.defs.io_managers.postgres_table import (
    build_trips_table,
    ensure_table_exists,
    qualify_name,
)
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.lake_keys import build_trips_key
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.errors import StoreError
from taxi_assets.local.process import wait_until
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets.trips.clean import convert_to_frame, sum_total_amount
from taxi_assets_tests import stores

GREEN = SERVICES["green"]


class Log:
    """Collects warnings in place of Dagster's log."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def info(self, *args: object) -> None:
        """Discard the message."""

    def warning(self, message: str) -> None:
        """Collect the warning."""
        self.warnings.append(message)


@pytest.fixture
def schema(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = "store_test"
    monkeypatch.setenv("POSTGRES_SCHEMA", name)
    yield name
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {name} CASCADE")


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(pa_fs.LocalFileSystem(), str(tmp_path), "test", "hive")


def make_stored_day(lake: Lake, day: date, rows: int, amount: float = 1.0) -> StoredTrips:
    """Store a day with that many trips."""
    start = np.datetime64(datetime.combine(day, datetime.min.time()), "us")
    seconds = np.linspace(0, 86_399, rows).astype("timedelta64[s]")
    columns = {
        column.name: {
            "id": np.ones(rows, np.int64),
            "amount": np.full(rows, amount),
            "time": start + seconds,
            "text": np.full(rows, "N"),
        }[column.kind]
        for column in GREEN.columns
    }
    table = pa.table(columns, schema=GREEN.arrow_schema)
    key = build_trips_key(GREEN, day, lake.layout)
    lake.put(
        key,
        encode_trips(table, {"total_amount": sum_total_amount(table, GREEN), "url": "a test"}),
    )
    stored_trips = open_stored_trips(lake, key, Label(GREEN.name, CLEANED, str(day)), GREEN)
    assert stored_trips is not None
    return stored_trips


def store_days_in_postgres(
    *days: StoredTrips, names: list[date], service: Service = GREEN, log: Log | None = None
) -> None:
    manager = PostgresTripsIOManager({service.name: service}, PostgresResource())
    list(manager.store(service, dict(zip(names, days, strict=True)), log or Log()))


def read_totals(days: list[date], schema: str) -> dict[date, tuple[int, float]]:
    resource = PostgresResource()
    assert resource.schema_name() == schema
    manager = PostgresTripsIOManager({"green": GREEN}, resource)
    return dict(manager.read_totals(GREEN, days, Log()))


def measure_table(schema: str) -> int:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits"
            f" WHERE inhparent = '{schema}.green_cab_data'::regclass"
        )
        return cursor.fetchone()[0]


def test_ten_rewrites_of_a_day_do_not_grow_the_table(schema: str, lake: Lake) -> None:
    day = date(2021, 1, 5)
    trips = make_stored_day(lake, day, 20_000)
    store_days_in_postgres(trips, names=[day])
    first_size = measure_table(schema)
    for _ in range(10):
        store_days_in_postgres(trips, names=[day])
    assert measure_table(schema) < 1.3 * first_size
    assert read_totals([day], schema) == {day: (20_000, 20_000.0)}


def test_ten_rewrites_of_a_day_in_a_month_do_not_grow_it(schema: str, lake: Lake) -> None:
    days = [date(2021, 1, 1) + timedelta(n) for n in range(10)]
    store_days_in_postgres(*(make_stored_day(lake, day, 3_000) for day in days), names=days)
    first_size = measure_table(schema)
    for _ in range(10):
        store_days_in_postgres(make_stored_day(lake, days[4], 3_000), names=[days[4]])
    assert measure_table(schema) < 1.3 * first_size


def test_delete_touches_only_its_window_in_a_table_of_a_year(schema: str, lake: Lake) -> None:
    months = [date(2021, month, 1) for month in range(1, 13)]
    days = [month + timedelta(n) for month in months for n in range(0, 28, 3)]
    store_days_in_postgres(*(make_stored_day(lake, day, 2_000) for day in days), names=days)
    with PostgresResource().connect() as connection, connection.cursor() as cursor:
        # A table of real size makes the planner choose this.
        cursor.execute("SET enable_seqscan = off")
        condition = build_days_condition(GREEN, [date(2021, 6, 10)])
        table = qualify_name(schema, GREEN.table)
        cursor.execute(f"EXPLAIN (ANALYZE, COSTS OFF) DELETE FROM {table} WHERE {condition}")
        plan = "\n".join(row[0] for row in cursor.fetchall())
    assert "green_cab_data_2021_06" in plan
    for month in (1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12):
        assert f"green_cab_data_2021_{month:02d}" not in plan
    assert "Bitmap Index Scan on green_cab_data_2021_06_pickup" in plan
    rechecked = [line for line in plan.splitlines() if "Rows Removed by Index Recheck" in line]
    assert sum(int(line.split(":")[1]) for line in rechecked) < 4_000, plan


def test_no_days_have_no_totals(schema: str, lake: Lake) -> None:
    """Every day of a run may be rejected while it is stored."""
    day = date(2021, 1, 5)
    store_days_in_postgres(make_stored_day(lake, day, 10), names=[day])
    assert read_totals([], schema) == {}


def test_reader_sees_the_old_day_or_the_new_day(schema: str, lake: Lake) -> None:
    days = [date(2021, 1, 5), date(2021, 1, 6)]
    old_days = [make_stored_day(lake, day, 5_000) for day in days]
    store_days_in_postgres(*old_days, names=days)
    observed_totals: set[tuple[int, float]] = set()
    stop = threading.Event()

    def read() -> None:
        with stores.postgres() as connection, connection.cursor() as cursor:
            while not stop.is_set():
                cursor.execute(f"SELECT count(*), sum(total_amount) FROM {schema}.green_cab_data")
                observed_totals.add(tuple(cursor.fetchone()))

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for amount in (2.0, 3.0, 4.0):
            # The reader has begun, and has seen each version.
            before = (10_000, 10_000.0 * (amount - 1))
            assert wait_until(lambda before=before: before in observed_totals, 60)
            store_days_in_postgres(
                *(make_stored_day(lake, day, 5_000, amount) for day in days), names=days
            )
    finally:
        stop.set()
        reader.join()
    assert observed_totals <= {(10_000, 10_000.0 * amount) for amount in (1, 2, 3, 4)}


def test_concurrent_writes_of_the_same_days_are_serialized(schema: str, lake: Lake) -> None:
    days = [date(2021, 1, 30) + timedelta(n) for n in range(4)]
    trips = {day: make_stored_day(lake, day, 1_000) for day in days}
    chunks = [days, days[1:3], days[2:], days[:1], days]
    with ThreadPoolExecutor(len(chunks)) as pool:
        for written in [
            pool.submit(store_days_in_postgres, *(trips[day] for day in chunk), names=chunk)
            for chunk in chunks
        ]:
            written.result()
    assert read_totals(days, schema) == dict.fromkeys(days, (1_000, 1_000.0))


def test_two_services_can_create_their_schema_concurrently(schema: str, lake: Lake) -> None:
    day, yellow = date(2021, 1, 5), SERVICES["yellow"]
    trips = make_stored_day(lake, day, 100)
    with ThreadPoolExecutor() as pool:
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            ensure_table_exists(cursor, build_trips_table(yellow, schema), yellow)
            futures = pool.submit(store_days_in_postgres, trips, names=[day])
            assert wait_until(is_waiting_for_a_lock, 60)
            connection.commit()
        futures.result()
    assert read_totals([day], schema) == {day: (100, 100.0)}


def test_locked_month_is_awaited_after_another_was_swapped(schema: str, lake: Lake) -> None:
    days = [date(2021, 1, 5), date(2021, 2, 5)]
    trips = [make_stored_day(lake, day, 20_000) for day in days]
    store_days_in_postgres(*trips, names=days)
    with ThreadPoolExecutor() as pool:
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            cursor.execute(
                f"LOCK TABLE {schema}.green_cab_data_2021_02 IN SHARE UPDATE EXCLUSIVE MODE"
            )
            future = pool.submit(store_days_in_postgres, *trips, names=days)
            assert wait_until(is_waiting_for_a_lock, 60)
            with pytest.raises(TimeoutError):
                future.result(timeout=1)
        future.result()
    assert read_totals(days, schema) == dict.fromkeys(days, (20_000, 20_000.0))


def is_waiting_for_a_lock() -> bool:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return bool(cursor.fetchone()[0])


def test_user_without_the_right_to_create_schemas(
    schema: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    day = date(2021, 1, 5)
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("CREATE ROLE loader LOGIN PASSWORD 'loader'")
        cursor.execute(f"CREATE SCHEMA {schema} AUTHORIZATION loader")
    try:
        loader = {"POSTGRES_USER": "loader", "POSTGRES_PASSWORD": "loader"}
        for name, value in (stores.settings() | loader).items():
            monkeypatch.setenv(name, value)
        store_days_in_postgres(make_stored_day(lake, day, 100), names=[day])
        assert read_totals([day], schema) == {day: (100, 100.0)}
    finally:
        with stores.postgres() as connection, connection.cursor() as cursor:
            cursor.execute("DROP OWNED BY loader CASCADE")
            cursor.execute("DROP ROLE loader")


def test_failed_copy_leaves_the_old_rows_of_its_day(schema: str, lake: Lake) -> None:
    days = [date(2021, 1, 5), date(2021, 1, 6)]
    store_days_in_postgres(*(make_stored_day(lake, day, 100) for day in days), names=days)
    broken = make_stored_day(lake, days[1], 100, 7.0)
    Path(lake.root, broken.key).unlink()
    store_days_in_postgres(make_stored_day(lake, days[0], 100, 7.0), broken, names=days)
    assert read_totals(days, schema) == {days[0]: (100, 700.0), days[1]: (100, 100.0)}


def test_table_with_other_types_is_rejected(schema: str, lake: Lake) -> None:
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"CREATE SCHEMA {schema}")
        columns = ", ".join(f"{column.name} text" for column in GREEN.columns)
        by = f"PARTITION BY RANGE ({GREEN.pickup_column})"
        cursor.execute(f"CREATE TABLE {schema}.green_cab_data ({columns}) {by}")
    day = date(2021, 1, 5)
    with pytest.raises(StoreError, match=r"vendorid is text and must be bigint: alter or drop"):
        store_days_in_postgres(make_stored_day(lake, day, 10), names=[day])


def test_stored_day_is_loaded_as_the_typed_frame(schema: str, lake: Lake) -> None:
    day = date(2021, 1, 5)
    store_days_in_postgres(make_stored_day(lake, day, 10), names=[day])
    manager = PostgresTripsIOManager({"green": GREEN}, PostgresResource())
    table = manager.read_partition(GREEN, day)
    assert table is not None
    frame = convert_to_frame(table)
    assert {name: str(dtype) for name, dtype in frame.dtypes.items()} == GREEN.pandas_types
    assert len(frame) == 10
