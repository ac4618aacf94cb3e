"""Postgres: replace the days of a month in one transaction.

Days that are most of a month are replaced by a new partition, others by DELETE and binary COPY.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import sqlalchemy as sa

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.date_ranges import DateRange, group_days_by_month
from taxi_assets.defs.io_managers.base import Records, StoreIOManager, Totals, describe_last_source
from taxi_assets.defs.io_managers.partition_data import StoredTrips, add_missing_columns
from taxi_assets.defs.io_managers.postgres_copy import copy_rows_binary, read_query_as_arrow
from taxi_assets.defs.io_managers.postgres_parent import add_day_column, analyze_parent
from taxi_assets.defs.io_managers.postgres_partition import (
    Partition,
    attach_partition,
    build_days_condition,
    claim_partition,
    compact_partition,
    set_comment,
)
from taxi_assets.defs.io_managers.postgres_swap import (
    SWAP_SECONDS,
    Replacement,
    copy_other_days,
    create_replacement,
    swap,
)
from taxi_assets.defs.io_managers.postgres_table import (
    QUOTE,
    build_trips_table,
    ensure_table_exists,
    qualify_name,
)
from taxi_assets.defs.metadata.day_metadata import build_trips_metadata
from taxi_assets.defs.metadata.table_metadata import TABLE_NAME, URI
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.errors import (
    PartitionRejectedError,
    StoreError,
    concerns_one_day,
    format_count,
)
from taxi_assets.lazy_partitions import LazyPartitions, build_rejection
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from psycopg import Connection, Cursor


@dataclass(eq=False)
class PostgresTripsIOManager(StoreIOManager[pa.Table]):
    """Replaces the days of a month in one transaction, by a new partition or by DELETE and COPY."""

    postgres: PostgresResource

    def store(
        self, service: Service, value: Mapping[date, StoredTrips], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days; the accepted days of a month become visible together."""
        if not value:
            return
        table = build_trips_table(service, self.postgres.schema_name())
        for month, days in group_days_by_month(value).items():
            slices = {day: value[day] for day in days}
            rows = sum(trips.rows for trips in slices.values())
            counts = f"{format_count(len(days), 'day')}, {format_count(rows, 'row')}"
            summary = f"{service.name} {month}: {counts}"
            log.info(f"{summary}: writing to {table.fullname}")
            began = time.perf_counter()
            rejected = self._replace_months(Partition(table, service, month), slices, log)
            # The days were written together: each gets an equal share.
            seconds = (time.perf_counter() - began) / len(slices)
            for day, trips in slices.items():
                yield (
                    day,
                    rejected.get(day) or self._build_record(table, service, day, trips, seconds),
                )

    def _replace_months(
        self, partition: Partition, slices: Mapping[date, StoredTrips], log: dg.DagsterLogManager
    ) -> dict[date, PartitionRejectedError]:
        """Replace days together; if rows of one day cannot be stored, replace each day separately.

        Returns:
            The errors of the days that cannot be stored; their old rows stay in the table.
        """
        try:
            # A connection for each month: an error in the upkeep of one does not affect the next.
            with self.postgres.connect() as connection:
                with connection.cursor() as cursor:
                    ensure_table_exists(cursor, partition.table, partition.service)
                    add_day_column(cursor, partition, log)
                connection.commit()
                self._replace_month(connection, partition, slices, log)
                analyze_parent(connection, partition, log)
        except Exception as error:
            if not concerns_one_day(error):
                raise
            if len(slices) == 1:
                return dict.fromkeys(slices, build_rejection(error))
            log.warning(f"one of {len(slices)} days cannot be stored: storing each separately")
            rejected: dict[date, PartitionRejectedError] = {}
            for day, trips in slices.items():
                rejected |= self._replace_months(partition, {day: trips}, log)
            return rejected
        return {}

    def read_partition(self, service: Service, day: date) -> pa.Table | None:
        """Read the rows of one day."""
        columns = ", ".join(map(QUOTE, service.arrow_schema.names))
        query = self._build_query(columns, service, [day])
        with self._open_reading_cursor() as cursor:
            return read_query_as_arrow(cursor, query, service.arrow_schema)
        return None

    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Read rows and sums of the days from the table; empty if it does not exist."""
        del log
        total = f"sum({QUOTE(service.total)})" if service.total else "0"
        columns = f"{QUOTE(service.pickup_column)}::date, count(*), {total}"
        with self._open_reading_cursor() as cursor:
            # A month that was just loaded has no statistics: the planner expects 2,600 rows instead
            # of 1.2 million and sorts on disk (0.4 s); a hash of 31 sums takes 0.25 s.
            cursor.execute("SET LOCAL enable_sort = off")
            cursor.execute(f"{self._build_query(columns, service, days)} GROUP BY 1")
            return {row[0]: (int(row[1]), float(row[2] or 0)) for row in cursor.fetchall()}
        return {}

    def _build_query(self, columns: str, service: Service, days: Sequence[date]) -> str:
        table = qualify_name(self.postgres.schema_name(), service.table)
        return f"SELECT {columns} FROM {table} WHERE {build_days_condition(service, days)}"  # noqa: S608 - quoted

    @contextmanager
    def _open_reading_cursor(self) -> Iterator[Cursor]:
        """Open a cursor; the block ends without an error if the table does not exist."""
        from psycopg.errors import UndefinedTable

        with (
            suppress(UndefinedTable),
            self.postgres.connect() as connection,
            connection.cursor() as cursor,
        ):
            yield cursor

    def describe_place(self, service: Service) -> str:
        """Return schema and table."""
        return f"{self.postgres.schema_name()}.{service.table}"

    def _build_record(
        self, table: sa.Table, service: Service, day: date, trips: StoredTrips, seconds: float
    ) -> PartitionRecord:
        address = self.postgres.address()
        window = DateRange.of_day(day)
        pickup = service.pickup_column
        where = f"{pickup} >= '{window.start}' AND {pickup} < '{window.end}'"
        return PartitionRecord(
            {
                "query": f"SELECT * FROM {table.fullname} WHERE {where} LIMIT 20",  # noqa: S608 - to be copied
                TABLE_NAME: f"{address.rpartition('/')[2]}.{table.fullname}",
                # The embedded server gets a new port at each start.
                **({} if self.postgres.is_embedded() else {URI: f"postgresql://{address}"}),
                **build_trips_metadata(trips, service, "cleaned_trips", "postgres", seconds),
            }
        )

    def _replace_month(
        self,
        connection: Connection,
        partition: Partition,
        slices: Mapping[date, StoredTrips],
        log: dg.DagsterLogManager,
    ) -> None:
        """Replace days of one month in one transaction."""
        with connection.cursor() as cursor:
            if claim_partition(cursor, partition):
                _copy_frame(cursor, partition, partition.quoted, slices)
                set_comment(cursor, partition.quoted, describe_last_source(slices.values()), log)
                attach_partition(cursor, partition)
                self._commit(connection)
                return
            new = create_replacement(cursor, partition, list(slices))
            if new and self._fill_and_swap(connection, new, slices, log):
                return
            deleted = _delete_days(cursor, partition, list(slices))
            _copy_frame(cursor, partition, partition.quoted, slices)
            set_comment(cursor, partition.quoted, describe_last_source(slices.values()), log)
            self._commit(connection)
        compact_partition(connection, partition, deleted=deleted, log=log)

    def _fill_and_swap(
        self,
        connection: Connection,
        new: Replacement,
        slices: Mapping[date, StoredTrips],
        log: dg.DagsterLogManager,
    ) -> bool:
        """Fill the new table and swap it in; return False if readers prevent it."""
        with connection.cursor() as cursor:
            _copy_frame(cursor, new.partition, new.quoted, slices, freeze=True)
            copy_other_days(cursor, new, self.postgres.connect)
            set_comment(cursor, new.quoted, describe_last_source(slices.values()), log)
            if swap(connection, new):
                self._commit(connection)
                return True
            connection.rollback()
            log.info(
                f"{new.partition.table.fullname} has been read for {SWAP_SECONDS:g} s without a "
                "pause: its rows are deleted and inserted instead of swapped"
            )
            claim_partition(cursor, new.partition)
        return False

    def _commit(self, connection: Connection) -> None:
        self.check_lock()
        connection.commit()


def _delete_days(cursor: Cursor, partition: Partition, days: list[date]) -> int:
    """Delete exactly these days and return the number of deleted rows.

    The DELETE names the partition: a lock on the parent would block swaps of other months.
    """
    condition = build_days_condition(partition.service, days)
    cursor.execute(f"DELETE FROM {partition.quoted} WHERE {condition}")  # noqa: S608 - quoted
    return cursor.rowcount


def _copy_frame(
    cursor: Cursor,
    partition: Partition,
    into: str,
    slices: Mapping[date, StoredTrips],
    *,
    freeze: bool = False,
) -> None:
    """Copy all days in one binary stream; decode the next day while one is being sent."""
    schema = partition.service.arrow_schema
    days = LazyPartitions(list(slices), lambda day: slices[day].read_table())
    tables = (add_missing_columns(table, schema) for _, table in days)
    copied = copy_rows_binary(cursor, into, schema, tables, freeze=freeze)
    expected = sum(trips.rows for trips in slices.values())
    if days.rejected:
        raise next(iter(days.rejected.values()))
    if copied != expected:
        raise StoreError(
            f"{copied} of {expected} rows arrived in {partition.fullname}: rolled back"
        )
