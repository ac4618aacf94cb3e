"""Create, claim, attach, index and vacuum the partition of a month in Postgres.

Partitions are months: the delete of a day prunes to its month, a first load fills a table that no
reader sees and then attaches it, and sixteen years are 200 partitions instead of 6,000. A BRIN
index on the pickup time finds the day within a month; a B-tree would take a third more load time.
Dead rows are vacuumed at once, and the next rewrite reuses their space. A rewrite of most of a
month deletes nothing (`postgres_swap`).

No reader sees the rows of a detached table, and each rewrite would add to them. A partition is
therefore used only if it is attached to our table for exactly its month.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import sqlalchemy as sa

from taxi_assets.date_ranges import Month, merge_into_date_ranges
from taxi_assets.defs.io_managers.postgres_table import (
    KINDS,
    QUOTE,
    check_table_writable,
    create_if_missing,
    find_relation_kind,
    qualify_name,
    quote_literal,
)
from taxi_assets.errors import StoreError, UnavailableError, format_one_line
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    import dagster as dg
    from psycopg import Connection, Cursor

BOUNDS = re.compile(r"FOR VALUES FROM \('?(.*?)'?\) TO \('?(.*?)'?\)")
OPEN_ENDS = {"MINVALUE": "", "-infinity": "", "MAXVALUE": "~", "infinity": "~"}
"""Ends of a range that sort before and after every date."""
LIKE = "INCLUDING COMMENTS INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED"
"""What a new partition has of its parent before it is attached. Rows that are copied into it would
not have the default of a user's own column, and a missing constraint would prevent attaching."""


@dataclass(frozen=True)
class Partition:
    """The partition of one month of a table."""

    table: sa.Table
    service: Service
    month: Month

    @property
    def name(self) -> str:
        """`green_cab_data_2021_10`."""
        return f"{self.service.table}_{self.month.year:04d}_{self.month.month:02d}"

    @property
    def fullname(self) -> str:
        """Schema and name, for messages."""
        return f"{self.table.schema}.{self.name}"

    @property
    def quoted(self) -> str:
        """Schema and name, for SQL."""
        return qualify_name(self.table.schema, self.name)

    @property
    def parent(self) -> str:
        """Schema and name of the parent table, for SQL."""
        return qualify_name(self.table.schema, self.table.name)

    @property
    def bounds(self) -> tuple[str, str]:
        """First midnight of the month and of the next month."""
        window = self.month.window
        return f"{window.start} 00:00:00", f"{window.end} 00:00:00"

    @property
    def values(self) -> str:
        """The bounds in SQL, in the format of Postgres with DateStyle ISO."""
        return "FOR VALUES FROM ('{}') TO ('{}')".format(*self.bounds)


def build_days_condition(service: Service, days: Iterable[date]) -> str:
    """Build the SQL condition that a pickup is in one of these days; false without any."""
    pickup = QUOTE(service.pickup_column)
    conditions = [
        f"{pickup} >= '{window.start}'::timestamp AND {pickup} < '{window.end}'::timestamp"
        for window in merge_into_date_ranges(days)
    ]
    return " OR ".join(conditions) or "false"


def claim_partition(cursor: Cursor, partition: Partition) -> bool:
    """Lock the month against other writers until the transaction ends; return whether it is new.

    A new partition is a separate table that nobody sees until it is attached; created in this
    transaction, it needs no WAL if `wal_level` is minimal. The lock is a table lock of Postgres,
    which a read-only role cannot take and which does not block readers.

    Raises:
        StoreError: another object has the name, or another partition covers the month.
    """
    schema, name = partition.table.schema, partition.name

    def is_missing() -> bool:
        return find_relation_kind(cursor, schema, name) is None

    if is_missing():
        _check_month_is_free(cursor, partition)
    create = f"CREATE TABLE {partition.quoted} (LIKE {partition.parent} {LIKE})"
    if create_if_missing(cursor, is_missing, create):
        return True
    _check_relation_kind(cursor, partition)
    cursor.execute(f"LOCK TABLE {partition.quoted} IN SHARE UPDATE EXCLUSIVE MODE")
    _check_attached(cursor, partition)
    check_table_writable(cursor, schema, name)
    if find_partition_index(cursor, partition) is None:
        _create_index(cursor, partition)
    return False


def attach_partition(cursor: Cursor, partition: Partition) -> None:
    """Index a filled table and make it the month's partition.

    Creating an index after the COPY takes 0.2 s for a month; summarizing an existing one takes 1 s.
    """
    _create_index(cursor, partition)
    cursor.execute(
        f"ALTER TABLE {partition.parent} ATTACH PARTITION {partition.quoted} {partition.values}"
    )


def _check_relation_kind(cursor: Cursor, partition: Partition) -> None:
    kind = find_relation_kind(cursor, partition.table.schema, partition.name)
    if kind != "r":
        raise StoreError(
            f"{partition.fullname} is {KINDS.get(str(kind), kind)} and must be a table, the "
            f"partition of {partition.month}: rename or drop it, then run again"
        )


def _check_attached(cursor: Cursor, partition: Partition) -> None:
    cursor.execute(
        "SELECT i.inhparent::regclass::text, i.inhparent = %s::regclass,"
        # The column is new in PostgreSQL 14.
        " pg_get_expr(c.relpartbound, c.oid), to_jsonb(i) ->> 'inhdetachpending' = 'true'"
        " FROM pg_class c LEFT JOIN pg_inherits i ON i.inhrelid = c.oid WHERE c.oid = %s::regclass",
        [partition.parent, partition.quoted],
    )
    parent, ours, values, leaving = cursor.fetchone() or (None, False, None, False)
    if leaving:
        raise StoreError(
            f"{partition.fullname} is half detached from {parent} (DETACH CONCURRENTLY that did "
            f"not end), so that no reader would see its rows: ALTER TABLE {parent} DETACH PARTITION"
            f" {partition.quoted} FINALIZE, attach it again, then run again"
        )
    if parent is None:
        raise StoreError(
            f"{partition.fullname} is not attached to {partition.table.fullname} (detached by "
            f"hand?), so that no reader would see its rows: ALTER TABLE {partition.parent} ATTACH "
            f"PARTITION {partition.quoted} {partition.values}, or rename it, then run again"
        )
    if not ours or values != partition.values:
        raise StoreError(
            f"{partition.fullname} is a partition of {parent} {values} and must be one of "
            f"{partition.table.fullname} {partition.values}: rename or detach it, then run again"
        )


def _check_month_is_free(cursor: Cursor, partition: Partition) -> None:
    """Reject a month that other partitions cover, before sending its rows."""
    cursor.execute(
        "SELECT n.nspname, c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits i"
        " JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE i.inhparent = %s::regclass",
        [partition.parent],
    )
    first, last = partition.bounds
    for schema, name, values in cursor.fetchall():
        match = BOUNDS.fullmatch(values)
        if match:
            start, end = (OPEN_ENDS.get(bound, bound) for bound in match.groups())
            if start < last and end > first:
                raise StoreError(
                    f"{schema}.{name}, a partition of {partition.table.fullname} {values}, covers "
                    f"{partition.month}: rename it to {partition.name} if it holds that month "
                    "alone, or detach it, then run again"
                )
        elif values == "DEFAULT":
            _check_default(cursor, partition, schema, name)


def _check_default(cursor: Cursor, partition: Partition, schema: str, name: str) -> None:
    pickup = QUOTE(partition.service.pickup_column)
    cursor.execute(
        f"SELECT count(*) FROM {qualify_name(schema, name)}"  # noqa: S608 - quoted
        f" WHERE {pickup} >= %s::timestamp AND {pickup} < %s::timestamp",
        partition.bounds,
    )
    (rows,) = cursor.fetchone() or (0,)
    if rows:
        raise StoreError(
            f"{schema}.{name}, the default partition of {partition.table.fullname}, holds {rows:,} "
            f"rows of {partition.month}: delete them or detach it, then run again (the month gets "
            f"the partition {partition.name})"
        )


def find_partition_index(cursor: Cursor, partition: Partition) -> int | None:
    """Return the id of the partition's BRIN index on the pickup time, with any name."""
    cursor.execute(
        "SELECT x.indexrelid::bigint FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid"
        " JOIN pg_am m ON m.oid = c.relam JOIN pg_attribute a"
        " ON a.attrelid = x.indrelid AND a.attnum = x.indkey[0]"
        " WHERE x.indrelid = %s::regclass AND m.amname = 'brin' AND x.indisvalid"
        " AND x.indpred IS NULL AND a.attname = %s",
        [partition.quoted, partition.service.pickup_column],
    )
    row = cursor.fetchone()
    return int(row[0]) if row else None


def _create_index(cursor: Cursor, partition: Partition) -> None:
    name = f"{partition.name}_pickup"
    # Postgres chooses another name if this one is in use.
    index = QUOTE(name) if find_relation_kind(cursor, partition.table.schema, name) is None else ""
    create_pickup_index(cursor, index, partition.quoted, partition.service)


def create_pickup_index(cursor: Cursor, name: str, table: str, service: Service) -> None:
    """Create the BRIN index on the pickup time; Postgres chooses the name if `name` is empty."""
    cursor.execute(
        f"CREATE INDEX {name} ON {table}"
        f" USING brin ({QUOTE(service.pickup_column)}) WITH (pages_per_range = 16)"
    )


def set_comment(cursor: Cursor, partition: str, text: str, log: dg.DagsterLogManager) -> None:
    """Set the comment of a partition (quoted for SQL); a warning if the user is not its owner."""
    from psycopg import errors

    try:
        with cursor.connection.transaction():
            cursor.execute(f"COMMENT ON TABLE {partition} IS {quote_literal(text)}")
    except errors.InsufficientPrivilege as error:
        log.warning(f"{partition} keeps its old comment: {format_one_line(error)}")


def compact_partition(
    connection: Connection, partition: Partition, *, deleted: int, log: dg.DagsterLogManager
) -> None:
    """Summarize the index after the commit, and reclaim the space of dead rows.

    The rows are committed, so an error here is a warning.
    """
    import psycopg

    # Postgres skips the VACUUM of a table with another owner and sends a notice.
    connection.add_notice_handler(
        lambda notice: log.warning(f"{partition.fullname}: {notice.message_primary}")
    )
    try:
        connection.autocommit = True
        with connection.cursor() as cursor:
            if not deleted:
                index = find_partition_index(cursor, partition)
                cursor.execute("SELECT brin_summarize_new_values(%s::regclass)", [index])
            else:
                cursor.execute(f"VACUUM (ANALYZE) {partition.quoted}")
    except (psycopg.Error, UnavailableError) as error:
        log.warning(
            f"{partition.fullname} has its rows, but VACUUM or its index failed "
            f"({type(error).__name__}: {format_one_line(error)}): the next rewrite tries again"
        )
