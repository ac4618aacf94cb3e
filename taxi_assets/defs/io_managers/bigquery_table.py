"""BigQuery's tables: how one is made, and which one that is already there is accepted.

A table of somebody else's making is used as it is: description, labels, policy tags, clustering,
`require_partition_filter`, columns of its own. What would lose rows, or be found out only after
rows were written, is rejected before anything is written, with the fix.
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
    """Return the service's columns as BigQuery has them, without the DATE column."""
    from google.cloud import bigquery  # noqa: PLC0415 - heavy at import

    return [
        bigquery.SchemaField(column.name, column.bigquery, description=column.meaning)
        for column in service.columns
    ]


def quote_identifier(name: str) -> str:
    """Return a name in backticks.

    Raises:
        StoreError: the name has a backtick or backslash in it.
    """
    if "`" in name or "\\" in name:
        raise StoreError(f"{name!r} can be no BigQuery name")
    return f"`{name}`"


def ensure_table_exists(
    client: Client, service: Service, target: str, settings: BigQuerySettings
) -> Table:
    """Make dataset and table if they do not exist; return the table.

    Raises:
        StoreError: there is a table, and days cannot be replaced in it.
    """
    from google.api_core.exceptions import NotFound  # noqa: PLC0415 - heavy at import

    try:
        found = client.get_table(target)
    except NotFound:
        _ensure_dataset(client, target.rpartition(".")[0], settings.location)
        return _create_table(client, service, target, settings)
    for problem in (
        _find_wrong_kind(found, service),
        _find_wrong_location(found.location, settings.location),
        *_find_wrong_columns(found, service),
    ):
        if problem:
            raise StoreError(f"{target}{problem}, then run again")
    # BigQuery does not distinguish upper and lower case in them.
    names = {field.name.casefold() for field in found.schema}
    new = [field for field in build_table_schema(service) if field.name not in names]
    return _add_new_columns(client, target, new) if new else found


def reject_expired_days(table: Table, days: Sequence[date]) -> None:
    """Reject days whose partitions BigQuery would remove as soon as they are written.

    Raises:
        StoreError: the table's partition expiration is shorter than a day is old.
    """
    partitioning = table.time_partitioning
    if not partitioning or not partitioning.expiration_ms:
        return
    kept = timedelta(milliseconds=int(partitioning.expiration_ms))
    # Midnight, UTC: a partition's age is counted from there.
    lost = [day for day in days if datetime.now(UTC) - datetime.combine(day, time(), UTC) > kept]
    if lost:
        raise StoreError(
            f"{table.full_table_id} removes partitions after {kept.days} days, so {min(lost)} to "
            f"{max(lost)} would be gone at once: ALTER TABLE `{table.dataset_id}.{table.table_id}` "
            "SET OPTIONS (partition_expiration_days = NULL), then run again (a sandbox without "
            "billing keeps nothing longer than 60 days)"
        )


def _ensure_dataset(client: Client, name: str, location: str) -> None:
    """Make the dataset if it does not exist.

    It is fetched first: an account that may edit it may not be allowed to make one.
    """
    from google.api_core.exceptions import NotFound  # noqa: PLC0415 - heavy at import
    from google.cloud import bigquery  # noqa: PLC0415

    try:
        found = client.get_dataset(name)
    except NotFound:
        dataset = bigquery.Dataset(name)
        dataset.location = location
        client.create_dataset(dataset, exists_ok=True)
        return
    problem = _find_wrong_location(found.location, location)
    if problem:
        raise StoreError(f"{name}{problem}, then run again")


def _create_table(
    client: Client, service: Service, target: str, settings: BigQuerySettings
) -> Table:
    from google.cloud import bigquery  # noqa: PLC0415 - heavy at import

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


def _find_wrong_kind(found: Table, service: Service) -> str:
    """Return what is wrong with its type or its partitions; empty if nothing is."""
    rename = f"ALTER TABLE {quote_identifier(found.table_id)} RENAME TO another name"
    if found.table_type not in (None, "TABLE"):
        return f" is a {found.table_type} and must be a TABLE: drop it, or give it another name"
    by, day = found.time_partitioning, service.day_column
    if by and by.type_ == "DAY" and (by.field or "").casefold() == day:
        return ""
    if found.range_partitioning:
        how = f"partitioned by ranges of {found.range_partitioning.field}"
    elif by:
        how = f"partitioned by {by.type_} on {by.field or 'the time of ingestion'}"
    else:
        how = "not partitioned"
    return f" is {how} and must be partitioned by DAY on {day}: drop it, or {rename}"


def _find_wrong_location(found: str | None, location: str) -> str:
    """Return what is wrong with the region; jobs run in BIGQUERY_LOCATION and find nothing else."""
    if not found or found.casefold() == location.casefold():
        return ""
    return f" is in {found} and BIGQUERY_LOCATION is {location}: set BIGQUERY_LOCATION={found}"


def _find_wrong_columns(found: Table, service: Service) -> Iterator[str]:
    """Yield what is wrong with each column."""
    from google.cloud import bigquery  # noqa: PLC0415 - heavy at import

    columns = {field.name.casefold(): field for field in found.schema}
    # In these no row has a null; in the others one may.
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
            yield f".{field.name} is REQUIRED and a row may have none: {_relax_columns(field)}"
    for field in columns.values():
        if field.mode == "REQUIRED" and not field.default_value_expression:
            yield f".{field.name} is REQUIRED and no file has it: {_relax_columns(field)}"


def _relax_columns(field: SchemaField) -> str:
    return f"run ALTER TABLE ... ALTER COLUMN {quote_identifier(field.name)} DROP NOT NULL"


def _add_new_columns(client: Client, target: str, new: list[SchemaField]) -> Table:
    """Add columns that the schema got since, null in all rows: no row is rewritten.

    By SQL, and not by a PATCH of the schema: that one removes the policy tags which it leaves out,
    and wants the right to see them for those that it has (googleapis/python-bigquery 981).
    """
    for field in new:
        words = (field.description or "").replace("\\", "\\\\").replace("'", "\\'")
        client.query(
            f"ALTER TABLE {quote_identifier(target)} "
            f"ADD COLUMN IF NOT EXISTS {quote_identifier(field.name)} "
            f"{field.field_type} OPTIONS (description = '{words}')"
        ).result()
    return client.get_table(target)


def _normalize_type(name: str) -> str:
    """Return one spelling of the types that have two."""
    return {"INTEGER": "INT64", "FLOAT": "FLOAT64"}.get(name, name)
