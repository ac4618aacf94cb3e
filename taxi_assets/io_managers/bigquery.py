"""BigQuery: one load job from the lake's URIs into staging, one transaction into the target.

One path for a day and for a chunk. It is atomic, keeps the data off the worker, and spends one
load job a run where a load per partition would meet the limit of 1,500 a table and day.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import dagster as dg
import pandas as pd

from taxi_assets.errors import StoreError, UnavailableError
from taxi_assets.io_managers.base import DaysIOManager, Records, last_written, trips_metadata
from taxi_assets.record import DayRecord
from taxi_assets.resources.bigquery import BigQueryResource
from taxi_assets.services import Service
from taxi_assets.slices import TripsSlice
from taxi_assets.table_metadata import TABLE_NAME, TABLE_ROWS, URI
from taxi_assets.trips.clean import to_frame
from taxi_assets.windows import tile

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, SchemaField, Table

STAGING = "_staging_"
"""Prefix of staging tables; the second of their making follows."""


def schema_of(service: Service) -> list[SchemaField]:
    """The service's columns as BigQuery has them, without the DATE column."""
    from google.cloud import bigquery  # noqa: PLC0415 - heavy at import

    return [
        bigquery.SchemaField(column.name, column.bigquery, description=column.meaning)
        for column in service.columns
    ]


def identifier(name: str) -> str:
    """A name in backticks.

    Raises:
        StoreError: the name has a backtick or backslash in it.
    """
    if "`" in name or "\\" in name:
        raise StoreError(f"{name!r} can be no BigQuery name")
    return f"`{name}`"


def in_days(service: Service, days: list[date]) -> str:
    """Condition for exactly these days; prunes to their partitions.

    Days are written as DATE literals: a script takes no query parameters in the emulator.
    """
    column = identifier(service.day_column)
    return " OR ".join(
        f"({column} >= DATE '{window.start}' AND {column} < DATE '{window.end}')"
        for window in tile(days)
    )


class BigQueryIOManager(DaysIOManager[Mapping[date, TripsSlice], pd.DataFrame]):
    """Replaces days of a day-partitioned table from Parquet objects of the lake."""

    def __init__(self, services: Mapping[str, Service], bigquery: BigQueryResource) -> None:
        super().__init__(services)
        self.bigquery = bigquery

    def store(
        self, service: Service, value: Mapping[date, TripsSlice], log: dg.DagsterLogManager
    ) -> Records:
        """Replace the days, all together or not at all."""
        if not value:
            return
        target = f"{self.bigquery.dataset}.{service.table}"
        name = f"{STAGING}{int(time.time())}_{service.name}_{uuid4().hex[:8]}"
        staging = f"{self.bigquery.dataset}.{name}"
        began = time.perf_counter()
        with self.bigquery.client() as client:
            table = _ensure_table(client, service, target, self.bigquery)
            try:
                expires = datetime.now(UTC) + self.bigquery.keep_temporary
                rows = _load(client, service, staging, list(value.values()), expires)
                _replace(client, service, target, staging, list(value))
                table.description = last_written(value.values())
                client.update_table(table, ["description"])
                counted = _count(client, target)
            finally:
                client.delete_table(staging, not_found_ok=True)
                _sweep(client, self.bigquery.dataset, self.bigquery.keep_temporary)
        log.info(f"{service.name}: {len(value)} days, {rows:,} rows in {target}")
        # They landed together: an equal share each.
        seconds = (time.perf_counter() - began) / len(value)
        for day, trips in value.items():
            metadata = {
                TABLE_NAME: target,
                URI: dg.MetadataValue.url(self.bigquery.page(service.table)),
                TABLE_ROWS: counted,
                **trips_metadata(trips, service, "gcs_trips", "bigquery", seconds),
            }
            yield day, DayRecord(metadata)

    def open_day(self, service: Service, day: date) -> pd.DataFrame | None:
        """The day's rows as a frame."""
        columns = ", ".join(identifier(column.name) for column in service.columns)
        table = identifier(f"{self.bigquery.dataset}.{service.table}")
        with self.bigquery.client() as client:
            job = client.query(f"SELECT {columns} FROM {table} WHERE {in_days(service, [day])}")  # noqa: S608 - composed of quoted names
            rows = job.result().to_arrow(create_bqstorage_client=False)
        return to_frame(rows.cast(service.arrow_schema))

    def place(self, service: Service) -> str:
        """Project, dataset and table."""
        return f"{self.bigquery.dataset}.{service.table}"


def _ensure_dataset(client: Client, resource: BigQueryResource) -> None:
    """Make the dataset where it lacks; asked for first, since who may edit it may not make one."""
    from google.api_core.exceptions import NotFound  # noqa: PLC0415 - heavy at import
    from google.cloud import bigquery  # noqa: PLC0415

    try:
        client.get_dataset(resource.dataset)
    except NotFound:
        dataset = bigquery.Dataset(resource.dataset)
        dataset.location = resource.settings.location
        client.create_dataset(dataset, exists_ok=True)


def _ensure_table(
    client: Client, service: Service, target: str, resource: BigQueryResource
) -> Table:
    """Make dataset and table where they lack; refuse a table of other types."""
    from google.api_core.exceptions import NotFound  # noqa: PLC0415 - heavy at import
    from google.cloud import bigquery  # noqa: PLC0415

    schema = [*schema_of(service), bigquery.SchemaField(service.day_column, "DATE")]
    try:
        found = client.get_table(target)
    except NotFound:
        _ensure_dataset(client, resource)
        table = bigquery.Table(target, schema=schema)
        table.time_partitioning = bigquery.TimePartitioning(
            type_=bigquery.TimePartitioningType.DAY, field=service.day_column
        )
        if "pulocationid" in service.arrow_schema.names:
            table.clustering_fields = ["pulocationid"]
        return client.create_table(table, exists_ok=True)
    types = {field.name: _type(field.field_type) for field in found.schema}
    new = [
        field
        for field in schema_of(service)
        if field.name not in types and field.name != service.pickup_column
    ]
    for field in schema:
        if field not in new and types.get(field.name) != _type(field.field_type):
            raise StoreError(
                f"{target}.{field.name} is {types.get(field.name, 'missing')} and must be "
                f"{field.field_type}: alter or drop the table, then run again"
            )
    return _grow(client, target, new) if new else found


def _grow(client: Client, target: str, new: list[SchemaField]) -> Table:
    """Add columns that the schema got since, null in all rows: no row is rewritten."""
    added = ", ".join(
        f"ADD COLUMN IF NOT EXISTS {identifier(field.name)} {field.field_type}" for field in new
    )
    client.query(f"ALTER TABLE {identifier(target)} {added}").result()
    found = client.get_table(target)
    # Their descriptions; and the emulator lists them only since.
    names = {field.name for field in new}
    found.schema = [*(field for field in found.schema if field.name not in names), *new]
    return client.update_table(found, ["schema"])


def _type(name: str) -> str:
    """One spelling of the types that have two."""
    return {"INTEGER": "INT64", "FLOAT": "FLOAT64"}.get(name, name)


def _load(
    client: Client,
    service: Service,
    staging: str,
    slices: list[TripsSlice],
    expires: datetime,
) -> int:
    """Load the objects into a staging table that expires by itself; returns its rows."""
    from google.cloud import bigquery  # noqa: PLC0415 - heavy at import

    lake = slices[0].lake
    schema = schema_of(service)
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
    job = _once(
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


def _replace(client: Client, service: Service, target: str, staging: str, days: list[date]) -> None:
    """Swap the days' rows in one transaction.

    Raises:
        UnavailableError: another transaction on the table won.
    """
    from google.api_core.exceptions import BadRequest  # noqa: PLC0415 - heavy at import

    columns = ", ".join(identifier(column.name) for column in service.columns)
    day, pickup = identifier(service.day_column), identifier(service.pickup_column)
    into, source = identifier(target), identifier(staging)
    script = (
        "BEGIN TRANSACTION;\n"  # noqa: S608 - quoted names
        f"DELETE FROM {into} WHERE {in_days(service, days)};\n"
        f"INSERT INTO {into} ({columns}, {day}) SELECT {columns}, DATE({pickup}) FROM {source};\n"
        "COMMIT TRANSACTION;"
    )
    job_id = f"{staging.rpartition('.')[2]}_replace"
    job = _once(client, job_id, lambda job_id: client.query(script, job_id=job_id, job_retry=None))
    try:
        job.result()
    except BadRequest as error:
        if "concurrent update" not in str(error):
            raise
        raise UnavailableError(
            f"{target} was written by somebody else at the same time: BigQuery rolled back"
        ) from error


def _count(client: Client, target: str) -> int:
    """Rows of the whole table; BigQuery knows them without reading any, at no cost."""
    rows: list[Any] = list(client.query(f"SELECT COUNT(*) FROM {identifier(target)}").result())  # noqa: S608 - quoted name
    return int(rows[0][0])


def _sweep(client: Client, dataset: str, keep: timedelta) -> None:
    """Drop staging tables past their life, as BigQuery does by itself and the emulator does not."""
    for table in client.list_tables(dataset):
        made = table.table_id.removeprefix(STAGING).partition("_")[0]
        if table.table_id.startswith(STAGING) and made.isdecimal():
            age = timedelta(seconds=time.time() - int(made))
            if age > keep:
                client.delete_table(table, not_found_ok=True)


def _once(client: Client, job_id: str, start: Callable[[str], Any]) -> Any:
    """Start a job under an id of its own; if it was accepted and the answer lost, pick it up."""
    from google.api_core.exceptions import Conflict, NotFound  # noqa: PLC0415 - heavy at import
    from google.cloud.bigquery import DEFAULT_RETRY  # noqa: PLC0415

    job_id = f"taxi{job_id}"
    try:
        return start(job_id)
    except Conflict:
        # For a while the id is taken and the job not found (googleapis/python-bigquery 2134).
        missing = DEFAULT_RETRY.with_predicate(lambda error: isinstance(error, NotFound))
        return missing(client.get_job)(job_id)


def read_back(
    client: Client, service: Service, dataset: str, days: list[date]
) -> dict[date, tuple[int, float]]:
    """Rows and sum of `total_amount` (dollars) of each day, as the table has them."""
    day, table = identifier(service.day_column), identifier(f"{dataset}.{service.table}")
    total = f"SUM({identifier(service.total)})" if service.total else "0"
    job = client.query(
        f"SELECT {day}, COUNT(*), {total} FROM {table}"  # noqa: S608 - quoted names
        f" WHERE {in_days(service, days)} GROUP BY 1"
    )
    rows: list[Any] = list(job.result())
    return {row[0]: (int(row[1]), float(row[2] or 0)) for row in rows}
