"""BigQuery: one load job from the lake's URIs into staging, then day by day into the table.

A day and a chunk take the same path, and the data never passes through the worker. The module
`bigquery_replace` moves days from staging into the table without blocking runs of other months.
The load may begin while the run is still filling Postgres, because no reader sees staging.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from datetime import date
from threading import Thread
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.defs.io_managers.base import (
    LAST_WRITTEN,
    Records,
    StoreIOManager,
    Totals,
    describe_last_source,
)
from taxi_assets.defs.io_managers.bigquery_jobs import retry_briefly, sum_job_costs, warn_only
from taxi_assets.defs.io_managers.bigquery_replace import (
    Staged,
    build_days_condition,
    count_rows,
    replace_days,
    stage_days,
)
from taxi_assets.defs.io_managers.bigquery_staging import (
    Staging,
    drop_staging,
    end_interrupted_writes,
)
from taxi_assets.defs.io_managers.bigquery_table import (
    ensure_table_exists,
    quote_identifier,
    reject_expired_days,
)
from taxi_assets.defs.io_managers.partition_data import StoredTrips
from taxi_assets.defs.metadata.day_metadata import build_trips_metadata
from taxi_assets.defs.metadata.table_metadata import TABLE_NAME, TABLE_ROWS
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.errors import format_count
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.settings import Settings
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from google.cloud.bigquery import Client
    from google.cloud.bigquery.table import RowIterator


class BigQueryTripsIOManager(StoreIOManager[pa.Table]):
    """Replaces days of a day-partitioned table from Parquet objects of the lake."""

    def __init__(self, services: Mapping[str, Service], bigquery: BigQueryResource) -> None:
        super().__init__(services)
        self.bigquery = bigquery
        self._started: dict[str, Future[Staged]] = {}

    def start_staging(
        self, service: Service, days: LazyPartitions[StoredTrips | None], log: dg.DagsterLogManager
    ) -> None:
        """Load days of the lake into staging in a thread, for `store` of the same days.

        `store` raises the thread's errors. A run that ends before `store` leaves a staging table,
        as a killed run does.
        """
        started = self._started[service.name] = Future[Staged]()

        def work() -> None:
            try:
                objects = {day: trips for day, trips in days if trips}
                with self.bigquery.client() as client:
                    started.set_result(self._stage_days(client, service, objects, log))
            except BaseException as error:  # noqa: BLE001 - `store` raises it
                started.set_exception(error)

        Thread(target=work, name="staging", daemon=True).start()

    def store(
        self, service: Service, value: Mapping[date, StoredTrips], log: dg.DagsterLogManager
    ) -> Records:
        """Replace each day atomically; record the days that were written before a failure."""
        if not value:
            return
        target = self.describe_place(service)
        began = time.perf_counter()
        landed: list[date] = []
        failure: Exception | None = None
        started = self._started.pop(service.name, None)
        staged = started.result() if started else None
        with self.bigquery.client() as client:
            if staged is None or staged.rows != count_rows(value):
                staged = self._stage_days(client, service, value, log)
            staging = staged.staging
            try:
                landed.extend(replace_days(client, staged))
            except Exception as error:
                if not landed:
                    raise
                failure = error
            else:
                drop_staging(client, staging, log)
            rows = sum(value[day].rows for day in landed)
            log.info(
                f"{service.name}: {format_count(len(landed), 'day')}, {format_count(rows, 'row')} "
                f"in {target}"
            )
            counted = _describe_table(client, target, describe_last_source(value.values()), log)
            costs = sum_job_costs(client, staging.name, staging.created, log)
        # The days were loaded together: each gets an equal share.
        seconds = (time.perf_counter() - began) / len(value)
        shares = {name: round(cost / len(value)) for name, cost in costs.items()}
        for day in landed:
            where = f"{service.day_column} = '{day}'"
            metadata = {
                "query": f"SELECT * FROM `{target}` WHERE {where} LIMIT 20",  # noqa: S608 - to be copied
                TABLE_NAME: target,
                **self.bigquery.build_place_metadata(service.table),
                **counted,
                **shares,
                **build_trips_metadata(value[day], service, "gcs_trips", "bigquery", seconds),
            }
            yield day, PartitionRecord(metadata)
        if failure:
            raise failure

    def _stage_days(
        self,
        client: Client,
        service: Service,
        days: Mapping[date, StoredTrips],
        log: dg.DagsterLogManager,
    ) -> Staged:
        """Load the days into the kind of staging table that their replacement needs."""
        target, retention = self.describe_place(service), Settings.from_env().runs.temp_retention
        staging = Staging(target, service, tuple(days), retention, self.check_lock)
        table = ensure_table_exists(client, service, target, self.bigquery.settings)
        reject_expired_days(table, list(days))
        end_interrupted_writes(client, staging, log)
        return stage_days(client, staging, table, days)

    def read_partition(self, service: Service, day: date) -> pa.Table | None:
        """Read the rows of one day."""
        columns = ", ".join(quote_identifier(column.name) for column in service.columns)
        rows = self._select(service, columns, [day])
        if rows is None or not rows.schema:  # The emulator answers without a schema.
            return None
        return rows.to_arrow(create_bqstorage_client=False).cast(service.arrow_schema)

    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Read rows and sums of the days from the table; empty if it does not exist."""
        del log
        day = quote_identifier(service.day_column)
        total = f"SUM({quote_identifier(service.total)})" if service.total else "0"
        rows = self._select(service, f"{day}, COUNT(*), {total}", days, "GROUP BY 1")
        return {row[0]: (int(row[1]), float(row[2] or 0)) for row in rows or ()}

    def _select(
        self, service: Service, columns: str, days: Sequence[date], rest: str = ""
    ) -> RowIterator | None:
        """Query the days; None if the table does not exist."""
        from google.api_core.exceptions import NotFound

        table = quote_identifier(self.describe_place(service))
        condition = build_days_condition(service, days)
        query = f"SELECT {columns} FROM {table} WHERE {condition} {rest}"  # noqa: S608 - quoted names
        with suppress(NotFound), self.bigquery.client() as client:
            return client.query_and_wait(query)
        return None

    def describe_place(self, service: Service) -> str:
        """Return project, dataset and table."""
        return f"{self.bigquery.dataset}.{service.table}"


def _describe_table(
    client: Client, target: str, description: str, log: dg.DagsterLogManager
) -> dict[str, int]:
    """Set the table's description to the source of its last rows; return its row count.

    The table is fetched after the transaction and patched without its etag, which a concurrent
    transaction may have changed. Its metadata has the row count, at no cost and also if
    `require_partition_filter` prevents a count. A description that a person wrote stays.
    """
    from google.cloud import bigquery

    counted: dict[str, int] = {}
    with warn_only(log, f"the description of {target}"):
        table = client.get_table(target, retry=retry_briefly())
        counted[TABLE_ROWS] = int(table.num_rows or 0)
        if (table.description or LAST_WRITTEN).startswith(LAST_WRITTEN):
            patch = bigquery.Table(target)
            patch.description = description
            client.update_table(patch, ["description"], retry=retry_briefly())
    return counted
