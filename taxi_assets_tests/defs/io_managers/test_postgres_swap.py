"""A rewrite of most of a month swaps the partition, with readers, writers and additions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date, timedelta

import psycopg
import pytest

from taxi_assets.defs.io_managers import postgres_swap
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.local.process import wait_until
from taxi_assets_tests import stores
from taxi_assets_tests.defs.io_managers.test_postgres import (
    Log,
    lake,
    make_stored_day,
    measure_table,
    read_totals,
    schema,
    store_days_in_postgres,
)
from taxi_assets_tests.defs.io_managers.test_postgres_partition import PARENT, PARTITION, execute

__all__ = ["lake", "schema"]
FIRST = date(2021, 1, 1)
DAYS = [FIRST + timedelta(n) for n in range(10)]
MOST, REST = DAYS[:7], DAYS[7:]


def store_days(lake: Lake, days: list[date], amount: float, rows: int = 200) -> list[str]:
    """Store days with that many rows; return the logged warnings."""
    log = Log()
    store_days_in_postgres(
        *(make_stored_day(lake, day, rows, amount) for day in days), names=days, log=log
    )
    return log.warnings


def read_oid(name: str = PARTITION) -> int:
    return execute(f"SELECT '{name}'::regclass::oid::int")[0][0]


def make_totals(days: list[date], amount: float, rows: int = 200) -> dict[date, tuple[int, float]]:
    return dict.fromkeys(days, (rows, rows * amount))


@contextmanager
def count_meanwhile(
    isolation: psycopg.IsolationLevel, observed_totals: set[tuple[int, float]]
) -> Iterator[None]:
    """Count rows repeatedly during the block, each time in a slightly older snapshot."""
    stop = threading.Event()

    def read() -> None:
        with psycopg.connect(**stores.postgres_arguments()) as connection:
            connection.isolation_level = isolation
            while not stop.is_set():
                connection.execute("SELECT 1")
                time.sleep(0.002)
                query = f"SELECT count(*), sum(total_amount) FROM {PARENT}"
                observed_totals.add(connection.execute(query).fetchone())
                connection.commit()

    with ThreadPoolExecutor(1) as pool:
        reader = pool.submit(read)
        try:
            yield
        finally:
            stop.set()
        reader.result()


def test_rewrite_of_most_days_swaps_and_the_other_days_stay(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS, 1.0)
    execute(
        f"ALTER TABLE {PARENT} ADD remark text",
        f"UPDATE {PARENT} SET remark = 'ours' WHERE lpep_pickup_datetime >= '{REST[0]}'",
        f"VACUUM {PARTITION}",
    )
    before = read_oid()
    assert store_days(lake, MOST, 2.0) == []
    assert read_oid() != before
    assert read_totals(DAYS, schema) == make_totals(MOST, 2.0) | make_totals(REST, 1.0)
    assert execute(f"SELECT count(remark) FROM {PARENT}") == [(200 * len(REST),)]
    tables = "SELECT relname FROM pg_class WHERE relnamespace = 'store_test'::regnamespace"
    names = {row[0] for row in execute(f"{tables} AND relkind IN ('r', 'i', 'p')")}
    name = PARTITION.partition(".")[2]
    assert names == {PARENT.partition(".")[2], name, f"{name}_pickup"}
    constraints = (
        f"SELECT count(*) FROM pg_constraint WHERE conrelid = {read_oid()} AND contype = 'c'"
    )
    assert execute(constraints) == [(0,)]
    assert "Last written from" in execute(f"SELECT obj_description({read_oid()})")[0][0]


def test_rewrite_of_few_days_deletes_and_inserts(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS, 1.0)
    before = read_oid()
    store_days(lake, DAYS[:4], 2.0)
    store_days(lake, [FIRST + timedelta(20)], 3.0)
    assert read_oid() == before
    assert read_totals(DAYS, schema) == make_totals(DAYS[:4], 2.0) | make_totals(DAYS[4:], 1.0)


@pytest.mark.parametrize(
    "isolation", [psycopg.IsolationLevel.READ_COMMITTED, psycopg.IsolationLevel.REPEATABLE_READ]
)
def test_readers_see_all_old_or_all_new_rows(
    isolation: psycopg.IsolationLevel, schema: str, lake: Lake
) -> None:
    store_days(lake, DAYS, 1.0)
    other_rows = 200 * len(REST)
    observed_totals: set[tuple[int, float]] = set()
    totals = {
        amount: (2_000, other_rows + 200 * len(MOST) * float(amount)) for amount in range(1, 7)
    }
    with count_meanwhile(isolation, observed_totals):
        for amount in range(2, 7):
            # The reader has begun, and has seen each version.
            assert wait_until(lambda before=totals[amount - 1]: before in observed_totals, 60)
            before = read_oid()
            store_days(lake, MOST, float(amount))
            assert read_oid() != before
    assert observed_totals <= set(totals.values())


def test_snapshot_from_before_the_swap_sees_complete_days(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS, 1.0)
    with psycopg.connect(**stores.postgres_arguments()) as reader:
        reader.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        reader.execute("SELECT 1")
        before = read_oid()
        store_days(lake, MOST, 2.0)
        assert read_oid() != before
        query = f"SELECT count(*), sum(total_amount) FROM {PARENT}"
        assert reader.execute(query).fetchone() == (2_000, 200 * (2.0 * 7 + 3))


def test_long_reader_prevents_the_swap_but_not_the_rewrite(
    schema: str, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_swap, "SWAP_SECONDS", 4.0)
    store_days(lake, DAYS, 1.0, rows=3_000)
    first, before = measure_table(schema), read_oid()
    query = f"SELECT count(*) FROM {PARENT}"
    waits: list[float] = []
    with psycopg.connect(**stores.postgres_arguments()) as reader, ThreadPoolExecutor(1) as pool:
        reader.execute(query)
        future = pool.submit(store_days, lake, DAYS, 2.0, 3_000)
        while not future.done():
            started = time.monotonic()
            assert execute(query) == [(30_000,)]
            waits.append(time.monotonic() - started)
        assert future.result() == []
        assert reader.execute(query).fetchone() == (30_000,)
    # No reader waits longer than one attempt, which ends after 0.2 s.
    assert max(waits) < postgres_swap.SWAP_SECONDS - 1
    assert read_oid() == before
    assert read_totals(DAYS, schema) == make_totals(DAYS, 2.0, 3_000)
    assert measure_table(schema) > 1.5 * first
    store_days(lake, DAYS, 3.0, rows=3_000)
    assert measure_table(schema) < 1.1 * first


def test_row_written_concurrently_is_not_lost(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS, 1.0)
    before = read_oid()
    with psycopg.connect(**stores.postgres_arguments()) as writer:
        writer.execute(f"UPDATE {PARENT} SET extra = 7 WHERE lpep_pickup_datetime >= '{REST[0]}'")
        store_days(lake, MOST, 2.0)
        writer.commit()
    assert read_oid() == before
    assert read_totals(DAYS, schema) == make_totals(MOST, 2.0) | make_totals(REST, 1.0)
    assert execute(f"SELECT sum(extra) FROM {PARENT} WHERE extra = 7") == [(7.0 * 600,)]


ADDED = {
    "an index": (f"CREATE INDEX own ON {PARTITION} (vendorid)", "SELECT to_regclass('{}.own')"),
    "an index of the whole table": (
        f"CREATE INDEX own ON {PARENT} (vendorid)",
        (
            f"SELECT 1 FROM pg_index WHERE indrelid = '{PARTITION}'::regclass AND indnatts = 1"
            " AND indkey[0] = 1"
        ),
    ),
    "a view": (f"CREATE VIEW {{}}.own AS TABLE {PARTITION}", "SELECT count(*) > 0 FROM {}.own"),
    "a right": (
        f"GRANT SELECT ON {PARTITION} TO pg_monitor",
        f"SELECT 1 WHERE has_table_privilege('pg_monitor', '{PARTITION}', 'SELECT')",
    ),
    "a right on a column": (
        f"GRANT SELECT (vendorid) ON {PARTITION} TO pg_monitor",
        f"SELECT 1 WHERE has_column_privilege('pg_monitor', '{PARTITION}', 'vendorid', 'SELECT')",
    ),
    "an option": (
        f"ALTER TABLE {PARTITION} SET (autovacuum_enabled = false)",
        f"SELECT 1 FROM pg_class WHERE oid = '{PARTITION}'::regclass AND reloptions IS NOT NULL",
    ),
    "statistics": (
        f"CREATE STATISTICS {{}}.own ON vendorid, pulocationid FROM {PARTITION}",
        "SELECT 1 FROM pg_statistic_ext WHERE stxname = 'own'",
    ),
    "a publication": (
        f"CREATE PUBLICATION own FOR TABLE {PARTITION} WITH (publish = 'insert')",
        "SELECT 1 FROM pg_publication_tables WHERE pubname = 'own'",
    ),
    "a publication of the whole table": (
        (
            f"CREATE PUBLICATION own FOR TABLE {PARENT}"
            " WITH (publish = 'insert', publish_via_partition_root = true)"
        ),
        "SELECT 1 FROM pg_publication_tables WHERE pubname = 'own'",
    ),
    "a key": (
        (f"ALTER TABLE {PARTITION} ADD CONSTRAINT own UNIQUE (lpep_pickup_datetime, total_amount)"),
        "SELECT 1 FROM pg_constraint WHERE conname = 'own'",
    ),
}


@pytest.mark.parametrize("case", ADDED)
def test_users_additions_to_the_partition_stay(case: str, schema: str, lake: Lake) -> None:
    store_days(lake, DAYS, 1.0)
    statement, query = (text.replace("{}", schema) for text in ADDED[case])
    execute(statement)
    try:
        assert store_days(lake, MOST, 2.0) == []
        assert execute(query)[0][0]
        assert read_totals(DAYS, schema) == make_totals(MOST, 2.0) | make_totals(REST, 1.0)
    finally:
        execute("DROP PUBLICATION IF EXISTS own")


def test_trigger_fires_for_rewritten_rows(schema: str, lake: Lake) -> None:
    store_days(lake, DAYS, 1.0)
    execute(
        f"CREATE TABLE {schema}.audit (what text)",
        f"CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN INSERT INTO {schema}.audit VALUES (tg_op); RETURN NULL; END$$",
        f"CREATE TRIGGER note AFTER INSERT OR DELETE ON {PARENT} FOR EACH ROW"
        f" EXECUTE FUNCTION {schema}.note()",
    )
    store_days(lake, DAYS, 2.0)
    counted = f"SELECT what, count(*) FROM {schema}.audit GROUP BY 1 ORDER BY 1"
    assert execute(counted) == [("DELETE", 2_000), ("INSERT", 2_000)]


def test_months_can_be_swapped_concurrently(schema: str, lake: Lake) -> None:
    """No swap locks the whole table while its rows are being sent."""
    months = [[date(2021, month, 1) + timedelta(n) for n in range(5)] for month in (1, 2, 3, 4)]
    for days in months:
        store_days(lake, days, 1.0, rows=2_000)
    names = [f"{PARENT}_2021_{month:02d}" for month in (1, 2, 3, 4)]
    before = [read_oid(name) for name in names]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda days: store_days(lake, days, 2.0, 2_000), months)) == [[]] * 4
    assert not set(before) & {read_oid(name) for name in names}
    every = [day for days in months for day in days]
    assert read_totals(every, schema) == make_totals(every, 2.0, 2_000)
