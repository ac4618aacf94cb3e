"""The tables of trips in Postgres: schema, partitions by month, index, and what rewriting leaves.

Why partitions by month: the delete of a day prunes to its month, a first load fills a table that
no reader sees and attaches it whole, and sixteen years are 200 partitions and not 6,000. Inside a
month a BRIN index on the pickup time leads the delete to its day; a B-tree would cost a third more
load time. Rewriting leaves dead rows: they are vacuumed at once, and where they were a large part
of the month the partition is compacted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable

from taxi_assets.errors import StoreError
from taxi_assets.services import Column, Service
from taxi_assets.windows import Month

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


def ensure_table(cursor: Cursor, table: sa.Table, service: Service) -> None:
    """Make schema and table where they lack; refuse a table of other types.

    Raises:
        StoreError: a column of the table has another type, or the table is not partitioned.
    """
    if not exists(cursor, table.schema, table.name):
        _make(cursor, table)
        return
    cursor.execute(
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema = %s AND table_name = %s",
        [table.schema, table.name],
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
    name = qualified(table.schema, table.name)
    cursor.execute("SELECT relkind FROM pg_class WHERE oid = %s::regclass", [name])
    if cursor.fetchone() != ("p",):
        raise StoreError(
            f"{table.fullname} is not partitioned (made by another tool?): rename it, "
            "run again, and copy its rows where they are wanted"
        )
    _grow(cursor, table, [column for column in service.columns if column.name not in found])


def _make(cursor: Cursor, table: sa.Table) -> None:
    # Two services share the schema, and IF NOT EXISTS fails beside one who makes it just now.
    lock(cursor, str(table.schema))
    schema = QUOTE(str(table.schema))
    cursor.execute("SELECT to_regnamespace(%s) IS NULL", [schema])
    if cursor.fetchone() == (True,):
        # IF NOT EXISTS is refused to a user who may fill the schema and not make one.
        cursor.execute(f"CREATE SCHEMA {schema}")
    cursor.execute(str(CreateTable(table, if_not_exists=True).compile(dialect=DIALECT)))
    for made in table.columns:
        target = f"{qualified(table.schema, table.name)}.{QUOTE(made.name)}"
        cursor.execute(f"COMMENT ON COLUMN {target} IS {literal(made.comment)}")


def _grow(cursor: Cursor, table: sa.Table, new: Sequence[Column]) -> None:
    """Add columns that the schema got since, null in all rows: no row is rewritten."""
    if not new:
        return
    lock(cursor, table.fullname)
    name = qualified(table.schema, table.name)
    for column in new:
        added = f"{QUOTE(column.name)} {column.postgres}"
        cursor.execute(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {added}")
        comment = literal(table.columns[column.name].comment)
        cursor.execute(f"COMMENT ON COLUMN {name}.{QUOTE(column.name)} IS {comment}")


def create_partition(cursor: Cursor, table: sa.Table, name: str) -> None:
    """A table of its own, seen by nobody until it is attached.

    Being new in this transaction it needs no WAL where `wal_level` is minimal.
    """
    partition = qualified(table.schema, name)
    parent = qualified(table.schema, table.name)
    cursor.execute(f"CREATE TABLE {partition} (LIKE {parent} INCLUDING COMMENTS)")


def attach(cursor: Cursor, table: sa.Table, service: Service, name: str, month: Month) -> None:
    """Index a filled table and make it the month's partition.

    An index made after the COPY costs 0.2 s for a month; summarizing one made before costs 1 s.
    """
    cursor.execute(
        f"CREATE INDEX {QUOTE(_index_name(name))} ON {qualified(table.schema, name)}"
        f" USING brin ({QUOTE(service.pickup_column)}) WITH (pages_per_range = 16)"
    )
    window = month.window
    cursor.execute(
        f"ALTER TABLE {qualified(table.schema, table.name)} ATTACH PARTITION"
        f" {qualified(table.schema, name)}"
        f" FOR VALUES FROM ({literal(window.start)}) TO ({literal(window.end)})"
    )


def tidy(connection: Connection, table: sa.Table, name: str, *, deleted: int) -> None:
    """After the commit: summarize the index, and give back what dead rows took."""
    partition = qualified(table.schema, name)
    connection.autocommit = True
    with connection.cursor() as cursor:
        if not deleted:
            index = qualified(table.schema, _index_name(name))
            cursor.execute("SELECT brin_summarize_new_values(%s::regclass)", [index])
        elif _bloat(cursor, partition) < BLOAT or not _compact(cursor, partition):
            cursor.execute(f"VACUUM (ANALYZE) {partition}")
    connection.autocommit = False


def _bloat(cursor: Cursor, partition: str) -> float:
    """How many times larger the partition is than its rows need."""
    cursor.execute(
        "SELECT pg_relation_size(oid), reltuples,"  # noqa: S608 - quoted
        f" (SELECT avg(pg_column_size(t.*)) FROM (SELECT * FROM {partition} LIMIT 1000) t)"
        " FROM pg_class WHERE oid = %s::regclass",
        [partition],
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
    finally:
        cursor.execute("RESET lock_timeout")  # the next month's lock is waited for
    return True


def lock(cursor: Cursor, what: str) -> None:
    """Serialize writers of one thing until the transaction ends; readers are not kept waiting."""
    cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [what])


def exists(cursor: Cursor, schema: str | None, name: str) -> bool:
    """Whether there is such a table."""
    cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [qualified(schema, name)])
    return cursor.fetchone() == (True,)


def sql(statement: Any) -> str:
    """A composed statement as text, its values as quoted literals."""
    return str(statement.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))


def literal(value: object) -> str:
    """A value's text, quoted for SQL."""
    return sql(sa.literal(str(value), sa.String()))


def qualified(schema: str | None, name: str) -> str:
    """Schema and table, quoted where they must be."""
    return f"{QUOTE(str(schema))}.{QUOTE(name)}"


def _index_name(partition: str) -> str:
    return f"{partition}_pickup"
