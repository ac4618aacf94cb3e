"""Create the tables of trips in Postgres, and verify tables that exist.

A table is used only if it has the columns and partitions that this module creates, and nothing on
it can change or hide rows. Additional columns, indexes, grants and AFTER triggers stay.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.schema import CreateTable, SetColumnComment, SetTableComment

from taxi_assets.errors import StoreError
from taxi_assets.tlc.column import Column
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from psycopg import Cursor

# "named" does not double a literal percent sign; the style of psycopg does.
DIALECT = postgresql.dialect(paramstyle="named")
QUOTE = DIALECT.identifier_preparer.quote
TYPES: dict[str, Any] = {
    "BIGINT": sa.BigInteger(),
    "DOUBLE PRECISION": postgresql.DOUBLE_PRECISION(),
    "TIMESTAMP WITHOUT TIME ZONE": postgresql.TIMESTAMP(timezone=False),
    "TEXT": sa.Text(),
}
KINDS = {
    "r": "a table that is not partitioned",
    "p": "a partitioned table",
    "v": "a view",
    "m": "a materialized view",
    "f": "a foreign table",
    "S": "a sequence",
    "i": "an index",
    "I": "an index",
    "c": "a type",
}
"""Descriptions of `pg_class.relkind`."""


def build_trips_table(service: Service, schema: str) -> sa.Table:
    """Build the table of a service from its columns."""
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
        comment=f"{service.label} trips, one row a trip; a partition a month of "
        f"{service.pickup_column}, New York wall time",
        postgresql_partition_by=f"RANGE ({QUOTE(service.pickup_column)})",
    )


def ensure_table_exists(cursor: Cursor, table: sa.Table, service: Service) -> None:
    """Create schema and table if they do not exist; verify a table that exists.

    Raises:
        StoreError: the table is of another kind, has other partitions, has a column of another
            type, or has something that can change or hide rows.
    """
    kind = find_relation_kind(cursor, table.schema, table.name)
    if kind is None:
        _create_table(cursor, table)
        return
    if kind != "p":
        raise StoreError(
            f"{table.fullname} is {KINDS.get(kind, kind)} and must be partitioned by month (made "
            "by another tool?): rename it, run again, and copy its rows where they are wanted"
        )
    name = qualify_name(table.schema, table.name)
    columns = read_columns(cursor, name)
    for column in service.columns:
        actual = columns.get(column.name, "missing")
        new = actual == "missing" and column.name != service.pickup_column
        if actual != column.postgres.lower() and not new:
            raise StoreError(
                f"{table.fullname}.{column.name} is {actual} and must be "
                f"{column.postgres.lower()}: alter or drop the table, then run again"
            )
    key = f"RANGE ({QUOTE(service.pickup_column)})"
    cursor.execute("SELECT pg_get_partkeydef(%s::regclass)", [name])
    actual_key = cursor.fetchone()
    if actual_key != (key,):
        raise StoreError(
            f"{table.fullname} is partitioned by {actual_key and actual_key[0]} and must be"
            f" by {key}: rename it, run again, and copy its rows where they are wanted"
        )
    _check_other_columns(cursor, table, name)
    check_table_writable(cursor, table.schema, table.name)
    _add_new_columns(
        cursor, table, [column for column in service.columns if column.name not in columns]
    )


def check_table_writable(cursor: Cursor, schema: str | None, name: str) -> None:
    """Reject a table on which a DELETE or a COPY can skip, change or lose rows.

    Raises:
        StoreError: the table has a BEFORE trigger, a rule or a row-level policy, or a crash of the
            server would empty it.
    """
    cursor.execute(
        "SELECT (SELECT string_agg(tgname, ', ') FROM pg_trigger WHERE tgrelid = c.oid"
        # Bits of tgtype: 1 FOR EACH ROW, 2 BEFORE, 4 INSERT, 8 DELETE (pg_trigger.h).
        " AND NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 3 = 3 AND tgtype & 12 <> 0),"
        " (SELECT string_agg(rulename, ', ') FROM pg_rewrite WHERE ev_class = c.oid"
        " AND ev_enabled <> 'D'), row_security_active(c.oid), c.relpersistence = 'u'"
        " FROM pg_class c WHERE c.oid = %s::regclass",
        [qualify_name(schema, name)],
    )
    triggers, rules, secured, unlogged = cursor.fetchone() or (None, None, False, False)
    if unlogged:
        raise StoreError(
            f"{schema}.{name} is UNLOGGED, so that a crash of the server empties it: "
            f"ALTER TABLE {qualify_name(schema, name)} SET LOGGED, then run again"
        )
    obstacles = {
        f"the BEFORE trigger {triggers}": triggers,
        f"the rule {rules}": rules,
        "a row-level security policy for this user": secured,
    }
    for obstacle, exists in obstacles.items():
        if exists:
            raise StoreError(
                f"{schema}.{name} has {obstacle}, which can silently skip or change rows: drop "
                "or disable it for this user, then run again"
            )


def _check_other_columns(cursor: Cursor, table: sa.Table, name: str) -> None:
    """Reject an additional column that must not be null and has no default."""
    cursor.execute(
        "SELECT min(attname) FROM pg_attribute WHERE attrelid = %s::regclass AND attnum > 0"
        " AND attnotnull AND NOT atthasdef AND attidentity = '' AND NOT attisdropped"
        " AND attname <> ALL(%s)",
        [name, [column.name for column in table.columns]],
    )
    (column,) = cursor.fetchone() or (None,)
    if column:
        raise StoreError(
            f"{table.fullname}.{column} is NOT NULL and no file has it: ALTER TABLE {name} ALTER "
            f"COLUMN {QUOTE(column)} DROP NOT NULL, or give it a default, then run again"
        )


def read_columns(cursor: Cursor, name: str) -> dict[str, str]:
    """Return the type of each column of a quoted table or view, in order; none without it.

    The type of a generated column is "a generated column".
    """
    cursor.execute(
        "SELECT attname, CASE WHEN attgenerated <> '' THEN 'a generated column'"
        " ELSE format_type(atttypid, atttypmod) END"
        " FROM pg_attribute WHERE attrelid = to_regclass(%s) AND attnum > 0 AND NOT attisdropped"
        " ORDER BY attnum",
        [name],
    )
    return dict(cursor.fetchall())


def _create_table(cursor: Cursor, table: sa.Table) -> None:
    schema = QUOTE(str(table.schema))

    def schema_is_missing() -> bool:
        cursor.execute("SELECT to_regnamespace(%s) IS NULL", [schema])
        return cursor.fetchone() == (True,)

    create_if_missing(cursor, schema_is_missing, f"CREATE SCHEMA {schema}")
    new = create_if_missing(
        cursor,
        lambda: find_relation_kind(cursor, table.schema, table.name) is None,
        compile_sql(CreateTable(table)),
    )
    if new:
        for comment in (SetTableComment(table), *map(SetColumnComment, table.columns)):
            cursor.execute(compile_sql(comment))


def create_if_missing(cursor: Cursor, is_missing: Callable[[], bool], statement: str) -> bool:
    """Run a CREATE unless another run does so at the same time; return whether we created it.

    IF NOT EXISTS is no solution: it fails beside a transaction that creates the same object, and is
    denied to a user who can fill a schema but not create one. Advisory locks are none either:
    anybody who can connect can hold one.
    """
    from psycopg import errors

    while is_missing():
        try:
            with cursor.connection.transaction():
                cursor.execute(statement)
        except (errors.UniqueViolation, errors.DuplicateSchema, errors.DuplicateTable):
            continue
        return True
    return False


def _add_new_columns(cursor: Cursor, table: sa.Table, new: Sequence[Column]) -> None:
    """Add new columns of the schema, null in all rows; no row is rewritten."""
    name = qualify_name(table.schema, table.name)
    for column in new:
        added = f"{QUOTE(column.name)} {column.postgres}"
        cursor.execute(f"ALTER TABLE {name} ADD COLUMN IF NOT EXISTS {added}")
        cursor.execute(compile_sql(SetColumnComment(table.columns[column.name])))


def find_relation_kind(cursor: Cursor, schema: str | None, name: str) -> str | None:
    """Return the kind (`pg_class.relkind`) of the relation with a name; None if there is none."""
    cursor.execute(
        "SELECT relkind FROM pg_class WHERE oid = to_regclass(%s)", [qualify_name(schema, name)]
    )
    row = cursor.fetchone()
    return row[0] if row else None


def compile_sql(statement: Any) -> str:
    """Compile a statement to text with quoted literals."""
    return str(statement.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True}))


def quote_literal(value: object) -> str:
    """Return a value as a quoted SQL literal."""
    return compile_sql(sa.literal(str(value), sa.String()))


def qualify_name(schema: str | None, name: str) -> str:
    """Return schema and table, quoted where needed."""
    return f"{QUOTE(str(schema))}.{QUOTE(name)}"
