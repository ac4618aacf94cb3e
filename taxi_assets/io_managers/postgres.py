"""Postgres: one table a service, range-partitioned by month, days replaced in one transaction.

Why partitions by month: the delete of a day prunes to its month, a first load fills a table that
no reader sees and attaches it whole, and sixteen years are 200 partitions and not 6,000. Inside a
month a BRIN index on the pickup time leads the delete to its day; a B-tree would cost a third more
load time. Rewriting leaves dead rows: they are vacuumed at once, and where they were a large part
of the month the partition is compacted.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from taxi_assets.days import Days
from taxi_assets.errors import StoreError
from taxi_assets.io_managers.base import DaysIOManager, Records, last_written, trips_metadata
from taxi_assets.io_managers.binary_copy import copy_rows
from taxi_assets.record import DayRecord
from taxi_assets.resources.postgres import PostgresResource
from taxi_assets.services import Column, Service
from taxi_assets.slices import TripsSlice, completed
from taxi_assets.table_metadata import TABLE_NAME, URI
from taxi_assets.trips.clean import to_frame
from taxi_assets.windows import Month, Window, by_month, tile

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

# "named" leaves a literal percent sign alone, psycopg's style doubles it.
DIALECT = postgresql.dialect(paramstyle="named")
QUOTE = DIALECT.identifier_preparer.quote
TYPES: dict[str, Any] = {
    "BIGINT": sa.BigInteger(),
    "DOUBLE PRECISION": postgresql.DOUBLE_PRECISION(),
    "TIMESTAMP WITHOUT TIME ZONE": postgresql.TIMESTAMP(timezone=False),
    "TEXT": sa.Text(),
}
BLOAT = 1.25
"""A partition this many times larger than its rows is compacted after a rewrite."""
LOCK_TIMEOUT = "3s"
"""Compaction waits no longer than this for readers; the next rewrite tries again."""


def trips_table(service: Service, schema: str) -> sa.Table:
    """The service's table, from its columns."""
    columns = [
        sa.Column(
            column.name,
            TYPES[column.postgres],
            nullable=column.name != service.pickup_column,
            comment=column.meaning,
        )
        for column in service.columns
    ]
    return sa.Table(
        service.table,
        sa.MetaData(schema=schema),
        *columns,
        postgresql_partition_by=f"RANGE ({QUOTE(service.pickup_column)})",
    )


def partition_name(service: Service, month: Month) -> str:
    """Name of the table that holds a month."""
    return f"{service.table}_{month.year:04d}_{month.month:02d}"


def sql(statement: Any) -> str:
    """A composed statement as text, its values as quoted literals."""
    return str(statement.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))


def delete_window(table: sa.Table, service: Service, window: Window) -> sa.Delete:
    """The delete of a window, by the requested days and not by the rows at hand."""
    return sa.delete(table).where(in_window(table, service, window))


def in_window(table: sa.Table, service: Service, window: Window) -> sa.ColumnElement[bool]:
    """Whether a row's pickup lies in a window."""
    pickup = table.c[service.pickup_column]
    return (pickup >= _midnight(window.start)) & (pickup < _midnight(window.end))


class PostgresIOManager(DaysIOManager[Mapping[date, TripsSlice], pd.DataFrame]):
    """Replaces days by DELETE and binary COPY in one transaction a month."""

    def __init__(self, services: Mapping[str, Service], postgres: PostgresResource) -> None:
        super().__init__(services)
        self.postgres = postgres

    def store(
        self, service: Service, value: Mapping[date, TripsSlice], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days; a month's days appear together or not at all."""
        if not value:
            return
        table = trips_table(service, self.postgres.schema_name())
        with self.postgres.connect() as connection:
            with connection.cursor() as cursor:
                ensure_table(cursor, table, service)
            connection.commit()
            for month, days in by_month(value).items():
                slices = {day: value[day] for day in days}
                rows = sum(trips.rows for trips in slices.values())
                what = f"{service.name} {month}: {len(days)} days, {rows:,} rows"
                log.info(f"{what} on their way to {table.fullname}")
                began = time.perf_counter()
                _replace_month(connection, table, service, month, slices)
                # They landed together: an equal share each.
                seconds = (time.perf_counter() - began) / len(slices)
                for day, trips in slices.items():
                    yield day, self._record(table, service, trips, seconds)

    def open_day(self, service: Service, day: date) -> pd.DataFrame | None:
        """The day's rows as a frame."""
        table = trips_table(service, self.postgres.schema_name())
        query = sa.select(table).where(in_window(table, service, Window.of_day(day)))
        with self.postgres.connect_arrow() as connection, connection.cursor() as cursor:
            cursor.execute(sql(query))
            return to_frame(cursor.fetch_arrow_table())

    def place(self, service: Service) -> str:
        """Schema and table."""
        return f"{self.postgres.schema_name()}.{service.table}"

    def _record(
        self, table: sa.Table, service: Service, trips: TripsSlice, seconds: float
    ) -> DayRecord:
        address = self.postgres.address()
        return DayRecord(
            {
                TABLE_NAME: f"{address.rpartition('/')[2]}.{table.fullname}",
                URI: f"postgresql://{address}",
                **trips_metadata(trips, service, "cleaned_trips", "postgres", seconds),
            }
        )


def _replace_month(
    connection: Connection,
    table: sa.Table,
    service: Service,
    month: Month,
    slices: Mapping[date, TripsSlice],
) -> None:
    """Replace days of one month in one transaction."""
    name = partition_name(service, month)
    deleted = 0
    with connection.cursor() as cursor:
        _lock(cursor, f"{table.fullname} {month}")
        fresh = not _exists(cursor, table.schema, name)
        if fresh:
            _create_partition(cursor, table, name)
        else:
            deleted = _delete(cursor, table, service, list(slices))
        _copy(cursor, service, table.schema, name, slices)
        comment = _literal(last_written(slices.values()))
        cursor.execute(f"COMMENT ON TABLE {_qualified(table.schema, name)} IS {comment}")
        if fresh:
            _attach(cursor, table, service, name, month)
    connection.commit()
    if not fresh:
        _tidy(connection, table, name, deleted=deleted)


def _tidy(connection: Connection, table: sa.Table, name: str, *, deleted: int) -> None:
    """After the commit: summarize the index, and give back what dead rows took."""
    partition = _qualified(table.schema, name)
    connection.autocommit = True
    with connection.cursor() as cursor:
        if not deleted:
            index = _literal(_qualified(table.schema, _index_name(name)))
            cursor.execute(f"SELECT brin_summarize_new_values({index}::regclass)")
        elif _bloat(cursor, partition) < BLOAT or not _compact(cursor, partition):
            cursor.execute(f"VACUUM (ANALYZE) {partition}")
    connection.autocommit = False


def ensure_table(cursor: Cursor, table: sa.Table, service: Service) -> None:
    """Make schema and table where they lack; refuse a table of other types.

    Raises:
        StoreError: a column of the table has another type, or the table is not partitioned.
    """
    if not _exists(cursor, table.schema, table.name):
        # Two services share the schema, and IF NOT EXISTS fails beside one who makes it just now.
        _lock(cursor, str(table.schema))
        schema = QUOTE(str(table.schema))
        cursor.execute(f"SELECT to_regnamespace({_literal(schema)}) IS NULL")
        if cursor.fetchone() == (True,):
            # Not for a user who may fill a schema and not make one: IF NOT EXISTS would be refused.
            cursor.execute(f"CREATE SCHEMA {schema}")
        cursor.execute(str(CreateTable(table, if_not_exists=True).compile(dialect=DIALECT)))
        for made in table.columns:
            target = f"{_qualified(table.schema, table.name)}.{QUOTE(made.name)}"
            cursor.execute(f"COMMENT ON COLUMN {target} IS {_literal(made.comment)}")
        return
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns"  # noqa: S608 - literals
        f" WHERE table_schema = {_literal(table.schema)} AND table_name = {_literal(table.name)}"
    )
    found: dict[str, str] = dict(cursor.fetchall())
    for column in service.columns:
        there = found.get(column.name, "missing")
        new = there == "missing" and column.name != service.pickup_column
        if there != column.postgres.lower() and not new:
            raise StoreError(
                f"{table.fullname}.{column.name} is {there} and must be "
                f"{column.postgres.lower()}: alter or drop the table, then run again"
            )
    cursor.execute(
        f"SELECT relkind FROM pg_class WHERE oid = {_regclass(table.schema, table.name)}"  # noqa: S608 - quoted names
    )
    if cursor.fetchone() != ("p",):
        raise StoreError(
            f"{table.fullname} is not partitioned (made by another tool?): rename it, "
            "run again, and copy its rows where they are wanted"
        )
    _grow(cursor, table, [column for column in service.columns if column.name not in found])


def _grow(cursor: Cursor, table: sa.Table, new: Sequence[Column]) -> None:
    """Add columns that the schema got since, null in all rows: no row is rewritten."""
    if not new:
        return
    _lock(cursor, table.fullname)
    name = _qualified(table.schema, table.name)
    for column in new:
        added = f"{QUOTE(column.name)} {column.postgres}"
        cursor.execute(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {added}")
        comment = _literal(table.columns[column.name].comment)
        cursor.execute(f"COMMENT ON COLUMN {name}.{QUOTE(column.name)} IS {comment}")


def _create_partition(cursor: Cursor, table: sa.Table, name: str) -> None:
    """A table of its own, seen by nobody until it is attached.

    Being new in this transaction it needs no WAL where `wal_level` is minimal.
    """
    partition = _qualified(table.schema, name)
    parent = _qualified(table.schema, table.name)
    cursor.execute(f"CREATE TABLE {partition} (LIKE {parent} INCLUDING COMMENTS)")


def _attach(cursor: Cursor, table: sa.Table, service: Service, name: str, month: Month) -> None:
    """Index a filled table and make it the month's partition.

    An index made after the COPY costs 0.2 s for a month; summarizing one made before costs 1 s.
    """
    cursor.execute(
        f"CREATE INDEX {QUOTE(_index_name(name))} ON {_qualified(table.schema, name)}"
        f" USING brin ({QUOTE(service.pickup_column)}) WITH (pages_per_range = 16)"
    )
    window = month.window
    cursor.execute(
        f"ALTER TABLE {_qualified(table.schema, table.name)} ATTACH PARTITION"
        f" {_qualified(table.schema, name)}"
        f" FOR VALUES FROM ({_literal(window.start)}) TO ({_literal(window.end)})"
    )


def _delete(cursor: Cursor, table: sa.Table, service: Service, days: list[date]) -> int:
    """Delete exactly these days; returns how many rows there were."""
    deleted = 0
    for window in tile(days):
        gone = delete_window(table, service, window).returning(sa.literal_column("1")).cte("gone")
        cursor.execute(sql(sa.select(sa.func.count()).select_from(gone)))
        row = cursor.fetchone()
        deleted += int(row[0]) if row else 0
    return deleted


def _copy(
    cursor: Cursor,
    service: Service,
    schema: str | None,
    name: str,
    slices: Mapping[date, TripsSlice],
) -> None:
    """Binary COPY of all days in one stream, the next day decoded while one is sent."""
    days = Days(list(slices), lambda day: slices[day].table())
    tables = (completed(table, service.arrow_schema) for _, table in days)
    copied = copy_rows(cursor, _qualified(schema, name), service.arrow_schema, tables)
    expected = sum(trips.rows for trips in slices.values())
    if days.refused or copied != expected:
        raise StoreError(f"{copied} of {expected} rows arrived in {schema}.{name}: rolled back")


def _lock(cursor: Cursor, what: str) -> None:
    """Serialize writers of one thing until the transaction ends; readers are not kept waiting."""
    cursor.execute(f"SELECT pg_advisory_xact_lock(hashtextextended({_literal(what)}, 0))")
    cursor.fetchall()


def _exists(cursor: Cursor, schema: str | None, name: str) -> bool:
    cursor.execute(f"SELECT to_regclass({_literal(_qualified(schema, name))}) IS NOT NULL")
    return cursor.fetchone() == (True,)


def _bloat(cursor: Cursor, partition: str) -> float:
    """How many times larger the partition is than its rows need."""
    cursor.execute(
        f"SELECT pg_relation_size({_literal(partition)}::regclass), reltuples,"  # noqa: S608 - quoted
        f" (SELECT avg(pg_column_size(t.*)) FROM (SELECT * FROM {partition} LIMIT 1000) t)"
        f" FROM pg_class WHERE oid = {_literal(partition)}::regclass"
    )
    size, rows, width = cursor.fetchone() or (0, 0, 0)
    # A tuple is aligned to 8 bytes, has a line pointer of 4, and shares a page of 8,192 with a
    # header of 24 (PostgreSQL, "Database Page Layout"); a composite's header is the tuple's.
    page = 8192
    needed = max(float(rows), 0) * (-(-float(width or 0) // 8) * 8 + 4) * page / (page - 24)
    return float(size) / max(needed, page)


def _compact(cursor: Cursor, partition: str) -> bool:
    """Rewrite a partition without its dead rows; False where readers keep it busy."""
    from psycopg.errors import LockNotAvailable  # noqa: PLC0415 - heavy at import

    cursor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    try:
        cursor.execute(f"VACUUM (FULL, ANALYZE) {partition}")
    except LockNotAvailable:
        return False
    return True


def _midnight(day: date) -> sa.ColumnElement[Any]:
    return sa.literal(pd.Timestamp(day).to_pydatetime(), postgresql.TIMESTAMP())


def _literal(value: object) -> str:
    return sql(sa.literal(str(value), sa.String()))


def _qualified(schema: str | None, name: str) -> str:
    return f"{QUOTE(str(schema))}.{QUOTE(name)}"


def _regclass(schema: str | None, name: str) -> str:
    return f"{_literal(_qualified(schema, name))}::regclass"


def _index_name(partition: str) -> str:
    return f"{partition}_pickup"


def read_back(
    connection: Connection, service: Service, schema: str, days: list[date]
) -> dict[date, tuple[int, float]]:
    """Rows and sum of `total_amount` (dollars) of each day, as the table has them."""
    table = trips_table(service, schema)
    found: dict[date, tuple[int, float]] = {}
    day = sa.cast(table.c[service.pickup_column], sa.Date()).label("day")
    total = sa.func.sum(table.c[service.total]) if service.total else sa.literal(0)
    with connection.cursor() as cursor:
        # A month that was loaded just now has no statistics: the planner expects 2,600 rows of 1.2
        # million and sorts them on disk (0.4 s) where a table of 31 sums will do (0.25 s).
        cursor.execute("SET LOCAL enable_sort = off")
        for window in tile(days):
            query = (
                sa.select(day, sa.func.count(), total)
                .where(in_window(table, service, window))
                .group_by(sa.text("1"))
            )
            cursor.execute(sql(query))
            found |= {row[0]: (int(row[1]), float(row[2] or 0)) for row in cursor.fetchall()}
    return found
