"""The staging tables of a run in BigQuery: their load, their names and their removal.

A run loads the lake's objects into one staging table: for new days as they are, for stored days
into one that is partitioned like the target, directly where BigQuery can take the day from the
folder's name and otherwise through the first. `bigquery_replace` moves the rows into the target.

A job continues after its client has died, so the jobs of an interrupted run could write to the
target after another run of the same days has read it. A run that holds the lock of a month
therefore first drops the leftover staging tables of the month, which prevents new jobs, and waits
for the jobs that are running. The names of the tables are the prefixes of the ids of their jobs.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dagster as dg

from taxi_assets.defs.io_managers.bigquery_jobs import (
    PREFIX,
    retry_briefly,
    start_once,
    warn_only,
)
from taxi_assets.defs.io_managers.bigquery_table import build_table_schema, quote_identifier
from taxi_assets.defs.io_managers.partition_data import StoredTrips
from taxi_assets.defs.resources.lake_keys import build_hive_prefix, build_trips_key
from taxi_assets.errors import StoreError
from taxi_assets.settings.stores import LayoutName
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, Table

STAGING = "_staging_"
"""Prefix of the names of staging tables; the time of creation in seconds follows."""
NAME = re.compile(rf"({STAGING}(\d+)_(\w+)_(\d{{8}})_(\d{{8}})_[0-9a-f]{{8}})(_by_day)?")
FOR_EVER = timedelta(days=365 * 100)


@dataclass(frozen=True)
class Staging:
    """One write of days: its target, its staging tables, and the ids of its jobs."""

    target: str
    """Project, dataset and table."""
    service: Service
    days: tuple[date, ...]
    retention: timedelta
    """How long the tables stay if nothing drops them."""
    check_lock: Callable[[], None]
    """Raises if the run has lost the lock of its months."""
    created: int = field(default_factory=lambda: int(time.time()))
    suffix: str = field(default_factory=lambda: uuid4().hex[:8])

    @property
    def name(self) -> str:
        """`_staging_1767225600_green_20211001_20211031_0a1b2c3d`."""
        first, last = min(self.days), max(self.days)
        span = f"{first:%Y%m%d}_{last:%Y%m%d}"
        return f"{STAGING}{self.created}_{self.service.name}_{span}_{self.suffix}"

    @property
    def dataset(self) -> str:
        """Project and dataset."""
        return self.target.rpartition(".")[0]

    @property
    def table(self) -> str:
        """The rows as they are in the lake."""
        return f"{self.dataset}.{self.name}"

    @property
    def by_day(self) -> str:
        """The rows as they will be in the target, partition by partition."""
        return f"{self.table}_by_day"

    def job_id(self, suffix: str) -> str:
        """Return the id of a job without the common prefix."""
        return f"{self.name}_{suffix}"

    def start_write(self, client: Client, suffix: str, start: Callable[[str], Any]) -> Any:
        """Start a job that writes rows; check the lock of the months before each request.

        The job commits by itself, and a request is repeated for longer than a lease lasts.
        """
        from google.cloud.bigquery import DEFAULT_RETRY

        def check_and_start(job_id: str) -> Any:
            self.check_lock()
            return start(job_id)

        return start_once(client, self.job_id(suffix), DEFAULT_RETRY(check_and_start))

    def run_query(self, client: Client, suffix: str, sql: str) -> None:
        """Run a query that writes rows."""
        not_repeated: dict[str, Any] = {"retry": None, "job_retry": None}
        self.start_write(
            client, suffix, lambda job_id: client.query(sql, job_id=job_id, **not_repeated)
        ).result()


def load_staging(client: Client, staging: Staging, trips: Mapping[date, StoredTrips]) -> None:
    """Load the lake's objects into a staging table that expires by itself.

    Raises:
        StoreError: the number of loaded rows differs from that of the objects.
    """
    from google.cloud import bigquery

    table = bigquery.Table(staging.table, schema=build_table_schema(staging.service))
    _create(client, staging, table)
    _load(client, staging, staging.table, trips)


def fill_by_day(
    client: Client, staging: Staging, target: Table, trips: Mapping[date, StoredTrips]
) -> None:
    """Load the lake's objects into a staging table with the target's partitions.

    Raises:
        StoreError: the row count of a day differs from that of its object.
    """
    _create_like(client, staging, target)
    is_hive = all(
        stored.key == build_trips_key(staging.service, day, LayoutName.hive)
        for day, stored in trips.items()
    )
    if is_hive and _accepts_parquet(staging, target):
        prefix = build_hive_prefix(staging.service)
        _load(client, staging, staging.by_day, trips, prefix)
    else:
        load_staging(client, staging, trips)
        staging.run_query(client, "by_day", build_insert(staging, staging.by_day))
    _check_days(client, staging, trips)


def _check_days(client: Client, staging: Staging, trips: Mapping[date, StoredTrips]) -> None:
    """Compare the rows of each staged day with its object, before anything is replaced."""
    sql = f"SELECT {quote_identifier(staging.service.day_column)}, COUNT(*)"
    rows = client.query_and_wait(f"{sql} FROM {quote_identifier(staging.by_day)} GROUP BY 1")
    staged = {row[0]: row[1] for row in rows}
    expected = {day: stored.rows for day, stored in trips.items() if stored.rows}
    if staged != expected:
        days = sorted(map(str, {day for day, _ in staged.items() ^ expected.items()}))
        raise StoreError(
            f"{staging.by_day} has other rows than the lake of {', '.join(days)}:"
            f" {sum(staged.values())} in place of {sum(expected.values())}; nothing was replaced"
        )


def _load(
    client: Client,
    staging: Staging,
    table: str,
    trips: Mapping[date, StoredTrips],
    hive_prefix: str | None = None,
) -> None:
    """Load the objects; a prefix with `{column:DATE}` fills that column from the folders' names."""
    from google.cloud import bigquery

    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        schema=build_table_schema(staging.service),
        # Never: a request that arrives after the table was dropped must not create it again.
        create_disposition=bigquery.CreateDisposition.CREATE_NEVER,
        write_disposition=bigquery.WriteDisposition.WRITE_EMPTY,
    )
    lake = next(iter(trips.values())).lake
    if hive_prefix:
        hive = bigquery.HivePartitioningOptions()
        hive.mode, hive.source_uri_prefix = "CUSTOM", lake.uri(hive_prefix)
        config.hive_partitioning = hive
    # List each URI: files that match a wildcard must have the same column order. The limit of a
    # job is 10,000 URIs, which is 27 years of days.
    uris = [lake.uri(stored.key) for stored in trips.values()]
    job = start_once(
        client,
        staging.job_id("load"),
        lambda job_id: client.load_table_from_uri(uris, table, job_id=job_id, job_config=config),
    )
    job.result()
    rows, expected = int(job.output_rows or 0), sum(stored.rows for stored in trips.values())
    if rows != expected:
        raise StoreError(f"{rows} of {expected} rows arrived in {table}: nothing was replaced")


def _create(client: Client, staging: Staging, table: Table) -> None:
    table.expires = datetime.now(UTC) + staging.retention
    client.create_table(table, exists_ok=True)  # It exists if a response was lost.


def _create_like(client: Client, staging: Staging, target: Table) -> None:
    """Create the staging table with the target's columns, partitions and clustering.

    A copy job accepts a partition only from a table with the same definition.
    """
    from google.cloud import bigquery

    table = bigquery.Table(staging.by_day, schema=target.schema)
    table.time_partitioning = bigquery.TimePartitioning(
        type_=bigquery.TimePartitioningType.DAY,
        field=target.time_partitioning.field,
        # A dataset's default would remove old days at once.
        expiration_ms=int(FOR_EVER.total_seconds() * 1000),
    )
    table.clustering_fields = target.clustering_fields
    _create(client, staging, table)


def _accepts_parquet(staging: Staging, target: Table) -> bool:
    """Return whether a load can fill the target: it has our columns, and all may be null.

    A load job takes an optional column of a file for a NULLABLE column only.
    """
    names = {column.name for column in staging.service.columns} | {staging.service.day_column}
    is_nullable = all(field.mode == "NULLABLE" for field in target.schema)
    return is_nullable and {field.name for field in target.schema} == names


def build_insert(staging: Staging, table: str) -> str:
    """Return the INSERT of all staged rows into a table, each with its day."""
    service = staging.service
    columns = ", ".join(quote_identifier(column.name) for column in service.columns)
    day, pickup = quote_identifier(service.day_column), quote_identifier(service.pickup_column)
    return (
        f"INSERT INTO {quote_identifier(table)} ({columns}, {day})"  # noqa: S608 - quoted names
        f" SELECT {columns}, DATE({pickup}) FROM {quote_identifier(staging.table)}"
    )


def end_interrupted_writes(client: Client, staging: Staging, log: dg.DagsterLogManager) -> None:
    """Drop the staging tables that interrupted runs left of these days, and wait for their jobs.

    The caller must hold the lock of the month: any other run with a staging table of these days
    has died or lost the lock. Tables of other days are dropped once they are older than
    their retention: BigQuery removes them by itself, the emulator does not.
    """
    leftover: dict[str, datetime] = {}
    for table in client.list_tables(staging.dataset):
        match = NAME.fullmatch(table.table_id)
        if not match or match[1] == staging.name:
            continue
        created = datetime.fromtimestamp(int(match[2]), UTC)
        if _overlaps(staging, *match.group(3, 4, 5)):
            client.delete_table(table, not_found_ok=True)
            leftover[match[1]] = created
        elif datetime.now(UTC) - created > staging.retention:
            with warn_only(log, f"the removal of {table.table_id}"):
                client.delete_table(table, not_found_ok=True, retry=retry_briefly())
    if leftover:
        log.info(f"waiting for the jobs of interrupted writes: {', '.join(sorted(leftover))}")
        _wait_for_jobs(client, leftover)


def _overlaps(staging: Staging, service: str, first: str, last: str) -> bool:
    """Return whether the span of a staging table overlaps the span of this write."""
    span = [f"{day:%Y%m%d}" for day in staging.days]
    return service == staging.service.name and first <= max(span) and last >= min(span)


def _wait_for_jobs(client: Client, leftover: Mapping[str, datetime]) -> None:
    since = min(leftover.values()) - timedelta(hours=1)
    for state in ("pending", "running"):
        for job in client.list_jobs(state_filter=state, min_creation_time=since):
            if any(job.job_id.startswith(f"{PREFIX}{name}") for name in leftover):
                job.exception()


def drop_staging(client: Client, staging: Staging, log: dg.DagsterLogManager) -> None:
    """Drop the staging tables of a successful write."""
    with warn_only(log, f"the removal of {staging.table}, which expires by itself,"):
        for table in (staging.table, staging.by_day):
            client.delete_table(table, not_found_ok=True, retry=retry_briefly())
