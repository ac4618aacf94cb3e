"""Create BigQuery's tables, and verify tables that exist.

A table that somebody else created keeps its description, labels, policy tags, clustering,
`require_partition_filter` and additional columns. A table that would lose rows, or on which a write
would fail halfway, is rejected before anything is written; the message has the fix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING

from taxi_assets.errors import StoreError
from taxi_assets.settings.stores import BigQuerySettings
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from google.cloud.bigquery import Client, SchemaField, Table


def build_table_schema(service: Service) -> list[SchemaField]:
    """Return the service's columns as BigQuery fields, without the DATE column."""
    from google.cloud import bigquery

    return [
        bigquery.SchemaField(column.name, column.bigquery, description=column.meaning)
        for column in service.columns
    ]


def quote_identifier(name: str) -> str:
    """Return a name in backticks.

    Raises:
        StoreError: the name contains a backtick or a backslash.
    """
    if "`" in name or "\\" in name:
        raise StoreError(f"{name!r} is not a valid BigQuery name")
    return f"`{name}`"


def ensure_table_exists(
    client: Client, service: Service, target: str, settings: BigQuerySettings
) -> Table:
    """Create dataset and table if they do not exist; return the table.

    Raises:
        StoreError: the table exists, and its days cannot be replaced.
    """
    from google.api_core.exceptions import NotFound

    try:
        table = client.get_table(target)
    except NotFound:
        _ensure_dataset(client, target.rpartition(".")[0], settings.location)
        return _create_table(client, service, target, settings)
    for problem in (
        _find_wrong_kind(table, service),
        _find_wrong_location(table.location, settings.location),
        *_find_wrong_columns(table, service),
    ):
        if problem:
            raise StoreError(f"{target}{problem}, then run again")
    # BigQuery does not distinguish upper and lower case in them.
    names = {field.name.casefold() for field in table.schema}
    new = [field for field in build_table_schema(service) if field.name not in names]
    return _add_new_columns(client, target, new) if new else table


def reject_expired_days(table: Table, days: Sequence[date]) -> None:
    """Reject days whose partitions BigQuery would remove right after the write.

    Raises:
        StoreError: a day is older than the partition expiration of the table.
    """
    partitioning = table.time_partitioning
    if not partitioning or not partitioning.expiration_ms:
        return
    expiration = timedelta(milliseconds=int(partitioning.expiration_ms))
    # The age of a partition counts from midnight UTC.
    lost = [
        day for day in days if datetime.now(UTC) - datetime.combine(day, time(), UTC) > expiration
    ]
    if lost:
        raise StoreError(
            f"{table.full_table_id} removes partitions after {expiration.days} days, so {min(lost)}"
            f" to {max(lost)} would be removed at once: ALTER TABLE"
            f" `{table.dataset_id}.{table.table_id}` SET OPTIONS"
            " (partition_expiration_days = NULL), then run again (a sandbox without "
            "billing removes everything after 60 days)"
        )


def _ensure_dataset(client: Client, name: str, location: str) -> None:
    """Create the dataset if it does not exist.

    It is fetched first: an account that can edit it may lack the permission to create one.
    """
    from google.api_core.exceptions import NotFound
    from google.cloud import bigquery

    try:
        dataset = client.get_dataset(name)
    except NotFound:
        new = bigquery.Dataset(name)
        new.location = location
        client.create_dataset(new, exists_ok=True)
        return
    problem = _find_wrong_location(dataset.location, location)
    if problem:
        raise StoreError(f"{name}{problem}, then run again")


def _create_table(
    client: Client, service: Service, target: str, settings: BigQuerySettings
) -> Table:
    from google.cloud import bigquery

    schema = [*build_table_schema(service), bigquery.SchemaField(service.day_column, "DATE")]
    table = bigquery.Table(target, schema=schema)
    table.time_partitioning = bigquery.TimePartitioning(
        type_=bigquery.TimePartitioningType.DAY, field=service.day_column
    )
    names = [column.name for column in service.columns]
    if unknown := [name for name in settings.cluster_by if name not in names]:
        raise StoreError(
            f"BIGQUERY_CLUSTER_BY names {', '.join(unknown)}, which {service.name} does not have: "
            f"its columns are {', '.join(names)}"
        )
    zone = service.find_role("pickup_zone")
    table.clustering_fields = list(settings.cluster_by) or ([zone] if zone else None)
    table.require_partition_filter = settings.require_partition_filter or None
    table.labels = settings.labels
    if settings.partition_expiration_days is not None:
        days = timedelta(days=settings.partition_expiration_days)
        table.time_partitioning.expiration_ms = int(days.total_seconds() * 1000)
    return client.create_table(table, exists_ok=True)


def _find_wrong_kind(table: Table, service: Service) -> str:
    """Describe a wrong type or wrong partitions; empty if both are right."""
    rename = f"ALTER TABLE {quote_identifier(table.table_id)} RENAME TO another name"
    if table.table_type not in (None, "TABLE"):
        return f" is a {table.table_type} and must be a TABLE: drop it, or give it another name"
    by, day = table.time_partitioning, service.day_column
    if by and by.type_ == "DAY" and (by.field or "").casefold() == day:
        return ""
    if table.range_partitioning:
        how = f"partitioned by ranges of {table.range_partitioning.field}"
    elif by:
        how = f"partitioned by {by.type_} on {by.field or 'the time of ingestion'}"
    else:
        how = "not partitioned"
    return f" is {how} and must be partitioned by DAY on {day}: drop it, or {rename}"


def _find_wrong_location(actual: str | None, location: str) -> str:
    """Describe a wrong region; jobs run in BIGQUERY_LOCATION and see only its tables."""
    if not actual or actual.casefold() == location.casefold():
        return ""
    return f" is in {actual} and BIGQUERY_LOCATION is {location}: set BIGQUERY_LOCATION={actual}"


def _find_wrong_columns(table: Table, service: Service) -> Iterator[str]:
    """Describe each column that is wrong."""
    from google.cloud import bigquery

    columns = {field.name.casefold(): field for field in table.schema}
    # These columns are never null; the others can be.
    never_null = (service.pickup_column, service.day_column)
    for field in [*build_table_schema(service), bigquery.SchemaField(service.day_column, "DATE")]:
        column = columns.pop(field.name, None)
        if column is None:
            if field.name in never_null:
                yield f".{field.name} does not exist and must be {field.field_type}: drop the table"
            continue
        kind = _normalize_type(column.field_type)
        if column.mode == "REPEATED" or kind != _normalize_type(field.field_type):
            kind = f"ARRAY<{kind}>" if column.mode == "REPEATED" else kind
            yield f".{field.name} is {kind} and must be {field.field_type}: alter or drop the table"
        elif column.mode == "REQUIRED" and field.name not in never_null:
            yield f".{field.name} is REQUIRED and its value can be missing: {_relax_columns(field)}"
    for field in columns.values():
        if field.mode == "REQUIRED" and not field.default_value_expression:
            yield f".{field.name} is REQUIRED and no file has it: {_relax_columns(field)}"


def _relax_columns(field: SchemaField) -> str:
    return f"run ALTER TABLE ... ALTER COLUMN {quote_identifier(field.name)} DROP NOT NULL"


def _add_new_columns(client: Client, target: str, new: list[SchemaField]) -> Table:
    """Add new columns of the schema, null in all rows; no row is rewritten.

    By SQL: a PATCH of the schema removes policy tags that it omits, and needs the permission to
    read those that it includes (googleapis/python-bigquery 981).
    """
    for field in new:
        description = (field.description or "").replace("\\", "\\\\").replace("'", "\\'")
        client.query(
            f"ALTER TABLE {quote_identifier(target)} "
            f"ADD COLUMN IF NOT EXISTS {quote_identifier(field.name)} "
            f"{field.field_type} OPTIONS (description = '{description}')"
        ).result()
    return client.get_table(target)


def _normalize_type(name: str) -> str:
    """Return the standard spelling of a type that has two."""
    return {"INTEGER": "INT64", "FLOAT": "FLOAT64"}.get(name, name)
