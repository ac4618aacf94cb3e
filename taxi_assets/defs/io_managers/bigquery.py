"""BigQuery: one load job from the lake's URIs into staging, one transaction into the target.

One path for a day and for a chunk. It is atomic, keeps the data off the worker, and spends one
load job a run where a load per partition would meet the limit of 1,500 a table and day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dagster as dg
import pyarrow as pa

from taxi_assets.dagster_internals.partition_records import PartitionRecord
from taxi_assets.date_ranges import merge_into_date_ranges
from taxi_assets.defs.io_managers.base import (
    LAST_WRITTEN,
    Records,
    StoreIOManager,
    Totals,
    find_last_written,
)
from taxi_assets.defs.io_managers.bigquery_table import (
    build_table_schema,
    ensure_table_exists,
    quote_identifier,
    reject_expired_days,
)
from taxi_assets.defs.io_managers.partition_data import StoredTrips
from taxi_assets.defs.metadata.day_metadata import build_trips_metadata
from taxi_assets.defs.metadata.table_metadata import TABLE_NAME, TABLE_ROWS
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.errors import StoreError, UnavailableError, format_one_line
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from google.api_core.retry import Retry
    from google.cloud.bigquery import Client
    from google.cloud.bigquery.table import RowIterator

STAGING = "_staging_"
"""Prefix of staging tables; the second of their making follows."""
LABEL_SECONDS = 30
"""How long a call is repeated that the rows do not depend on."""


def is_in_days(service: Service, days: list[date]) -> str:
    """Condition for exactly these days; prunes to their partitions.

    Days are written as DATE literals: a script takes no query parameters in the emulator.
    """
    column = quote_identifier(service.day_column)
    return " OR ".join(
        f"({column} >= DATE '{window.start}' AND {column} < DATE '{window.end}')"
        for window in merge_into_date_ranges(days)
    )


class BigQueryTripsIOManager(StoreIOManager[pa.Table]):
    """Replaces days of a day-partitioned table from Parquet objects of the lake."""

    def __init__(self, services: Mapping[str, Service], bigquery: BigQueryResource) -> None:
        super().__init__(services)
        self.bigquery = bigquery

    def store(
        self, service: Service, value: Mapping[date, StoredTrips], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days, all together or not at all."""
        if not value:
            return
        target = f"{self.bigquery.dataset}.{service.table}"
        name = f"{STAGING}{int(time.time())}_{service.name}_{uuid4().hex[:8]}"
        staging = f"{self.bigquery.dataset}.{name}"
        began = time.perf_counter()
        with self.bigquery.client() as client:
            table = ensure_table_exists(client, service, target, self.bigquery.settings.location)
            reject_expired_days(table, list(value))
            try:
                expires = datetime.now(UTC) + self.bigquery.temp_retention
                rows = _load_staging(client, service, staging, list(value.values()), expires)
                script = _build_replacement(service, target, staging, list(value))
                _replace_days(client, target, staging, script, self.check_lock)
            finally:
                _drop_staging(client, staging, self.bigquery.temp_retention, log)
            log.info(f"{service.name}: {len(value)} days, {rows:,} rows in {target}")
            counted = _describe_table(client, target, find_last_written(value.values()), log)
        # They landed together: an equal share each.
        seconds = (time.perf_counter() - began) / len(value)
        for day, trips in value.items():
            where = f"{service.day_column} = '{day}'"
            metadata = {
                "query": f"SELECT * FROM `{target}` WHERE {where} LIMIT 20",  # noqa: S608 - to be copied
                TABLE_NAME: target,
                **self.bigquery.place(service.table),
                **counted,
                **build_trips_metadata(trips, service, "gcs_trips", "bigquery", seconds),
            }
            yield day, PartitionRecord(metadata)

    def read_partition(self, service: Service, day: date) -> pa.Table | None:
        """The day's rows."""
        columns = ", ".join(quote_identifier(column.name) for column in service.columns)
        rows = self._select(service, columns, [day])
        if rows is None:
            return None
        return rows.to_arrow(create_bqstorage_client=False).cast(service.arrow_schema)

    def read_totals(
        self, service: Service, days: Sequence[date], log: dg.DagsterLogManager
    ) -> Totals:
        """Rows and sums of the days, as the table has them; none without a table."""
        del log
        day = quote_identifier(service.day_column)
        total = f"SUM({quote_identifier(service.total)})" if service.total else "0"
        rows = self._select(service, f"{day}, COUNT(*), {total}", days, "GROUP BY 1")
        return {row[0]: (int(row[1]), float(row[2] or 0)) for row in rows or ()}

    def _select(
        self, service: Service, what: str, days: Sequence[date], rest: str = ""
    ) -> RowIterator | None:
        """Query the days; None without a table."""
        from google.api_core.exceptions import NotFound  # noqa: PLC0415 - heavy at import

        table = quote_identifier(f"{self.bigquery.dataset}.{service.table}")
        query = f"SELECT {what} FROM {table} WHERE {is_in_days(service, list(days))} {rest}"  # noqa: S608 - composed of quoted names
        with suppress(NotFound), self.bigquery.client() as client:
            return client.query(query).result()
        return None

    def place(self, service: Service) -> str:
        """Project, dataset and table."""
        return f"{self.bigquery.dataset}.{service.table}"


def _load_staging(
    client: Client,
    service: Service,
    staging: str,
    slices: list[StoredTrips],
    expires: datetime,
) -> int:
    """Load the objects into a staging table that expires by itself; returns its rows."""
    from google.cloud import bigquery  # noqa: PLC0415 - heavy at import

    lake = slices[0].lake
    schema = build_table_schema(service)
    if lake.layout == "hive":
        # The emulator fills the column from the folder's name and fails where the table lacks it;
        # BigQuery leaves it null.
        schema.append(bigquery.SchemaField(service.day_column, "DATE"))
    table = bigquery.Table(staging, schema=schema)
    table.expires = expires
    client.create_table(table, exists_ok=True)  # ours even so: the answer was lost
    config = bigquery.LoadJobConfig(
        source_format=bigquery.SourceFormat.PARQUET,
        schema=schema,
        write_disposition=bigquery.WriteDisposition.WRITE_EMPTY,
    )
    # Every URI by name: files matched by a wildcard must not even differ in column order. A job
    # takes 10,000, which are 27 years of days.
    uris = [lake.uri(trips.key) for trips in slices]
    job = _run_job_once(
        client,
        f"{staging.rpartition('.')[2]}_load",
        lambda job_id: client.load_table_from_uri(uris, staging, job_id=job_id, job_config=config),
    )
    job.result()
    rows = int(job.output_rows or 0)
    expected = sum(trips.rows for trips in slices)
    if rows != expected:
        raise StoreError(f"{rows} of {expected} rows arrived in {staging}: nothing was replaced")
    return rows


def _build_replacement(service: Service, target: str, staging: str, days: list[date]) -> str:
    """Return the script that swaps the days' rows in one transaction."""
    columns = ", ".join(quote_identifier(column.name) for column in service.columns)
    day, pickup = quote_identifier(service.day_column), quote_identifier(service.pickup_column)
    into, source = quote_identifier(target), quote_identifier(staging)
    return (
        "BEGIN TRANSACTION;\n"  # noqa: S608 - quoted names
        f"DELETE FROM {into} WHERE {is_in_days(service, days)};\n"
        f"INSERT INTO {into} ({columns}, {day}) SELECT {columns}, DATE({pickup}) FROM {source};\n"
        "COMMIT TRANSACTION;"
    )


def _replace_days(
    client: Client, target: str, staging: str, script: str, check_lock: Callable[[], None]
) -> None:
    """Run the script of `_replacement`.

    The lock is checked before each request: the job commits by itself, and its request is repeated
    for longer than a lease runs.

    Raises:
        UnavailableError: another transaction on the table won.
    """
    from google.api_core.exceptions import BadRequest  # noqa: PLC0415 - heavy at import
    from google.cloud.bigquery import DEFAULT_RETRY  # noqa: PLC0415

    at_once: dict[str, Any] = {"retry": None, "job_retry": None}

    def start(job_id: str) -> Any:
        check_lock()
        return client.query(script, job_id=job_id, **at_once)

    job = _run_job_once(client, f"{staging.rpartition('.')[2]}_replace", DEFAULT_RETRY(start))
    try:
        job.result()
    except BadRequest as error:
        if "concurrent update" not in str(error):
            raise
        raise UnavailableError(
            f"{target} was written by somebody else at the same time: BigQuery rolled back"
        ) from error


@contextmanager
def _label_table(log: dg.DagsterLogManager, what: str) -> Iterator[None]:
    """Log whatever goes wrong as a warning: the rows are where they belong without it."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - any error of a server, a client or a proxy
        log.warning(f"{what} failed, the rows are not concerned: {format_one_line(error)}")


def _describe_table(
    client: Client, target: str, words: str, log: dg.DagsterLogManager
) -> dict[str, int]:
    """Note in the table where its last rows came from; returns how many rows it has.

    The table is fetched after the transaction, and patched without its etag, which the next
    transaction of somebody else may have changed by now. BigQuery gives the count with it, at no
    cost and also where `require_partition_filter` forbids to count. A person's own description
    stays.
    """
    from google.cloud import bigquery  # noqa: PLC0415 - heavy at import

    counted: dict[str, int] = {}
    with _label_table(log, f"the description of {target}"):
        found = client.get_table(target, retry=_retry_briefly())
        counted[TABLE_ROWS] = int(found.num_rows or 0)
        if (found.description or LAST_WRITTEN).startswith(LAST_WRITTEN):
            patch = bigquery.Table(target)
            patch.description = words
            client.update_table(patch, ["description"], retry=_retry_briefly())
    return counted


def _drop_staging(client: Client, staging: str, keep: timedelta, log: dg.DagsterLogManager) -> None:
    """Drop this run's staging table, and those that killed runs left."""
    with _label_table(log, f"the removal of {staging}, which expires by itself,"):
        client.delete_table(staging, not_found_ok=True, retry=_retry_briefly())
    dataset = staging.rpartition(".")[0]
    with _label_table(log, f"the removal of old staging tables of {dataset}"):
        _sweep_staging(client, dataset, keep)


def _sweep_staging(client: Client, dataset: str, keep: timedelta) -> None:
    """Drop staging tables past their life, as BigQuery does by itself and the emulator does not."""
    for table in client.list_tables(dataset, retry=_retry_briefly()):
        made = table.table_id.removeprefix(STAGING).partition("_")[0]
        if table.table_id.startswith(STAGING) and made.isdecimal():
            age = timedelta(seconds=time.time() - int(made))
            if age > keep:
                client.delete_table(table, not_found_ok=True, retry=_retry_briefly())


def _retry_briefly() -> Retry:
    """Repeat a call that is not worth ten minutes, which is how long Google's client goes on."""
    from google.cloud.bigquery import DEFAULT_RETRY  # noqa: PLC0415 - heavy at import

    return DEFAULT_RETRY.with_timeout(LABEL_SECONDS)


def _run_job_once(client: Client, job_id: str, start: Callable[[str], Any]) -> Any:
    """Start a job under an id of its own; if it was accepted and the answer lost, pick it up.

    An answer that is no JSON is lost too: a proxy's page, or half of Google's.
    """
    from google.api_core.exceptions import Conflict, NotFound  # noqa: PLC0415 - heavy at import
    from google.cloud.bigquery import DEFAULT_RETRY  # noqa: PLC0415
    from requests import JSONDecodeError  # noqa: PLC0415

    job_id = f"taxi{job_id}"
    try:
        return start(job_id)
    except (Conflict, JSONDecodeError):
        # For a while the id is taken and the job not found (googleapis/python-bigquery 2134).
        missing = DEFAULT_RETRY.with_predicate(lambda error: isinstance(error, NotFound))
        return missing(client.get_job)(job_id)
