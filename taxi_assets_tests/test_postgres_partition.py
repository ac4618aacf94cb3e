"""Postgres tables that are not what we create: repaired, or rejected before a row is sent."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from taxi_assets.errors import StoreError
from taxi_assets.resources.lake import Lake
from taxi_assets_tests import stores
from taxi_assets_tests.test_postgres_store import Log, a_day, lake, schema, store, totals

__all__ = ["lake", "schema"]
DAY, OTHER = date(2021, 1, 5), date(2021, 3, 5)
PARENT, PARTITION = "store_test.green_cab_data", "store_test.green_cab_data_2021_01"
JANUARY = "FOR VALUES FROM ('2021-01-01 00:00:00') TO ('2021-02-01 00:00:00')"
LIKE = f"(LIKE {PARENT})"


def execute(*statements: str) -> list[tuple]:
    """Run statements as the person who owns the database; the last one's rows."""
    with stores.postgres() as connection, connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        return cursor.fetchall() if cursor.description else []


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
            f"INSERT INTO {PARENT} SELECT * FROM {PARTITION}",
            f"DROP TABLE {PARTITION}",
        ],
        r"store_test.rest, the default partition of .*, holds 100 rows of 2021-01: delete",
    ),
    "a view": (
        [f"DROP TABLE {PARTITION}", f"CREATE VIEW {PARTITION} AS SELECT * FROM {PARENT}"],
        rf"{PARTITION} is a view and must be a table",
    ),
    "partitioned again": (
        [
            f"DROP TABLE {PARTITION}",
            (
                f"CREATE TABLE {PARTITION} PARTITION OF {PARENT} {JANUARY} "
                "PARTITION BY LIST (vendorid)"
            ),
        ],
        rf"{PARTITION} is a partitioned table of its own",
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
        rf"{PARTITION} has the BEFORE trigger skip, which can skip or change rows",
    ),
    "a rule that skips deletes": (
        [f"CREATE RULE keep AS ON DELETE TO {PARENT} DO INSTEAD NOTHING"],
        rf"{PARENT} has the rule keep",
    ),
}


@pytest.mark.parametrize("case", REJECTED)
def test_a_table_that_we_did_not_create_is_rejected_and_left_alone(
    case: str, schema: str, lake: Lake
) -> None:
    store(a_day(lake, DAY, 100), names=[DAY])
    statements, message = REJECTED[case]
    execute(*statements)
    sizes = "SELECT sum(pg_relation_size(oid)) FROM pg_class WHERE relnamespace = "
    sizes += f"'{schema}'::regnamespace"
    before = execute(sizes)
    with pytest.raises(StoreError, match=message):
        store(a_day(lake, DAY, 100, 2.0), names=[DAY])
    assert execute(sizes) == before


def test_a_partition_attached_again_as_the_message_says_takes_the_day(
    schema: str, lake: Lake
) -> None:
    store(a_day(lake, DAY, 100), names=[DAY])
    execute(f"ALTER TABLE {PARENT} DETACH PARTITION {PARTITION}")
    with pytest.raises(StoreError) as rejected:
        store(a_day(lake, DAY, 100, 2.0), names=[DAY])
    execute("ALTER TABLE" + str(rejected.value).partition("ALTER TABLE")[2].partition(", or")[0])
    store(a_day(lake, DAY, 100, 2.0), names=[DAY])
    assert totals([DAY], schema) == {DAY: (100, 200.0)}


def test_a_default_partition_without_rows_of_the_month_is_no_obstacle(
    schema: str, lake: Lake
) -> None:
    store(a_day(lake, DAY, 100), names=[DAY])
    execute(f"CREATE TABLE store_test.rest PARTITION OF {PARENT} DEFAULT")
    store(a_day(lake, OTHER, 100), names=[OTHER])
    assert totals([DAY, OTHER], schema) == dict.fromkeys([DAY, OTHER], (100, 100.0))


def test_a_missing_index_is_created_again(schema: str, lake: Lake) -> None:
    store(a_day(lake, DAY, 100), names=[DAY])
    execute(
        f"DROP INDEX {PARTITION}_pickup",
        f"CREATE INDEX green_cab_data_2021_01_pickup ON {PARTITION} (vendorid)",
    )
    for _ in range(2):
        store(a_day(lake, DAY, 100, 2.0), names=[DAY])
    found = execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'green_cab_data_2021_01'"
        " AND indexdef LIKE '%USING brin (lpep_pickup_datetime)%'"
    )
    assert len(found) == 1
    assert totals([DAY], schema) == {DAY: (100, 200.0)}


def test_what_only_adds_to_a_table_is_kept(schema: str, lake: Lake) -> None:
    """Columns in another order and one more, a trigger that runs afterwards, a default."""
    columns = "vendorid"
    store(a_day(lake, DAY, 100), names=[DAY])
    execute(
        f"ALTER TABLE {PARENT} DROP {columns}, ADD loaded timestamptz DEFAULT now(),"
        f" ADD twice double precision GENERATED ALWAYS AS (fare_amount * 2) STORED",
        "CREATE FUNCTION store_test.after() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN RETURN NULL; END'",
        f"CREATE TRIGGER after AFTER INSERT OR DELETE ON {PARENT} FOR EACH ROW"
        " EXECUTE FUNCTION store_test.after()",
    )
    store(a_day(lake, DAY, 100, 2.0), names=[DAY])
    assert totals([DAY], schema) == {DAY: (100, 200.0)}
    query = f"SELECT count(*), count(loaded), count(vendorid), sum(twice) FROM {PARENT}"
    assert execute(query) == [(100, 100, 100, 400.0)]


@pytest.fixture
def loader(schema: str, lake: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A user who may fill a table of somebody else, with a hurried administrator."""
    store(a_day(lake, DAY, 20_000), names=[DAY])
    execute(
        "CREATE ROLE loader LOGIN PASSWORD 'loader'",
        f"GRANT USAGE, CREATE ON SCHEMA {schema} TO loader",
        f"GRANT SELECT, INSERT, DELETE ON ALL TABLES IN SCHEMA {schema} TO loader",
        "ALTER ROLE loader SET statement_timeout = '20ms'",
        "ALTER ROLE loader SET lock_timeout = '20ms'",
        "ALTER ROLE loader SET \"DateStyle\" = 'German'",
    )
    for name, value in (
        stores.settings() | {"POSTGRES_USER": "loader", "POSTGRES_PASSWORD": "loader"}
    ).items():
        monkeypatch.setenv(name, value)
    yield
    execute("DROP OWNED BY loader CASCADE", "DROP ROLE loader")


def test_a_user_who_owns_nothing_loads_with_warnings(loader: None, schema: str, lake: Lake) -> None:
    log = Log()
    store(a_day(lake, DAY, 20_000, 2.0), names=[DAY], log=log)
    assert totals([DAY], schema) == {DAY: (20_000, 40_000.0)}
    assert any("keeps its old comment" in said for said in log.warnings)
    assert any("permission denied to vacuum" in said for said in log.warnings)


def test_a_policy_that_hides_rows_is_rejected(loader: None, schema: str, lake: Lake) -> None:
    execute(
        f"ALTER TABLE {PARENT} ENABLE ROW LEVEL SECURITY",
        f"CREATE POLICY mine ON {PARENT} USING (vendorid = 7)",
    )
    with pytest.raises(StoreError, match="has a row-level security policy for this user"):
        store(a_day(lake, DAY, 20_000, 2.0), names=[DAY])
