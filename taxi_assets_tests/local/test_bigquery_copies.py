"""Copy jobs of the emulator that wait together, on a separate DuckDB."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from types import SimpleNamespace
from typing import Any

import duckdb
import pytest

from taxi_assets.local import bigquery_copies
from taxi_assets.local.bigquery_copies import copy_partitions

FIRST = date(2021, 1, 1)


class Context:
    """The context of an emulator's job, with each statement recorded."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self.statements: list[str] = []
        self.lock = asyncio.Lock()
        self.engine = self
        self.changed: list[str] = []
        self.snapshots = SimpleNamespace(record_change=lambda *place: self.changed.append(place[2]))
        by_day = SimpleNamespace(type="DAY", field="day")
        self.catalog = SimpleNamespace(
            get_table=lambda *_: SimpleNamespace(time_partitioning=by_day)
        )

    def execute(self, sql: str) -> duckdb.DuckDBPyConnection:
        self.statements.append(sql)
        return self.connection.execute(sql)

    @asynccontextmanager
    async def write_lock(self) -> AsyncIterator[None]:
        async with self.lock:
            yield


@pytest.fixture
def context() -> Iterator[Context]:
    """Stage eight days, the first four of which are in the table."""
    with duckdb.connect() as connection:
        connection.execute("""CREATE SCHEMA "p__d" """)
        days = "DATE '2021-01-01' + CAST(i // 10 AS INTEGER) AS day"
        connection.execute(
            f'CREATE TABLE "p__d"."staged" AS SELECT 2 AS n, {days} FROM range(80) t(i)'
        )
        connection.execute(
            f'CREATE TABLE "p__d"."trips" AS SELECT 1 AS n, {days} FROM range(40) t(i)'
        )
        yield Context(connection)


def copy_all(
    context: Context, offsets: list[int], disposition: str = "WRITE_TRUNCATE"
) -> list[Any]:
    """Copy the days at the same time; return the result of each."""

    async def stock(**_: Any) -> None:
        raise AssertionError

    async def run() -> list[Any]:
        copy = copy_partitions(stock)
        names = [f"{FIRST + timedelta(days=offset):%Y%m%d}" for offset in offsets]
        jobs = [
            copy(
                ctx=context,
                write_disposition=disposition,
                src_proj="p",
                src_ds="d",
                src_table_id=f"staged${name}",
                dst_proj="p",
                dst_ds="d",
                dst_table_id=f"trips${name}",
            )
            for name in names
        ]
        return list(await asyncio.gather(*jobs, return_exceptions=True))

    return asyncio.run(run())


def count_rows(context: Context) -> list[tuple[Any, ...]]:
    return context.connection.execute(
        'SELECT n, COUNT(*), COUNT(DISTINCT day) FROM "p__d"."trips" GROUP BY 1 ORDER BY 1'
    ).fetchall()


def test_waiting_copies_share_one_commit(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bigquery_copies, "GATHER_SECONDS", 0.5)
    assert copy_all(context, [0, 1, 2, 5, 5]) == [None] * 5
    assert context.statements.count("COMMIT") == 1
    assert count_rows(context) == [(1, 10, 1), (2, 40, 4)]
    assert set(context.changed) == {"trips"}


def test_failing_copy_does_not_fail_the_others(context: Context) -> None:
    failed = copy_all(context, [0, 30, 7])
    assert [error is None for error in failed] == [True, False, True]
    assert "staged$20210131" in str(failed[1])
    assert count_rows(context) == [(1, 30, 3), (2, 20, 2)]


def test_appending_copy_is_rejected(context: Context) -> None:
    (error,) = copy_all(context, [5], "WRITE_APPEND")
    assert "WRITE_APPEND" in str(error)
    assert count_rows(context) == [(1, 40, 4)]
