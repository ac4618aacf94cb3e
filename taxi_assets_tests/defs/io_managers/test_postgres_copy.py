"""Arrow into Postgres: every value arrives unchanged, and errors are raised unchanged."""

from __future__ import annotations

import itertools
import math
import signal
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest
from psycopg.pq import TransactionStatus

from taxi_assets.defs.io_managers.postgres_copy import BATCH_ROWS, copy_rows_binary
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets_tests import stores

SCHEMA = pa.schema(
    {
        "id": pa.int64(),
        "amount": pa.float64(),
        "time": pa.timestamp("us"),
        'a "word"': pa.string(),
    }
)
NUMBERS = [0, -1, 2**63 - 1, -(2**63), None]
AMOUNTS = [0.1, -0.0, math.inf, 5e-324, math.nan, None, 1.7976931348623157e308]
TIMES = [*map(datetime.fromisoformat, ("2021-01-05T23:59:59.999999", "1900-01-01", "9999-12-31"))]
WORDS = ["N", "", "é 東京 🚕", "a\tb\\N\n", None, "x" * 100_000]


def make_rows(count: int) -> pa.Table:
    """Return columns that repeat their values in different cycles, with a null at the end."""
    columns = [NUMBERS, AMOUNTS, [*TIMES, None], WORDS]
    return pa.table(
        [
            pa.array([values[row % len(values)] for row in range(count)], field.type)
            for field, values in zip(SCHEMA, columns, strict=True)
        ],
        schema=SCHEMA,
    )


@pytest.fixture
def target(home: Path) -> Iterator[str]:
    del home
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(
            'CREATE TABLE copied ("a ""word""" text, id bigint, amount double precision,'
            " time timestamp without time zone)"
        )
        yield "copied"
        cursor.execute("DROP TABLE copied")


def read_target(target: str) -> pa.Table:
    names = ", ".join('"{}"'.format(name.replace('"', '""')) for name in SCHEMA.names)
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {names} FROM {target} ORDER BY ctid")
        return cursor.fetch_arrow_table().cast(SCHEMA)


def read_bits(table: pa.Table) -> list[object]:
    """Return values, floats by their bits: -0.0 is not 0.0 and NaN equals itself."""
    return [
        [value if value is None else value.hex() for value in column.to_pylist()]
        if pa.types.is_floating(column.type)
        else column.to_pylist()
        for column in table.columns
    ]


def test_values_arrive_in_their_columns_and_in_order(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [make_rows(7), make_rows(0), make_rows(2 * BATCH_ROWS + 1), make_rows(1)]
    with monkeypatch.context() as patch:
        patch.setenv("PGCLIENTENCODING", "LATIN1")  # possible in a user's environment
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            copied = copy_rows_binary(cursor, target, SCHEMA, tables)
            connection.commit()
    expected = pa.concat_tables(tables)
    assert copied == expected.num_rows
    assert read_bits(read_target(target)) == read_bits(expected)


def test_copy_of_no_rows(target: str) -> None:
    with PostgresResource().connect() as connection, connection.cursor() as cursor:
        assert copy_rows_binary(cursor, target, SCHEMA, []) == 0
        connection.commit()
    assert read_target(target).num_rows == 0


def test_source_error_is_raised_unchanged_and_leaves_nothing(target: str) -> None:
    def tables() -> Iterator[pa.Table]:
        yield make_rows(BATCH_ROWS)
        raise PermissionError("the second day")

    with PostgresResource().connect() as connection, connection.cursor() as cursor:
        with pytest.raises(PermissionError, match="the second day"):
            copy_rows_binary(cursor, target, SCHEMA, tables())
        connection.rollback()
        cursor.execute(f"SELECT count(*) FROM {target}")
        assert cursor.fetchone() == (0,)


def test_rejected_row_raises_the_servers_error(target: str) -> None:
    without = pa.table({"nowhere": [1]})
    with (
        PostgresResource().connect() as connection,
        connection.cursor() as cursor,
        pytest.raises(psycopg.errors.UndefinedColumn, match="nowhere"),
    ):
        copy_rows_binary(cursor, target, without.schema, [without])


class Cancelled(BaseException):
    """Like the exception of Dagster's signal handler."""


def test_signal_during_a_copy_ends_it_and_is_raised(target: str) -> None:
    def cancel(*_: object) -> None:
        raise Cancelled

    previous_handler = signal.signal(signal.SIGALRM, cancel)
    try:
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Cancelled):
                copy_rows_binary(cursor, target, SCHEMA, itertools.repeat(make_rows(600)))
            # In both cases nothing of it can be committed.
            failed = connection.info.transaction_status == TransactionStatus.INERROR
            assert connection.closed or failed
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {target}")
            assert cursor.fetchone() == (0,)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous_handler)
