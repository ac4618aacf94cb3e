"""The whole table in Postgres: its DATE column, for new and for existing tables, and statistics."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta

import psycopg
import pytest

from taxi_assets.date_ranges import Month
from taxi_assets.defs.io_managers import postgres_parent
from taxi_assets.defs.io_managers.postgres_parent import add_day_column
from taxi_assets.defs.io_managers.postgres_partition import Partition
from taxi_assets.defs.io_managers.postgres_table import build_trips_table, ensure_table_exists
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.io_managers.test_postgres import (
    GREEN,
    Log,
    lake,
    make_stored_day,
    read_totals,
    schema,
    store_days_in_postgres,
)
from taxi_assets_tests.defs.io_managers.test_postgres_partition import (
    PARENT,
    PARTITION,
    execute,
    loader,
)

__all__ = ["lake", "loader", "schema"]
FIRST = date(2021, 1, 1)
DAYS = [FIRST + timedelta(n) for n in range(10)]
BY_DAY = f"SELECT {GREEN.day_column}, count(*) FROM {PARENT} GROUP BY 1 ORDER BY 1"
GENERATED = (
    "SELECT attrelid::regclass::text, attgenerated FROM pg_attribute"
    f" WHERE attname = '{GREEN.day_column}' AND attrelid IN ("
    f"SELECT relid FROM pg_partition_tree('{PARENT}')) ORDER BY 1"
)


def store_days(lake: Lake, days: list[date], amount: float = 1.0, rows: int = 200) -> Log:
    """Store days with that many rows; return the log."""
    log = Log()
    store_days_in_postgres(
        *(make_stored_day(lake, day, rows, amount) for day in days), names=days, log=log
    )
    return log


def read_oid() -> int:
    return execute(f"SELECT '{PARTITION}'::regclass::oid::int")[0][0]


def test_date_column_of_a_new_table_equals_the_other_stores(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS)
    assert execute(BY_DAY) == [(day, 200) for day in DAYS]
    assert execute(GENERATED) == [(PARENT, "v"), (PARTITION, "v")]
    (comment,) = execute(
        f"SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid ="
        f" '{PARENT}'::regclass AND attname = '{GREEN.day_column}'"
    )
    assert comment == ("Day of lpep_pickup_datetime, computed when it is read",)
    before = read_oid()
    store_days(lake, DAYS, 2.0)
    assert read_oid() != before, "a month is still swapped"
    assert execute(BY_DAY) == [(day, 200) for day in DAYS]


@pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)
def test_every_service_has_a_date_column(service: Service, schema: str) -> None:
    with PostgresResource().connect() as connection, connection.cursor() as cursor:
        table = build_trips_table(service, schema)
        ensure_table_exists(cursor, table, service)
        add_day_column(cursor, Partition(table, service, Month(2021, 1)), Log())
        cursor.execute(f"SELECT {service.day_column} FROM {table.fullname}")
        (column,) = cursor.description
        assert (column.name, column.type_display) == (service.day_column, "date")


def drop_day_column() -> None:
    """Drop the column, as in a table created before it existed."""
    execute(f"ALTER TABLE {PARENT} DROP COLUMN {GREEN.day_column}")


def test_older_table_gets_the_date_column_with_the_next_day(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS)
    drop_day_column()
    assert execute(GENERATED) == []
    store_days(lake, [FIRST + timedelta(40)])
    other_days = [(FIRST + timedelta(40), 200)]
    assert execute(BY_DAY) == [(day, 200) for day in DAYS] + other_days
    before = read_oid()
    store_days(lake, DAYS, 2.0)
    assert read_oid() != before
    assert execute(BY_DAY) == [(day, 200) for day in DAYS] + other_days


def test_long_reader_postpones_the_column_but_not_the_load(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS)
    drop_day_column()
    day = FIRST + timedelta(20)
    with psycopg.connect(**stores.postgres_arguments()) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute(f"SELECT count(*) FROM {PARENT}")
        log = pool.submit(store_days, lake, [day]).result(timeout=120)
        assert execute(GENERATED) == []
    assert log.warnings == []
    assert read_totals([day], schema) == {day: (200, 200.0)}
    store_days(lake, [day])
    assert execute(GENERATED) == [(PARENT, "v"), (PARTITION, "v")]


def test_user_without_ownership_loads_without_the_column(
    loader: None, schema: str, lake: Lake
) -> None:
    drop_day_column()
    day = date(2021, 1, 5)
    store_days_in_postgres(make_stored_day(lake, day, 100, 2.0), names=[day])
    assert read_totals([day], schema) == {day: (100, 200.0)}
    assert execute(GENERATED) == []


@pytest.mark.parametrize(
    "kind", ["date", "text", f"date GENERATED ALWAYS AS ({GREEN.pickup_column}::date) STORED"]
)
def test_users_own_column_of_that_name_stays(kind: str, schema: str, lake: Lake) -> None:
    store_days(lake, DAYS)
    drop_day_column()
    execute(f"ALTER TABLE {PARENT} ADD COLUMN {GREEN.day_column} {kind}")
    original_kind = execute(GENERATED)
    for days in (DAYS[:2], DAYS, [FIRST + timedelta(40)]):
        store_days(lake, days, 2.0)
    assert execute(GENERATED)[:2] == original_kind
    by_day = dict(execute(BY_DAY))
    assert by_day == (
        dict.fromkeys([*DAYS, FIRST + timedelta(40)], 200) if "STORED" in kind else {None: 2_200}
    )


VIEW = "store_test.green_tripdata"


@pytest.fixture
def old_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a server without virtual columns."""
    monkeypatch.setattr(postgres_parent, "VIRTUAL_SINCE", 990000)


@pytest.mark.usefixtures("old_server")
def test_older_server_has_the_date_in_a_view(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS)
    assert execute(GENERATED) == []
    by_day = BY_DAY.replace(PARENT, VIEW)
    assert execute(by_day) == [(day, 200) for day in DAYS]
    assert execute(f"SELECT obj_description('{VIEW}'::regclass)") == [
        (f"{schema}.green_cab_data with the day of {GREEN.pickup_column}",)
    ]
    execute(f"ALTER TABLE {PARENT} ADD COLUMN added text DEFAULT 'x'")
    # A complete month is swapped under the view.
    store_days(lake, DAYS, 2.0)
    assert execute(f"SELECT DISTINCT {GREEN.day_column}, added FROM {VIEW} ORDER BY 1") == [
        (day, "x") for day in DAYS
    ]
    assert execute(by_day) == [(day, 200) for day in DAYS]


@pytest.mark.usefixtures("old_server")
@pytest.mark.parametrize(
    "statement",
    [
        f"CREATE TABLE {VIEW} (trips int)",
        f"CREATE VIEW {VIEW} AS SELECT 1 AS trips",
        f"CREATE SEQUENCE {VIEW}",
    ],
)
def test_users_own_object_with_the_views_name_stays(
    statement: str, schema: str, lake: Lake
) -> None:
    store_days(lake, DAYS[:1])
    execute(f"DROP VIEW {VIEW}", statement)
    kind = f"SELECT relkind, relnatts FROM pg_class WHERE oid = '{VIEW}'::regclass"
    before = execute(kind)
    log = store_days(lake, DAYS[:2])
    assert (execute(kind), log.warnings) == (before, [])
    assert read_totals(DAYS[:2], schema) == dict.fromkeys(DAYS[:2], (200, 200.0))


STATISTICS = (
    "SELECT attname FROM pg_stats WHERE schemaname = 'store_test'"
    " AND tablename = 'green_cab_data' AND inherited"
)


def read_analyzed_rows() -> float:
    """Return the rows of the whole table at its last ANALYZE; -1 for never."""
    return execute(f"SELECT reltuples FROM pg_class WHERE oid = '{PARENT}'::regclass")[0][0]


def test_table_is_analyzed_when_its_rows_have_doubled(schema: str, lake: Lake) -> None:
    day, months = FIRST, [date(2021, month, 5) for month in range(2, 5)]
    store_days(lake, [day])
    assert read_analyzed_rows() == 200
    assert {GREEN.pickup_column, "pulocationid"} <= {row[0] for row in execute(STATISTICS)}
    store_days(lake, [day], 2.0)
    store_days(lake, months[:1], rows=100)
    assert read_analyzed_rows() == 200
    store_days(lake, months[1:2], rows=100)
    assert read_analyzed_rows() == 400
    store_days(lake, months[2:], rows=200)
    assert read_analyzed_rows() == 400
    # Further days of a month that is in the table.
    store_days(lake, [months[2] + timedelta(1)], rows=2000)
    assert read_analyzed_rows() == 2600


def test_statistics_never_wait_and_never_fail_a_load(
    schema: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_days(lake, [FIRST])
    # A lock keeps others from analyzing the table while months are attached to it.
    monkeypatch.setattr(postgres_parent, "SAMPLE", 'nothing"')
    day = FIRST + timedelta(40)
    assert store_days(lake, [day], rows=1_000).warnings == []
    assert read_analyzed_rows() == 200
    assert read_totals([day], schema) == {day: (1_000, 1_000.0)}
