"""Replace the partition of a month in Postgres: fill a new table, then swap it in.

This module decides whether a rewrite fills a new table instead of deleting rows, copies the
properties of the old partition, and swaps. `postgres` deletes and inserts; `postgres_partition`
creates and attaches partitions.

A DELETE takes as long as a COPY, and its dead rows must be vacuumed; a new table takes as long as a
first load. Readers see the old table until the commit and then the new one. The new rows are frozen
(`COPY ... FREEZE`): a transaction with a snapshot older than the commit sees them instead of an
empty month. `INSERT ... SELECT` cannot freeze rows, so COPY also moves the days that the run does
not cover.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from taxi_assets.defs.io_managers.postgres_partition import (
    Partition,
    build_days_condition,
    create_pickup_index,
    find_partition_index,
)
from taxi_assets.defs.io_managers.postgres_table import QUOTE, qualify_name

if TYPE_CHECKING:
    from psycopg import Connection, Cursor

SWAP_SECONDS = 10.0
"""Time limit for the swap while readers use the table; after it the rows are deleted instead."""
LOCK_TIMEOUT = "200ms"
"""Time limit of one attempt; later readers wait for as long."""
BLOCK_BYTES = 1 << 18
"""Block size for rows of the old partition; single rows take three times as long."""
PAUSE_SECONDS = 0.3
"""Pause between two attempts, in which readers continue."""

# Whether a table has only what the loader creates: owner, privileges, options and dependents equal
# those of a table created LIKE it. A swap would lose indexes, constraints, views, policies,
# statistics and publications that a person added, and triggers would not fire. Dependents are
# compared by kind and column.
IS_PLAIN = """
WITH tables AS (SELECT %(old)s::regclass AS old, %(new)s::regclass AS new, %(parent)s::regclass
                AS parent),
dependents AS (
    SELECT d.refobjid AS oid, d.classid, d.deptype, a.attname
    FROM tables t JOIN pg_depend d ON d.refclassid = 'pg_class'::regclass
        AND d.refobjid IN (t.old, t.new)
    LEFT JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
        AND d.refobjsubid > 0
    WHERE NOT (d.classid = 'pg_class'::regclass AND d.objid = %(index)s::oid)),
columns AS (
    SELECT a.attrelid AS oid, a.attname, a.atttypid, a.attnotnull, a.atthasdef, a.attgenerated,
        a.attidentity, a.attstorage, a.attcollation, a.attacl::text, a.attoptions
    FROM tables t JOIN pg_attribute a ON a.attrelid IN (t.old, t.new)
    WHERE a.attnum > 0 AND NOT a.attisdropped)
SELECT o.relowner = n.relowner AND pg_has_role(p.relowner, 'USAGE')
    AND ARRAY(SELECT unnest(coalesce(o.relacl, acldefault('r', o.relowner)))::text ORDER BY 1)
      = ARRAY(SELECT unnest(coalesce(n.relacl, acldefault('r', n.relowner)))::text ORDER BY 1)
    AND (o.reloptions, o.reltablespace, o.relam, o.relreplident,
         o.relrowsecurity, o.relforcerowsecurity)
    IS NOT DISTINCT FROM (n.reloptions, n.reltablespace, n.relam, n.relreplident,
         n.relrowsecurity, n.relforcerowsecurity)
    AND NOT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = t.old AND NOT tgisinternal)
    AND NOT EXISTS (SELECT FROM pg_seclabel WHERE objoid = t.old)
    AND NOT EXISTS (SELECT FROM pg_publication_tables b JOIN pg_namespace s
        ON s.nspname = b.schemaname WHERE (s.oid, b.tablename) IN
            ((o.relnamespace, o.relname), (p.relnamespace, p.relname)))
    AND NOT EXISTS (
        (SELECT classid, deptype, attname FROM dependents WHERE oid = t.old EXCEPT ALL
         SELECT classid, deptype, attname FROM dependents WHERE oid = t.new)
        UNION ALL
        (SELECT classid, deptype, attname FROM dependents WHERE oid = t.new EXCEPT ALL
         SELECT classid, deptype, attname FROM dependents WHERE oid = t.old))
    AND NOT EXISTS (
        SELECT FROM columns a FULL JOIN columns b ON b.attname = a.attname AND b.oid = t.new
        WHERE a.oid = t.old AND to_jsonb(a) - 'oid' IS DISTINCT FROM to_jsonb(b) - 'oid')
FROM tables t JOIN pg_class o ON o.oid = t.old JOIN pg_class n ON n.oid = t.new
    JOIN pg_class p ON p.oid = t.parent
"""
LIKE = (
    "INCLUDING COMMENTS INCLUDING CONSTRAINTS INCLUDING DEFAULTS INCLUDING GENERATED"
    " INCLUDING IDENTITY INCLUDING STORAGE"
)


@dataclass(frozen=True)
class Replacement:
    """A new table that will replace the partition of a month."""

    partition: Partition
    name: str
    days: tuple[date, ...]
    """Days of the run; other days of the month are copied from the old partition."""

    @property
    def quoted(self) -> str:
        """Schema and name, for SQL."""
        return qualify_name(self.partition.table.schema, self.name)

    @property
    def index(self) -> str:
        """Name of the index on the pickup until the swap."""
        return f"{self.name}_pickup"

    @property
    def condition(self) -> str:
        """The SQL condition for the days of the run."""
        return build_days_condition(self.partition.service, self.days)

    @property
    def is_whole_month(self) -> bool:
        """Whether the run covers every day of the month."""
        return set(self.partition.month.window) <= set(self.days)


def create_replacement(
    cursor: Cursor, partition: Partition, days: Sequence[date]
) -> Replacement | None:
    """Create a table to fill, if replacing the partition is cheaper than deleting the days.

    The table is created LIKE the old partition: LIKE the parent would lock the parent until the
    end of the transaction and block swaps of other months.

    Returns:
        None if the run covers too little of the month, the new table would lose a property of the
        partition, or another session writes to it.
    """
    import psycopg

    new = Replacement(partition, f"{partition.name}_{uuid4().hex[:8]}", tuple(days))
    if not _covers_most(cursor, new):
        return None
    try:
        with cursor.connection.transaction():
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            # A row that another session writes now would be lost with the old table.
            cursor.execute(f"LOCK TABLE {partition.quoted} IN SHARE ROW EXCLUSIVE MODE")
            cursor.execute(f"CREATE TABLE {new.quoted} (LIKE {partition.quoted} {LIKE})")
            names = {
                "old": partition.quoted,
                "new": new.quoted,
                "parent": partition.parent,
                "index": find_partition_index(cursor, partition),
            }
            cursor.execute(IS_PLAIN, names)
            if cursor.fetchone() != (True,):
                raise psycopg.Rollback
            cursor.execute("SET LOCAL lock_timeout = DEFAULT")
            return new
    except (psycopg.errors.LockNotAvailable, psycopg.errors.InsufficientPrivilege):
        pass
    return None


def copy_other_days(
    cursor: Cursor, new: Replacement, connect: Callable[[], AbstractContextManager[Any]]
) -> None:
    """Copy the days that the run does not cover from the old partition, frozen.

    The bytes go unchanged from one connection to the other.
    """
    if new.is_whole_month:
        return
    cursor.execute(
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
        [new.quoted],
    )
    (columns,) = cursor.fetchone() or ("",)
    old = f"SELECT {columns} FROM {new.partition.quoted} WHERE NOT ({new.condition})"  # noqa: S608 - quoted
    statement = f"COPY {new.quoted} ({columns}) FROM STDIN (FORMAT binary, FREEZE)"
    with connect() as reading, reading.cursor() as source:
        with (
            source.copy(f"COPY ({old}) TO STDOUT (FORMAT binary)") as rows,
            cursor.copy(statement) as copy,
        ):
            waiting = bytearray()
            for row in rows:
                waiting += row
                if len(waiting) > BLOCK_BYTES:
                    copy.write(waiting)
                    waiting.clear()
            copy.write(waiting)
        reading.commit()


def swap(connection: Connection, new: Replacement) -> bool:
    """Replace the partition by the filled table; return False if readers prevent it.

    Readers wait for milliseconds, until the commit: a constraint verifies before the lock that all
    rows are in the month.
    """
    from psycopg import errors

    deadline = time.monotonic() + SWAP_SECONDS
    partition, pickup = new.partition, QUOTE(new.partition.service.pickup_column)
    first, last = partition.bounds
    with connection.cursor() as cursor:
        create_pickup_index(cursor, QUOTE(new.index), new.quoted, partition.service)
        cursor.execute(
            f"ALTER TABLE {new.quoted} ADD CONSTRAINT its_month CHECK ({pickup} IS NOT NULL"
            f" AND {pickup} >= '{first}'::timestamp AND {pickup} < '{last}'::timestamp)"
        )
        while True:
            try:
                with connection.transaction():
                    cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
                    _exchange(cursor, new)
            except (errors.LockNotAvailable, errors.DeadlockDetected):
                if time.monotonic() > deadline:
                    return False
                time.sleep(PAUSE_SECONDS)
            else:
                return True


def _exchange(cursor: Cursor, new: Replacement) -> None:
    partition = new.partition
    schema, name = partition.table.schema, QUOTE(partition.name)
    index = find_partition_index(cursor, partition)
    cursor.execute("SELECT relname FROM pg_class WHERE oid = %s", [index])
    (index_name,) = cursor.fetchone() or (f"{partition.name}_pickup",)
    new_index = qualify_name(schema, new.index)
    for statement in (
        # ONLY: the other months are being filled.
        f"LOCK TABLE ONLY {partition.parent} IN ACCESS EXCLUSIVE MODE",
        f"ALTER TABLE {partition.parent} DETACH PARTITION {partition.quoted}",
        f"DROP TABLE {partition.quoted}",
        f"ALTER TABLE {partition.parent} ATTACH PARTITION {new.quoted} {partition.values}",
        f"ALTER TABLE {new.quoted} DROP CONSTRAINT its_month",
        f"ALTER TABLE {new.quoted} RENAME TO {name}",
        f"ALTER INDEX {new_index} RENAME TO {QUOTE(index_name)}",
    ):
        cursor.execute(statement)


def _covers_most(cursor: Cursor, new: Replacement) -> bool:
    """Return whether the run covers most of the stored rows.

    The count uses the index on the pickup and stops when the answer is certain.
    """
    table = new.partition.quoted
    if new.is_whole_month:
        cursor.execute(f"SELECT EXISTS (SELECT FROM {table})")  # noqa: S608 - quoted
        return cursor.fetchone() == (True,)
    cursor.execute(f"SELECT count(*) FROM {table} WHERE {new.condition}")  # noqa: S608 - quoted
    (covered,) = cursor.fetchone() or (0,)
    cursor.execute(
        f"SELECT count(*) FROM (SELECT FROM {table} WHERE NOT ({new.condition})"  # noqa: S608
        f" LIMIT {int(covered)}) AS other"
    )
    (remaining,) = cursor.fetchone() or (0,)
    return int(covered) > int(remaining)
