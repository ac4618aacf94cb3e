"""Jobs of one op beside the assets: look with SQL, look into an object, export a range of days."""

from collections.abc import Mapping

import dagster as dg

from taxi_assets.defs.jobs.export_parquet import export_parquet_job
from taxi_assets.defs.jobs.inspect_object import inspect_object_job
from taxi_assets.defs.jobs.sql_query import sql_query_job
from taxi_assets.tlc.schema import Service


def small_jobs(services: Mapping[str, Service]) -> list[dg.JobDefinition]:
    """`sql_query`, `inspect_object` and `export_parquet`."""
    return [sql_query_job(), inspect_object_job(), export_parquet_job(services)]
