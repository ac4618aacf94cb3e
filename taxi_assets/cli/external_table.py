"""The command `taxi-assets external-table`: a BigQuery table over the objects of the lake."""

from __future__ import annotations

from typing import TYPE_CHECKING

from taxi_assets.cli.spans import UsageError
from taxi_assets.defs.io_managers.bigquery_table import build_table_schema
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.lake_keys import build_hive_prefix
from taxi_assets.settings import Settings
from taxi_assets.settings.stores import LakeSettings, LayoutName
from taxi_assets.tlc.schema import Service

if TYPE_CHECKING:
    from google.cloud.bigquery import Table


def create_external_table(service: Service, *, require_filter: bool) -> str:
    """Create, or replace, `<table>_lake` over the service's objects; return its name.

    Raises:
        UsageError: the lake is no bucket, or has no folders of days.
    """
    lake, bigquery = Settings.from_env().lake, BigQueryResource()
    table = build_external_table(service, lake, bigquery.dataset, require_filter=require_filter)
    with bigquery.client() as client:
        client.delete_table(table, not_found_ok=True)
        return str(client.create_table(table).full_table_id or table.reference)


def build_external_table(
    service: Service, lake: LakeSettings, dataset: str, *, require_filter: bool
) -> Table:
    """Describe a table over the hive folders of a bucket; the folder's name is the DATE column.

    Raises:
        UsageError: the lake is no bucket, or has no folders of days.
    """
    from google.cloud import bigquery

    if lake.path is not None:
        raise UsageError(
            f"the lake is a folder of this machine, {lake.path}, which BigQuery cannot read: "
            "set TAXI_LAKE to gs://<bucket>, or GCS_BUCKET"
        )
    if lake.lake_layout != LayoutName.hive:
        raise UsageError(
            f"TAXI_LAKE_LAYOUT={lake.lake_layout} has no folders that BigQuery reads as "
            "partitions: load the days with TAXI_LAKE_LAYOUT=hive"
        )
    prefix = f"gs://{lake.bucket}/{service.name}"
    external = bigquery.ExternalConfig(bigquery.ExternalSourceFormat.PARQUET)
    external.source_uris = [f"{prefix}/*"]
    hive = bigquery.HivePartitioningOptions()
    hive.mode = "CUSTOM"
    hive.source_uri_prefix = f"gs://{lake.bucket}/{build_hive_prefix(service)}"
    hive.require_partition_filter = require_filter
    external.hive_partitioning = hive
    table = bigquery.Table(f"{dataset}.{service.table}_lake", schema=build_table_schema(service))
    table.external_data_configuration = external
    table.description = f"The objects of {prefix}, read where they are"
    return table
