"""Postgres tables that differ from ours are repaired, or rejected before a row is sent."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import date, timedelta

import psycopg
import pytest

from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.errors import PartitionRejectedError, StoreError
from taxi_assets.local.process import wait_until
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

__all__ = ["lake", "schema"]
DAY, NEXT, OTHER = date(2021, 1, 5), date(2021, 1, 6), date(2021, 3, 5)
PARENT, PARTITION = "store_test.green_cab_data", "store_test.green_cab_data_2021_01"
JANUARY = "FOR VALUES FROM ('2021-01-01 00:00:00') TO ('2021-02-01 00:00:00')"
LIKE = f"(LIKE {PARENT})"
COLUMNS = ", ".join(column.name for column in GREEN.columns)
"""Without the DATE column, which nothing can be inserted into."""


def execute(*statements: str) -> list[tuple]:
    """Run statements as the owner of the database; return the rows of the last one."""
    with stores.postgres() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


NOWHERE = [
    "DROP FOREIGN DATA WRAPPER IF EXISTS nowhere CASCADE",
    "CREATE FOREIGN DATA WRAPPER nowhere",
    "CREATE SERVER nowhere FOREIGN DATA WRAPPER nowhere",
]

REJECTED = {
    "detached by hand": (
        [f"ALTER TABLE {PARENT} DETACH PARTITION {PARTITION}"],
        rf"{PARTITION} is not attached .* ATTACH PARTITION {PARTITION} FOR VALUES FROM",
    ),
    "other bounds": (
        [
            f"DROP TABLE {PARTITION}",
            (
                f"CREATE TABLE {PARTITION} PARTITION OF {PARENT} FOR VALUES FROM ('2020-12-01') TO"
                " ('2021-02-01')"
            ),
        ],
        rf"{PARTITION} is a partition of {PARENT} FOR VALUES .*2020-12.* and must be one of",
    ),
    "another parent's": (
        [
            f"DROP TABLE {PARTITION}",
            f"CREATE TABLE store_test.other {LIKE} PARTITION BY RANGE (lpep_pickup_datetime)",
            f"CREATE TABLE {PARTITION} PARTITION OF store_test.other {JANUARY}",
        ],
        rf"{PARTITION} is a partition of store_test.other .* and must be one of {PARENT}",
    ),
    "covered by another": (
        [
            f"DROP TABLE {PARTITION}",
            (
                f"CREATE TABLE store_test.early PARTITION OF {PARENT}"
                " FOR VALUES FROM (MINVALUE) TO ('2021-02-01')"
            ),
        ],
        r"store_test.early, a partition of .* covers 2021-01: rename it",
    ),
    "rows in a default partition": (
        [
            f"CREATE TABLE store_test.rest PARTITION OF {PARENT} DEFAULT",
            f"ALTER TABLE {PARENT} DETACH PARTITION {PARTITION}",
            f"INSERT INTO {PARENT} ({COLUMNS}) SELECT {COLUMNS} FROM {PARTITION}",
            f"DROP TABLE {PARTITION}",
        ],
        r"store_test.rest, the default partition of .*, holds 100 rows of 2021-01: delete",
    ),
    "a view": (
        [f"DROP TABLE {PARTITION}", f"CREATE VIEW {PARTITION} AS SELECT * FROM {PARENT}"],
        rf"{PARTITION} is a view and must be a table",
    ),
    "a foreign table": (
        [
            f"DROP TABLE {PARTITION}",
            *NOWHERE,
            f"CREATE FOREIGN TABLE {PARTITION} PARTITION OF {PARENT} {JANUARY} SERVER nowhere",
        ],
        rf"{PARTITION} is a foreign table and must be a table",
    ),
    "a table that is a foreign table": (
        [
            f"DROP TABLE {PARENT}",
            *NOWHERE,
            f"CREATE FOREIGN TABLE {PARENT} (n bigint) SERVER nowhere",
        ],
        rf"{PARENT} is a foreign table and must be partitioned by month",
    ),
    "emptied by a crash": (
        [f"ALTER TABLE {PARTITION} SET UNLOGGED"],
        rf"{PARTITION} is UNLOGGED, .* ALTER TABLE {PARTITION} SET LOGGED",
    ),
    "a column that must be filled": (
        [f"DELETE FROM {PARENT}", f"ALTER TABLE {PARENT} ADD loaded timestamptz NOT NULL"],
        r"green_cab_data.loaded is NOT NULL and no file has it: .* DROP NOT NULL",
    ),
    "partitioned again": (
        [
            f"DROP TABLE {PARTITION}",
            (
                f"CREATE TABLE {PARTITION} PARTITION OF {PARENT} {JANUARY} "
                "PARTITION BY LIST (vendorid)"
            ),
        ],
        rf"{PARTITION} is a partitioned table",
    ),
    "a table partitioned by another column": (
        [
            f"CREATE TABLE store_test.other {LIKE} PARTITION BY RANGE (lpep_dropoff_datetime)",
            f"DROP TABLE {PARENT}",
            "ALTER TABLE store_test.other RENAME TO green_cab_data",
        ],
        rf"{PARENT} is partitioned by RANGE \(lpep_dropoff_datetime\) and must be by RANGE",
    ),
    "a table that is a view": (
        [
            f"CREATE TABLE store_test.other {LIKE}",
            f"DROP TABLE {PARENT}",
            f"CREATE VIEW {PARENT} AS SELECT * FROM store_test.other",
        ],
        rf"{PARENT} is a view and must be partitioned by month",
    ),
    "times rounded to a second": (
        [
            f"DROP TABLE {PARTITION}",
            f"ALTER TABLE {PARENT} ALTER lpep_dropoff_datetime TYPE timestamp(0)",
        ],
        r"lpep_dropoff_datetime is timestamp\(0\) without time zone and must be timestamp",
    ),
    "a generated column": (
        [
            (
                f"ALTER TABLE {PARENT} DROP trip_distance,"
                " ADD trip_distance double precision GENERATED ALWAYS AS (fare_amount * 2) STORED"
            )
        ],
        r"trip_distance is a generated column and must be double precision",
    ),
    "a trigger that skips deletes": (
        [
            (
                "CREATE FUNCTION store_test.skip() RETURNS trigger LANGUAGE plpgsql AS"
                " 'BEGIN RETURN NULL; END'"
            ),
            (
                f"CREATE TRIGGER skip BEFORE DELETE ON {PARTITION} FOR EACH ROW"
                " EXECUTE FUNCTION store_test.skip()"
            ),
        ],
        rf"{PARTITION} has the BEFORE trigger skip, which can silently skip or change rows",
    ),
    "a rule that skips deletes": (
        [f"CREATE RULE keep AS ON DELETE TO {PARENT} DO INSTEAD NOTHING"],
        rf"{PARENT} has the rule keep",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_foreign_table_is_rejected_and_unchanged(case: str, schema: str, lake: Lake) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    statements, message = REJECTED[case]
    execute(*statements)
    sizes = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = "
    sizes += f"'{schema}'::regnamespace"
    before = execute(sizes)
    with pytest.raises(StoreError, match=message):
        store_days_in_postgres(make_stored_day(lake, DAY, 100, 2.0), names=[DAY])
    assert execute(sizes) == before


def test_partition_reattached_by_the_suggested_fix_takes_the_day(schema: str, lake: Lake) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    execute(f"ALTER TABLE {PARENT} DETACH PARTITION {PARTITION}")
    with pytest.raises(StoreError) as rejected:
        store_days_in_postgres(make_stored_day(lake, DAY, 100, 2.0), names=[DAY])
    execute("ALTER TABLE" + str(rejected.value).partition("ALTER TABLE")[2].partition(", or")[0])
    store_days_in_postgres(make_stored_day(lake, DAY, 100, 2.0), names=[DAY])
    assert read_totals([DAY], schema) == {DAY: (100, 200.0)}


def test_default_partition_without_rows_of_the_month_is_accepted(schema: str, lake: Lake) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    execute(f"CREATE TABLE store_test.rest PARTITION OF {PARENT} DEFAULT")
    store_days_in_postgres(make_stored_day(lake, OTHER, 100), names=[OTHER])
    assert read_totals([DAY, OTHER], schema) == dict.fromkeys([DAY, OTHER], (100, 100.0))


def test_missing_index_is_created_again(schema: str, lake: Lake) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    execute(
        f"DROP INDEX {PARTITION}_pickup",
        f"CREATE INDEX green_cab_data_2021_01_pickup ON {PARTITION} (vendorid)",
    )
    for _ in range(2):
        store_days_in_postgres(make_stored_day(lake, DAY, 100, 2.0), names=[DAY])
    indexes = execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'green_cab_data_2021_01'"
        " AND indexdef LIKE '%USING brin (lpep_pickup_datetime)%'"
    )
    assert len(indexes) == 1
    assert read_totals([DAY], schema) == {DAY: (100, 200.0)}


def test_additions_to_a_table_stay(schema: str, lake: Lake) -> None:
    """Columns in another order and one more, a trigger that runs afterwards, a default."""
    columns = "vendorid"
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    execute(
        f"ALTER TABLE {PARENT} DROP {columns}, ADD loaded timestamptz DEFAULT now(),"
        f" ADD twice double precision GENERATED ALWAYS AS (fare_amount * 2) STORED",
        "CREATE FUNCTION store_test.after() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
        f"CREATE TRIGGER after AFTER INSERT OR DELETE ON {PARENT} FOR EACH ROW"
        " EXECUTE FUNCTION store_test.after()",
    )
    store_days_in_postgres(make_stored_day(lake, DAY, 100, 2.0), names=[DAY])
    assert read_totals([DAY], schema) == {DAY: (100, 200.0)}
    query = f"SELECT count(*), count(loaded), count(vendorid), sum(twice) FROM {PARENT}"
    assert execute(query) == [(100, 100, 100, 400.0)]


@pytest.fixture
def loader(schema: str, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a user who may only fill the table of another owner."""
    store_days_in_postgres(make_stored_day(lake, DAY, 20_000), names=[DAY])
    execute(
        "CREATE ROLE loader LOGIN PASSWORD 'loader'",
        f"GRANT USAGE, CREATE ON SCHEMA {schema} TO loader",
        f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {schema} TO loader",
        "ALTER ROLE loader SET statement_timeout = '20ms'",
        "ALTER ROLE loader SET lock_timeout = '20ms'",
        "ALTER ROLE loader SET default_transaction_read_only = on",
        "ALTER ROLE loader SET \"DateStyle\" = 'German'",
    )
    for name, value in (
        stores.settings() | {"POSTGRES_USER": "loader", "POSTGRES_PASSWORD": "loader"}
    ).items():
        monkeypatch.setenv(name, value)
    yield
    execute("DROP OWNED BY loader CASCADE", "DROP ROLE loader")


def test_user_without_ownership_loads_with_warnings(loader: None, schema: str, lake: Lake) -> None:
    log = Log()
    store_days_in_postgres(make_stored_day(lake, DAY, 20_000, 2.0), names=[DAY], log=log)
    assert read_totals([DAY], schema) == {DAY: (20_000, 40_000.0)}
    assert any("keeps its old comment" in warning for warning in log.warnings)
    assert any("permission denied to vacuum" in warning for warning in log.warnings)


def test_policy_that_hides_rows_is_rejected(loader: None, schema: str, lake: Lake) -> None:
    execute(
        f"ALTER TABLE {PARENT} ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY mine ON {PARENT} USING (vendorid = 7)",
    )
    with pytest.raises(StoreError, match="has a row-level security policy for this user"):
        store_days_in_postgres(make_stored_day(lake, DAY, 20_000, 2.0), names=[DAY])


def test_half_detached_partition_is_rejected(schema: str, lake: Lake) -> None:
    """DETACH CONCURRENTLY was terminated while it waited for a reader."""
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    arguments = stores.postgres_arguments()
    with (
        psycopg.connect(**arguments) as reader,
        psycopg.connect(**arguments, autocommit=True) as owner,
    ):
        reader.execute(f"SELECT 1 FROM {PARENT}")
        owner.execute("SET lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            owner.execute(f"ALTER TABLE {PARENT} DETACH PARTITION {PARTITION} CONCURRENTLY")
    assert read_totals([DAY], schema) == {}
    with pytest.raises(StoreError, match=r"half detached .* FINALIZE"):
        store_days_in_postgres(make_stored_day(lake, DAY, 100, 2.0), names=[DAY])
    assert execute(f"SELECT count(*) FROM {PARTITION}") == [(100,)]


def test_equal_names_earlier_in_the_search_path_are_ignored(schema: str, lake: Lake) -> None:
    """A role's search_path leads to other tables, functions and types of the same names."""
    names = ("green_cab_data", "green_cab_data_2021_01", "green_cab_data_2021_01_pickup")
    execute(
        "CREATE SCHEMA decoy",
        *(f"CREATE TABLE decoy.{name} (n bigint)" for name in names),
        "ALTER ROLE CURRENT_USER SET search_path = decoy, public",
    )
    try:
        for amount in (1.0, 2.0):
            store_days_in_postgres(make_stored_day(lake, DAY, 100, amount), names=[DAY])
        assert read_totals([DAY], schema) == {DAY: (100, 200.0)}
        assert execute(*(f"TABLE decoy.{name}" for name in names)) == []
    finally:
        execute("ALTER ROLE CURRENT_USER RESET search_path", "DROP SCHEMA decoy CASCADE")


def test_users_own_constraint_rejects_the_day_that_violates_it(schema: str, lake: Lake) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 10), names=[DAY])
    execute(f"ALTER TABLE {PARENT} ADD CONSTRAINT own CHECK (total_amount < 5) NOT VALID")
    manager = PostgresTripsIOManager({GREEN.name: GREEN}, PostgresResource())
    days = {DAY: make_stored_day(lake, DAY, 10, 7.0), NEXT: make_stored_day(lake, NEXT, 10, 3.0)}
    outcomes = dict(manager.store(GREEN, days, Log()))
    assert isinstance(outcomes[DAY], PartitionRejectedError)
    assert 'violates check constraint "own"' in str(outcomes[DAY])
    assert not isinstance(outcomes[NEXT], PartitionRejectedError)
    assert read_totals([DAY, NEXT], schema) == {DAY: (10, 10.0), NEXT: (10, 30.0)}


def test_new_partition_has_the_tables_own_defaults_and_constraints(schema: str, lake: Lake) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 10), names=[DAY])
    execute(
        f"ALTER TABLE {PARENT} ADD origin text NOT NULL DEFAULT 'TLC', ADD n bigserial,"
        " ADD CONSTRAINT own CHECK (total_amount < 5)"
    )
    manager = PostgresTripsIOManager({GREEN.name: GREEN}, PostgresResource())
    first, second = date(2021, 2, 1), date(2021, 2, 2)
    days = {first: make_stored_day(lake, first, 10), second: make_stored_day(lake, second, 10, 7.0)}
    outcomes = dict(manager.store(GREEN, days, Log()))
    assert 'violates check constraint "own"' in str(outcomes[second])
    assert read_totals([first, second], schema) == {first: (10, 10.0)}
    query = f"SELECT count(*), count(DISTINCT n), min(origin) FROM {PARENT}"
    assert execute(query) == [(20, 20, "TLC")]


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_isolation_level_of_a_role_never_duplicates_a_day(
    isolation: str, schema: str, lake: Lake
) -> None:
    """Two lakes feed one database: the second run waits for the first one's partition."""
    store_days_in_postgres(make_stored_day(lake, OTHER, 10), names=[OTHER])
    partition = f"{PARENT}_2021_03"
    day = OTHER + timedelta(1)
    execute(f"ALTER ROLE CURRENT_USER SET default_transaction_isolation = '{isolation}'")
    try:
        with psycopg.connect(**stores.postgres_arguments()) as other_connection:
            other_connection.execute(f"LOCK TABLE {partition} IN SHARE UPDATE EXCLUSIVE MODE")
            run = threading.Thread(
                target=store_days_in_postgres,
                args=(make_stored_day(lake, day, 10),),
                kwargs={"names": [day]},
            )
            run.start()
            waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            assert wait_until(lambda: execute(waits) == [(1,)], 60)
            rows = f"SELECT {COLUMNS} FROM {partition}"
            other_connection.execute(f"INSERT INTO {partition} ({COLUMNS}) {rows}")
            pickup = "lpep_pickup_datetime"
            other_connection.execute(
                f"UPDATE {partition} SET {pickup} = {pickup} + interval '1 day'"
            )
            other_connection.commit()
            run.join(300)
    finally:
        execute("ALTER ROLE CURRENT_USER RESET default_transaction_isolation")
    assert read_totals([day], schema) == {day: (10, 10.0)}
