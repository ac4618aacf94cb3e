"""Optional work on a parent table in Postgres: its DATE column and its statistics.

It serves readers of the table and never fails a load. Columns and rows are in `postgres_table.py`,
partitions in `postgres_partition.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_assets.defs.io_managers.postgres_partition import Partition
from taxi_assets.defs.io_managers.postgres_table import (
    QUOTE,
    find_relation_kind,
    qualify_name,
    quote_literal,
    read_columns,
)
from taxi_assets.errors import UnavailableError, format_one_line

if TYPE_CHECKING:
    import dagster as dg
    from psycopg import Connection, Cursor

VIRTUAL_SINCE = 180000
"""First version of Postgres that computes a generated column when it is read."""
ONLY_SINCE = 180000
"""First version whose ANALYZE can skip the partitions (ONLY)."""
COUNTED_SINCE = 140000
"""First version whose ANALYZE records the number of rows of a partitioned table."""
LOCK_TIMEOUT = "200ms"
"""Limit for a lock that makes readers wait for optional work."""
SAMPLE = 10
"""`default_statistics_target`: 3,000 sampled rows take 0.02 s of processor time, 30,000 take 0.4 s
and loading a month 1.4 s."""
GROWTH = 2
"""The table is analyzed again when its rows have grown by this factor: eight times in a load of 200
months."""


def add_day_column(cursor: Cursor, partition: Partition, log: dg.DagsterLogManager) -> None:
    """Add the DATE column of the other stores as a virtual column, if the server supports it.

    An older server gets a view beside the table, named `<service>_tripdata`. A stored column would
    take 17 % more processor time and 5 % more space, and rewrite an existing table. An existing
    column, table or view of that name stays as it is.
    """
    import psycopg

    service, parent = partition.service, partition.parent
    columns = list(read_columns(cursor, parent))
    if service.day_column in columns:
        return
    if cursor.connection.info.server_version >= VIRTUAL_SINCE:
        statements = _build_column(partition)
    else:
        statements = _build_view(cursor, partition, columns)
    try:
        with cursor.connection.transaction():
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            for statement in statements:
                cursor.execute(statement)
            cursor.execute("SET LOCAL lock_timeout = DEFAULT")
    except psycopg.Error as error:
        log.info(
            f"{partition.table.fullname} has no column {service.day_column} yet, the next run "
            f"tries again: {format_one_line(error)}"
        )


def _build_column(partition: Partition) -> list[str]:
    service, parent = partition.service, partition.parent
    day, pickup = QUOTE(service.day_column), QUOTE(service.pickup_column)
    comment = quote_literal(f"Day of {service.pickup_column}, computed when it is read")
    return [
        f"ALTER TABLE {parent} ADD COLUMN {day} date GENERATED ALWAYS AS ({pickup}::date) VIRTUAL",
        f"COMMENT ON COLUMN {parent}.{day} IS {comment}",
    ]


def _build_view(cursor: Cursor, partition: Partition, columns: list[str]) -> list[str]:
    """Build the view if it does not exist, or if the table has new columns since.

    The day comes first, because a view can be replaced only by one with more columns at its end.
    """
    service, schema = partition.service, partition.table.schema
    name = f"{service.name}_tripdata"
    view = qualify_name(schema, name)
    kind, actual = find_relation_kind(cursor, schema, name), list(read_columns(cursor, view))
    expected = [service.day_column, *columns]
    if kind is not None and (kind != "v" or actual != expected[: len(actual)]):
        return []
    if actual == expected:
        return []
    day, pickup = QUOTE(service.day_column), QUOTE(service.pickup_column)
    comment = quote_literal(f"{partition.table.fullname} with the day of {service.pickup_column}")
    select = f"SELECT {pickup}::date AS {day}, * FROM {partition.parent}"  # noqa: S608 - quoted names
    return [
        f"CREATE OR REPLACE VIEW {view} AS {select}",
        f"COMMENT ON VIEW {view} IS {comment}",
    ]


def analyze_parent(connection: Connection, partition: Partition, log: dg.DagsterLogManager) -> None:
    """Analyze the parent table if its rows have doubled since the last time.

    The planner uses its statistics for queries over several months, and autovacuum never analyzes a
    parent. The rows are committed, so every error here, a lost connection included, is only logged.
    """
    import psycopg

    try:
        version = connection.info.server_version
        if version < COUNTED_SINCE:
            return
        # Rows that were added to a month since its last VACUUM are estimated by pages, as the
        # planner does: `reltuples` alone has them once autovacuum has been there.
        only = "ONLY " if version >= ONLY_SINCE else ""
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(
                "SELECT sum(greatest(c.reltuples, 0) * greatest(1, pg_relation_size(c.oid)"
                " / current_setting('block_size')::float / greatest(c.relpages, 1)))"
                " >= %s * greatest(min(p.reltuples), 1)"
                " FROM pg_class p JOIN pg_inherits i ON i.inhparent = p.oid"
                " JOIN pg_class c ON c.oid = i.inhrelid WHERE p.oid = %s::regclass",
                [GROWTH, partition.parent],
            )
            if cursor.fetchone() != (True,):
                return
            # A run that holds the lock analyzes the table itself or attaches a month.
            cursor.execute(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'")
            cursor.execute(f"SET LOCAL default_statistics_target = {SAMPLE}")
            cursor.execute(f"ANALYZE {only}{partition.parent}")
    except (psycopg.Error, UnavailableError) as error:
        log.info(f"{partition.table.fullname} keeps its old statistics: {format_one_line(error)}")
