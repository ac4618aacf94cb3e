"""Runs of the real jobs, and the contents of the stores, read with independent clients."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import dagster as dg
import duckdb
import pandas as pd
from adbc_driver_postgresql import dbapi
from dagster import DagsterEventType, DagsterInstance

from taxi_assets import local
from taxi_assets.definitions import build_defs
from taxi_assets.defs.resources.bigquery import create_emulator_client
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES

Totals = dict[date, tuple[int, float]]


@dataclass
class Runs:
    """Runs jobs in this process on an instance with the repository's settings."""

    services: Mapping[str, Service] = field(default_factory=lambda: SERVICES)
    instance: DagsterInstance = field(default_factory=DagsterInstance.get)

    def run(self, service: str, first: str, last: str | None = None, **more: object):
        """Run `<service>_daily` for a day or a range of days; it may fail."""
        job = build_defs(self.services).resolve_job_def(f"{service}_daily")
        if last is None:
            return job.execute_in_process(
                partition_key=first, instance=self.instance, raise_on_error=False, **more
            )
        tags = {
            "dagster/asset_partition_range_start": first,
            "dagster/asset_partition_range_end": last,
        }
        return job.execute_in_process(
            tags=tags, instance=self.instance, raise_on_error=False, **more
        )

    def materializations(self, run_id: str) -> dict[tuple[str, str], dg.AssetMaterialization]:
        """Return a run's materializations by asset and day."""
        records = self.instance.get_records_for_run(
            run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
        ).records
        events = {}
        for record in records:
            event = record.event_log_entry.asset_materialization
            key = (event.asset_key.to_user_string(), event.partition)
            assert key not in events, f"{key} was recorded twice"
            events[key] = event
        return events

    def evaluations(
        self, run_id: str
    ) -> dict[tuple[str, str, str | None], dg.AssetCheckEvaluation]:
        """Return a run's check results by asset, check and day; a month file's have no day."""
        records = self.instance.get_records_for_run(
            run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
        ).records
        results = {}
        for record in records:
            event = record.event_log_entry.asset_check_evaluation
            key = (event.asset_key.to_user_string(), event.check_name, event.partition)
            assert key not in results, f"{key} was evaluated twice"
            results[key] = event
        return results


def failure(result: dg.ExecuteInProcessResult) -> str:
    """Return the message of a run's first failed step."""
    event = next(event for event in result.all_events if event.is_step_failure)
    error = event.step_failure_data.error
    return f"{error.message} {error.cause.message if error.cause else ''}"


def stack() -> local.Stack:
    """Return the addresses of TAXI_HOME's servers."""
    return local.ensure_stack_running(Path(os.environ["TAXI_HOME"]))


def postgres():
    """Connect to the embedded Postgres."""
    return dbapi.connect(postgres_url(), autocommit=True)


def postgres_url(database: str | None = None) -> str:
    """Return the URL of a database of the embedded Postgres."""
    here = stack()
    return (
        f"postgresql://{here.postgres_user}:{here.postgres_password}@{here.postgres_host}"
        f":{here.postgres_port}/{database or here.postgres_dbname}"
    )


def postgres_arguments() -> dict[str, str | int]:
    """Return the connection arguments for libpq's other clients."""
    here = stack()
    return {
        "host": here.postgres_host,
        "port": here.postgres_port,
        "dbname": here.postgres_dbname,
        "user": here.postgres_user,
        "password": here.postgres_password,
    }


def settings() -> dict[str, str]:
    """Return the settings with the addresses of the embedded servers."""
    variables = {
        f"POSTGRES_{name.upper()}": str(value) for name, value in postgres_arguments().items()
    }
    here = stack()
    reader = {
        "POSTGRES_READER_USER": here.postgres_reader,
        "POSTGRES_READER_PASSWORD": here.postgres_reader_password,
    }
    emulator = {"BIGQUERY_ENDPOINT": here.bigquery_endpoint, "BIGQUERY_TOKEN": here.bigquery_token}
    return variables | reader | emulator


def bigquery():
    """Return a client of the emulator."""
    here = stack()
    return create_emulator_client("taxi-local", here.bigquery_endpoint, here.bigquery_token)


def drop_tables() -> None:
    """Drop all tables in Postgres and BigQuery."""
    with postgres() as connection, connection.cursor() as cursor:
        cursor.execute("DROP SCHEMA IF EXISTS ny_taxi CASCADE")
    bigquery().delete_dataset("ny_taxi", delete_contents=True, not_found_ok=True)


def lake() -> Path:
    """Return the bucket's folder."""
    return stack().lake_root / os.environ.get("GCS_BUCKET", "taxi")


def pandas_totals(path: Path, service: Service) -> Totals:
    """Return the expected totals, counted by pandas in the month file."""
    frame = pd.read_csv(path, low_memory=False, parse_dates=[service.pickup])
    frame = frame[frame["passenger_count"] > 0]
    month = path.name.split("_")[-1][:7]
    frame = frame[frame[service.pickup].dt.strftime("%Y-%m") == month]
    days = frame.groupby(frame[service.pickup].dt.date)["total_amount"].agg(["size", "sum"])
    return {day: (int(row["size"]), round(row["sum"], 2)) for day, row in days.iterrows()}


def _round_totals(rows: list[tuple]) -> Totals:
    return {
        pd.Timestamp(day).date(): (int(count), round(float(total or 0), 2))
        for day, count, total in rows
    }


def store_totals(service: Service) -> dict[str, Totals]:
    """Return rows and sum of total_amount of each day, by store."""
    query = f"SELECT {service.day_column}, count(*), sum(total_amount) FROM {{}} GROUP BY 1"
    table = f"ny_taxi.{service.table}"
    with postgres() as connection, connection.cursor() as cursor:
        cursor.execute(query.format(table))
        in_postgres = _round_totals(cursor.fetchall())
    objects = f"'{lake()}/{service.name}/*/*.parquet'"
    in_lake = _round_totals(duckdb.sql(query.format(objects)).fetchall())
    rows = bigquery().query(query.format(table))
    in_bigquery = _round_totals([tuple(row) for row in rows.result()])
    return {"postgres": in_postgres, "lake": in_lake, "bigquery": in_bigquery}


def store_rows(service: Service) -> dict[str, pd.DataFrame]:
    """Return all rows of a service, in one order, by store."""
    columns = [column.name for column in service.columns]
    listed = ", ".join(columns)
    with postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT {listed} FROM ny_taxi.{service.table}")
        in_postgres = cursor.fetch_arrow_table().to_pandas()
    in_lake = (
        duckdb.sql(f"SELECT {listed} FROM '{lake()}/{service.name}/*/*.parquet'")
        .arrow()
        .read_all()
        .to_pandas()
    )
    query = bigquery().query(f"SELECT {listed} FROM ny_taxi.{service.table}")
    in_bigquery = query.result().to_arrow(create_bqstorage_client=False).to_pandas()
    stores = {"postgres": in_postgres, "lake": in_lake, "bigquery": in_bigquery}
    return {
        name: frame.sort_values(columns, na_position="first").reset_index(drop=True)
        for name, frame in stores.items()
    }
