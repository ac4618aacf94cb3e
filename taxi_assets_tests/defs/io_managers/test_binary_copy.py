"""Arrow into Postgres: every value arrives as it is, and what breaks is said as it is."""

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

from taxi_assets.defs.io_managers.binary_copy import BATCH_ROWS, copy_rows_binary
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


def rows(count: int) -> pa.Table:
    """Columns that repeat their values in different rhythms, with a null at the end of each."""
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


def found(target: str) -> pa.Table:
    names = ", ".join('"{}"'.format(name.replace('"', '""')) for name in SCHEMA.names)
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {names} FROM {target} ORDER BY ctid")
        return cursor.fetch_arrow_table().cast(SCHEMA)


def bits(table: pa.Table) -> list[object]:
    """Values, floats by their bits: -0.0 is not 0.0 and NaN is itself."""
    return [
        [value if value is None else value.hex() for value in column.to_pylist()]
        if pa.types.is_floating(column.type)
        else column.to_pylist()
        for column in table.columns
    ]


def test_every_value_arrives_in_its_column_and_in_order(
    target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [rows(7), rows(0), rows(2 * BATCH_ROWS + 1), rows(1)]
    with monkeypatch.context() as patch:
        patch.setenv("PGCLIENTENCODING", "LATIN1")  # as a user's environment may have it
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            copied = copy_rows_binary(cursor, target, SCHEMA, tables)
            connection.commit()
    expected = pa.concat_tables(tables)
    assert copied == expected.num_rows
    assert bits(found(target)) == bits(expected)


def test_nothing_is_a_copy_too(target: str) -> None:
    with PostgresResource().connect() as connection, connection.cursor() as cursor:
        assert copy_rows_binary(cursor, target, SCHEMA, []) == 0
        connection.commit()
    assert found(target).num_rows == 0


def test_what_breaks_in_the_source_is_raised_as_it_is_and_leaves_nothing(target: str) -> None:
    def tables() -> Iterator[pa.Table]:
        yield rows(BATCH_ROWS)
        raise PermissionError("the second day")

    with PostgresResource().connect() as connection, connection.cursor() as cursor:
        with pytest.raises(PermissionError, match="the second day"):
            copy_rows_binary(cursor, target, SCHEMA, tables())
        connection.rollback()
        cursor.execute(f"SELECT count(*) FROM {target}")
        assert cursor.fetchone() == (0,)


def test_what_the_server_refuses_is_the_servers_error(target: str) -> None:
    without = pa.table({"nowhere": [1]})
    with (
        PostgresResource().connect() as connection,
        connection.cursor() as cursor,
        pytest.raises(psycopg.errors.UndefinedColumn, match="nowhere"),
    ):
        copy_rows_binary(cursor, target, without.schema, [without])


class Cancelled(BaseException):
    """As Dagster raises one in the handler of a signal."""


def test_a_signal_in_the_middle_ends_the_copy_and_is_what_is_raised(target: str) -> None:
    def cancel(*_: object) -> None:
        raise Cancelled

    before = signal.signal(signal.SIGALRM, cancel)
    try:
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            signal.setitimer(signal.ITIMER_REAL, 0.3)
            with pytest.raises(Cancelled):
                copy_rows_binary(cursor, target, SCHEMA, itertools.repeat(rows(600)))
            # Either way nothing of it can be committed.
            failed = connection.info.transaction_status == TransactionStatus.INERROR
            assert connection.closed or failed
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            cursor.execute(f"SELECT count(*) FROM {target}")
            assert cursor.fetchone() == (0,)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
