"""The five assets of a service, and the month file they come from.

They hold no storage code: IO managers replace what a target holds of the run's days. One factory
makes every service's.
"""

import time
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.partition_records import (
    CheckResult,
    days_of,
    record_checks,
    record_observation,
)
from taxi_assets.date_ranges import by_month
from taxi_assets.defs import checks
from taxi_assets.defs.freshness import lately_stored
from taxi_assets.defs.io_managers import bigquery as bigquery_store
from taxi_assets.defs.io_managers import lake_parquet as lake_store
from taxi_assets.defs.io_managers import postgres as postgres_store
from taxi_assets.defs.io_managers.base import guarded
from taxi_assets.defs.io_managers.partition_data import CleanedDay, RawSlice, TripsSlice
from taxi_assets.defs.left_out import fail_last_step, landed_days, pull_days
from taxi_assets.defs.metadata.asset_metadata import definition_metadata, definition_tags, with_code
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.cleaning import CleaningResource, cleaning_version
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.month_lock import MonthLocks
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.defs.resources.source import SourceResource
from taxi_assets.defs.run_restart import restart_run
from taxi_assets.errors import DayRefusedError
from taxi_assets.lazy_partitions import Days
from taxi_assets.partitions import daily_partitions, monthly_partitions
from taxi_assets.settings import days_per_run, drop_rules, owners, retry_delay
from taxi_assets.tlc.header import header_of_slice
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import MonthFile
from taxi_assets.trips.clean import clean
from taxi_assets.trips.rules import described

DAYS = dg.DagsterType(
    name="Days",
    type_check_fn=lambda _, value: isinstance(value, Days),
    description="The days of a run, each loaded when it is asked for.",
)

Events = Iterator[Any]


@dataclass(frozen=True)
class Stage:
    """What the assets of one service share."""

    service: Service
    partitions: dg.DailyPartitionsDefinition

    def key(self, name: str) -> dg.AssetKey:
        """`<service>/<name>`."""
        return dg.AssetKey([self.service.name, name])

    def options(self, name: str, *kinds: str, **more: Any) -> dict[str, Any]:
        """The arguments that all five assets are made with."""
        return {
            "key": self.key(name),
            "group_name": self.service.name,
            "kinds": set(kinds),
            "owners": owners(),
            "tags": definition_tags(self.service, name),
            "metadata": definition_metadata(self.service, name),
            "partitions_def": self.partitions,
            "backfill_policy": dg.BackfillPolicy.multi_run(days_per_run()),
            "retry_policy": retries(),
            "hooks": {restart_run},
            "io_manager_key": name,
            **more,
        }

    def specs(self, name: str, described: dict[str, str]) -> list[dg.AssetCheckSpec]:
        """Check specs of one of the assets."""
        return checks.specs(self.key(name), described, self.partitions)


def service_assets(service: Service) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Everything that one service has in the asset graph."""
    stage = Stage(service, daily_partitions())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # backfill policies and partitioned checks are in preview
        assets: list[Any] = [
            _trip_file(stage),
            _raw_trips(stage),
            _cleaned_trips(stage),
            _postgres_trips(stage),
            _gcs_trips(stage),
            _bigquery_trips(stage),
        ]
    return with_code(assets)


def retries() -> dg.RetryPolicy:
    """For what may pass: time-outs, 429, 5xx, lost connections. What does not fails at once.

    Dagster cannot be interrupted while it waits for the next attempt, so a cancelled run ends after
    that wait: by default 2, 4, 6 and 8 seconds, and not 2, 6 and 14 as with exponential backoff.
    """
    return dg.RetryPolicy(max_retries=4, delay=retry_delay(), backoff=dg.Backoff.LINEAR)


def _trip_file(stage: Stage) -> dg.AssetSpec:
    return dg.AssetSpec(
        stage.key("trip_file"),
        group_name=stage.service.name,
        kinds={"csv", "parquet"},
        owners=owners(),
        tags={"service": stage.service.name, "layer": "source"},
        partitions_def=monthly_partitions(),
        description=f"TLC's month file of {stage.service.name} trips, as published. "
        "Observed when a run reads it; never materialized.",
    )


def _raw_trips(stage: Stage) -> dg.AssetsDefinition:
    service = stage.service

    @dg.asset(
        **stage.options("raw_trips", "csv", "parquet"),
        deps=[
            dg.AssetDep(stage.key("trip_file"), partition_mapping=dg.TimeWindowPartitionMapping())
        ],
        check_specs=stage.specs("raw_trips", checks.RAW_CHECKS),
        code_version="1",
        description="A day's rows as published: of a CSV month the header and the lines whose "
        "pickup lies in the day, byte for byte; of a Parquet month its columns and types.",
    )
    def raw_trips(
        context: dg.AssetExecutionContext,
        source: SourceResource,
        postgres: PostgresResource,
        month_locks: dg.ResourceParam[MonthLocks],
    ) -> Events:
        days = days_of(context)
        with guarded(context.asset_key, days):
            # A Postgres that is down stops the run here, before the other stores get the days.
            if stage.key("postgres_trips") in context.job_def.asset_layer.executable_asset_keys:
                with postgres.connect():
                    context.log.debug(f"Postgres at {postgres.address()} answers")
            month_locks.acquire(service, days, context.log.info)
            months: list[RawMonth] = []
            for month, month_days in by_month(days).items():
                file = source.month_file(service, month, context.log.info)
                record_observation(
                    context, stage.key("trip_file"), f"{month}-01", file.sha256, _facts(file)
                )
                months.append(
                    RawMonth(file, month_days, source.most_unreadable(), source.max_day_bytes())
                )
            yield dg.Output(months)
            landed = landed_days(context, days)
            results = {
                day: checks.check_raw(month)
                for month in months
                for day in month.days
                if day in landed
            }
            yield from record_checks(context, results, context.asset_key)
            fail_last_step(context, landed, {})

    return raw_trips


def _cleaned_trips(stage: Stage) -> dg.AssetsDefinition:
    service = stage.service

    @dg.asset(
        **stage.options("cleaned_trips", "pandas", "parquet"),
        ins={"raw_trips": dg.AssetIn(stage.key("raw_trips"), dagster_type=DAYS)},
        check_specs=stage.specs("cleaned_trips", checks.CLEANED_CHECKS),
        # Other rules are other code: the UI then shows the days as stale.
        code_version=cleaning_version(drop_rules()),
        description="A day's trips as a typed pandas frame in the service's one schema, without "
        f"the rows that TAXI_DROP names: {described(drop_rules())}.",
    )
    def cleaned_trips(
        context: dg.AssetExecutionContext,
        raw_trips: Days[RawSlice],
        source: SourceResource,
        cleaning: CleaningResource,
    ) -> Events:
        results: dict[date, list[CheckResult]] = {}
        share, rules = source.most_unreadable(), cleaning.rules()

        def clean_day(day: date, raw: RawSlice) -> CleanedDay:
            began = time.perf_counter()
            done = clean(raw.content, service, rules, cleaning.row_limit)
            cleaned = CleanedDay(
                done.frame,
                done.raw_rows,
                done.dropped,
                list(map(str, done.unreadable)),
                raw.origin,
                done.unknown_labels,
                rules,
                cleaning.row_limit,
                header_of_slice(raw.content, service).published,
                began,
            )
            results[day] = checks.check_cleaned(day, cleaned, raw.rows, service, share)
            if bad := checks.failed(results[day]):
                raise DayRefusedError(
                    "; ".join(f"{one.check} failed {dict(one.metadata)}" for one in bad)
                )
            return cleaned

        cleaned_days = raw_trips.map_days(clean_day)
        with guarded(context.asset_key, days_of(context)):
            yield dg.Output(cleaned_days)
            yield from record_checks(context, dict(sorted(results.items())), context.asset_key)
            good = [day for day in cleaned_days.days if day not in cleaned_days.refused]
            fail_last_step(context, good, cleaned_days.refused)

    return cleaned_trips


def _postgres_trips(stage: Stage) -> dg.AssetsDefinition:
    service = stage.service

    @dg.asset(
        **stage.options("postgres_trips", "postgres", pool="postgres"),
        ins={"cleaned_trips": dg.AssetIn(stage.key("cleaned_trips"), dagster_type=DAYS)},
        check_specs=stage.specs("postgres_trips", checks.STORE_CHECKS),
        code_version="1",
        description=f"The cleaned trips in Postgres, table `{service.table}`. A day is replaced "
        "by delete and COPY in one transaction.",
    )
    def postgres_trips(
        context: dg.AssetExecutionContext,
        cleaned_trips: Days[TripsSlice],
        postgres: PostgresResource,
    ) -> Events:
        with guarded(context.asset_key, days_of(context)):
            slices = pull_days(context, cleaned_trips)
            yield dg.Output(slices)
            landed = {day: slices[day] for day in landed_days(context, list(slices))}
            with postgres.connect() as connection:
                found = postgres_store.read_back(
                    connection, service, postgres.schema_name(), list(landed)
                )
            yield from record_checks(context, checks.check_store(landed, found), context.asset_key)
            fail_last_step(context, landed, cleaned_trips.refused)

    return postgres_trips


def _gcs_trips(stage: Stage) -> dg.AssetsDefinition:
    service = stage.service

    @dg.asset(
        **stage.options("gcs_trips", "gcs", "parquet"),
        ins={"cleaned_trips": dg.AssetIn(stage.key("cleaned_trips"), dagster_type=DAYS)},
        check_specs=stage.specs("gcs_trips", checks.STORE_CHECKS),
        code_version="1",
        description="The cleaned trips in the lake: one Parquet object a day, in folders that "
        "pandas, DuckDB, Polars and Spark read as one table.",
    )
    def gcs_trips(
        context: dg.AssetExecutionContext, cleaned_trips: Days[TripsSlice], lake: LakeResource
    ) -> Events:
        with guarded(context.asset_key, days_of(context)):
            slices = pull_days(context, cleaned_trips)
            yield dg.Output(slices)
            landed = {day: slices[day] for day in landed_days(context, list(slices))}
            found = lake_store.read_back(lake.lake, service, list(landed), context.log.error)
            yield from record_checks(context, checks.check_store(landed, found), context.asset_key)
            fail_last_step(context, landed, cleaned_trips.refused)

    return gcs_trips


def _bigquery_trips(stage: Stage) -> dg.AssetsDefinition:
    service = stage.service

    @dg.asset(
        **stage.options("bigquery_trips", "bigquery", pool="bigquery"),
        freshness_policy=lately_stored(),
        ins={"gcs_trips": dg.AssetIn(stage.key("gcs_trips"), dagster_type=DAYS)},
        check_specs=stage.specs("bigquery_trips", checks.STORE_CHECKS),
        code_version="1",
        description=f"The trips in BigQuery, table `{service.table}`, partitioned by "
        f"`{service.day_column}`, loaded from the lake's objects.",
    )
    def bigquery_trips(
        context: dg.AssetExecutionContext, gcs_trips: Days[TripsSlice], bigquery: BigQueryResource
    ) -> Events:
        with guarded(context.asset_key, days_of(context)):
            slices = pull_days(context, gcs_trips)
            yield dg.Output(slices)
            landed = {day: slices[day] for day in landed_days(context, list(slices))}
            with bigquery.client() as client:
                found = bigquery_store.read_back(client, service, bigquery.dataset, list(landed))
            yield from record_checks(context, checks.check_store(landed, found), context.asset_key)
            fail_last_step(context, landed, gcs_trips.refused)

    return bigquery_trips


def _facts(file: MonthFile) -> dict[str, Any]:
    return {
        "dagster/uri": file.url,
        "bytes": file.size,
        "sha256": file.sha256,
        "etag": file.etag or "",
        "last_modified": file.last_modified or "",
        "synthetic sample": file.synthetic,
    }
