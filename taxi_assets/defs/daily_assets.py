"""The five assets of a service, and the month file that they come from.

The computation of each asset belongs here, from top to bottom. The storage of partitions belongs in
`io_managers`, their metadata in `metadata`, the comparisons of checks in `checks`. An asset yields
its days as one output, which the IO manager stores day by day while they are computed; the lines
after the `yield` process the results.
"""

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import partial
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.partition_records import (
    CheckResult,
    PartitionRecord,
    build_observation,
    is_planned_in_process,
    list_partition_days,
    log_check_results,
    report_external_version,
)
from taxi_assets.date_ranges import Month, group_days_by_month
from taxi_assets.defs.checks.cleaned import check_cleaned_day, has_too_many_invalid, reject_failed
from taxi_assets.defs.checks.raw import check_raw_month
from taxi_assets.defs.checks.results import merge_months
from taxi_assets.defs.checks.specs import RAW_CHECKS, STORE_CHECKS, list_cleaned_checks
from taxi_assets.defs.checks.stored import check_stored_days
from taxi_assets.defs.io_managers.base import StoreIOManager, name_asset_in_errors
from taxi_assets.defs.io_managers.bigquery import BigQueryTripsIOManager
from taxi_assets.defs.io_managers.lake_parquet import LakeTripsIOManager
from taxi_assets.defs.io_managers.partition_data import CleanedPartition, RawPartition, StoredTrips
from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.io_managers.raw_trips import RawDays, RawTripsIOManager
from taxi_assets.defs.io_managers.restatement import RawRecord
from taxi_assets.defs.metadata.asset_metadata import add_code_references
from taxi_assets.defs.metadata.day_metadata import (
    build_cleaned_metadata,
    build_overview_metadata,
    build_raw_metadata,
)
from taxi_assets.defs.month_rows import name_month_rows
from taxi_assets.defs.month_split import SplitMonth, split_month
from taxi_assets.defs.outcomes import (
    DailyOutput,
    build_rejected_days_error,
    drain_partitions,
    fail_for_rejected_days,
    list_unchecked,
    log_unchecked,
)
from taxi_assets.defs.resources.cleaning import CleaningResource, build_cleaning_version
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.month_lock import MonthLocks
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.defs.resources.source import SourceResource
from taxi_assets.defs.restatements import (
    build_restatement_metadata,
    build_restatement_page,
    find_restatement,
)
from taxi_assets.defs.run_summary import name_days, tag_run
from taxi_assets.defs.same_weekdays import SameWeekdays
from taxi_assets.defs.stage import DAYS, Stage
from taxi_assets.defs.value_checks import (
    check_expected_values,
    check_usual_day,
    find_unusual_figures,
)
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.partitions import monthly_partitions
from taxi_assets.report.day_picture import Figures
from taxi_assets.settings import read_rules_for_definitions
from taxi_assets.settings.areas import DefinitionSettings
from taxi_assets.tlc.cache import MonthFile
from taxi_assets.tlc.raw_month import RawMonth
from taxi_assets.tlc.schema import Service
from taxi_assets.trips.clean import clean_partition, sum_total_amount
from taxi_assets.trips.content_hash import hash_table
from taxi_assets.trips.profile import profile_partition
from taxi_assets.trips.rules import describe_rules

Events = Iterator[Any]


def build_service_assets(service: Service) -> list[dg.AssetsDefinition | dg.AssetSpec]:
    """Build all assets of one service."""
    stage = Stage(service)
    assets: list[Any] = [
        define_trip_file(stage),
        define_raw_trips(stage),
        define_cleaned_trips(stage),
        define_postgres_trips(stage),
        define_gcs_trips(stage),
        define_bigquery_trips(stage),
    ]
    return add_code_references(assets)


def define_trip_file(stage: Stage) -> dg.AssetSpec:
    """Define the month file at the source."""
    return dg.AssetSpec(
        stage.build_key("trip_file"),
        group_name=stage.service.name,
        kinds={"csv", "parquet"},
        owners=DefinitionSettings.from_env().owners,
        tags={"service": stage.service.name, "layer": "source"},
        partitions_def=monthly_partitions(),
        description=f"TLC's month file of {stage.service.name} trips, as published. "
        "Each version that a run reads is observed, and reported once as materialized.",
    )


def define_raw_trips(stage: Stage) -> dg.AssetsDefinition:
    """Define the published rows of each day."""
    service = stage.service

    @dg.asset(
        **stage.build_arguments("raw_trips", "csv", "parquet"),
        deps=[
            dg.AssetDep(
                stage.build_key("trip_file"), partition_mapping=dg.TimeWindowPartitionMapping()
            )
        ],
        check_specs=stage.build_specs("raw_trips", RAW_CHECKS),
        code_version="1",
        description="A day's rows as published: of a CSV month the header and the lines of the "
        "day's pickups, byte for byte; of a Parquet month the rows with its columns and types.",
    )
    def raw_trips(
        context: dg.AssetExecutionContext,
        source: SourceResource,
        postgres: PostgresResource,
        month_locks: dg.ResourceParam[MonthLocks],
        raw_trips: dg.ResourceParam[RawTripsIOManager],
    ) -> Events:
        days = list_partition_days(context)
        with name_asset_in_errors(context.asset_key, days):
            # An unreachable Postgres stops the run here, before other stores receive the days.
            if (
                stage.build_key("postgres_trips")
                in context.job_def.asset_layer.executable_asset_keys
            ):
                with postgres.connect():
                    context.log.debug(f"Postgres at {postgres.address()} answers")
            tag_run(context.instance, context.run, service.name, name_days(days))
            month_locks.acquire(service, days, context.log.info)
            files = [
                (source.fetch_month_file(service, month, context.log.info), month_days)
                for month, month_days in group_days_by_month(days).items()
            ]
            for file, _ in files:
                observe_trip_file(context, stage.build_key("trip_file"), file)

            results: dict[Month, Sequence[CheckResult]] = {}

            def split_months() -> Iterator[RawDays]:
                limits = source.max_invalid_ratio(), source.max_day_bytes()
                for file, month_days in files:
                    split = split_month(RawMonth(file, month_days, *limits), context.log.info)
                    results[file.month] = check_raw_month(split.month)
                    read_stored = partial(raw_trips.read_partition, service)
                    describe = partial(record_raw_day, split, read_stored)
                    yield split, LazyPartitions(month_days, describe)

            output = DailyOutput(split_months())
            yield dg.Output(output)
            for file, _ in files:
                page = build_restatement_page(file, output.records)
                if page is not None:
                    raw_trips.store_restatement_page(service, file.month, page)
            merged = merge_months(results)
            yield from log_check_results(context, {}, context.asset_key, merged)
            yield from fail_for_rejected_days(context, output)

    return raw_trips


def define_cleaned_trips(stage: Stage) -> dg.AssetsDefinition:
    """Define the parsed, cleaned, checked and profiled rows of each day."""
    service = stage.service

    @dg.asset(
        **stage.build_arguments("cleaned_trips", "pandas", "parquet"),
        ins={"raw_trips": dg.AssetIn(stage.build_key("raw_trips"), dagster_type=DAYS)},
        check_specs=stage.build_specs("cleaned_trips", list_cleaned_checks(service)),
        # Other rules mean another code version, so that the UI shows the days as stale.
        code_version=build_cleaning_version(read_rules_for_definitions()),
        description="A day's trips as a typed pandas frame in the service's one schema, without "
        f"the rows that TAXI_DROP names: {describe_rules(read_rules_for_definitions(), service)}.",
    )
    def cleaned_trips(
        context: dg.AssetExecutionContext,
        raw_trips: LazyPartitions[RawPartition],
        source: SourceResource,
        cleaning: CleaningResource,
        lake: LakeResource,
    ) -> Events:
        rules, row_limit = cleaning.rules(service), cleaning.row_limit
        max_invalid_ratio, zones = source.max_invalid_ratio(), source.zones(context.log.info)
        same_weekdays = SameWeekdays(lake.lake, service, context.log.warning)

        def clean_day(day: date, raw: RawPartition) -> CleanedPartition:
            began = time.perf_counter()
            cleaned = clean_partition(raw.content, service, rules, row_limit, zones)
            if has_too_many_invalid(cleaned, max_invalid_ratio):
                cleaned = name_month_rows(cleaned, service, raw, source, context.log)
            results = check_cleaned_day(day, cleaned, raw.rows, service, max_invalid_ratio)
            reject_failed(results, service)
            table = cleaned.table
            results.append(check_expected_values(table, service))
            figures = Figures(
                profile_partition(table, service),
                cleaned.dropped,
                sum_total_amount(table, service),
                raw.source_file.synthetic,
            )
            same_weekdays.add(day, figures)
            unusual = find_unusual_figures(day, same_weekdays)
            results.append(check_usual_day(day, unusual))
            before = same_weekdays.before(day)
            overview = build_overview_metadata(service, day, figures, before, unusual or ())
            metadata = overview | build_cleaned_metadata(service, cleaned, figures, raw.source_file)
            code_version = build_cleaning_version(rules, row_limit)
            record = PartitionRecord(metadata, hash_table(table), code_version, results)
            return CleanedPartition(table, figures, rules, raw.source_file, record, began)

        with name_asset_in_errors(context.asset_key, list_partition_days(context)):
            cleaned = raw_trips.map_with_day(clean_day)
            in_order = replace(cleaned, compute=same_weekdays.follow(cleaned.days, cleaned.compute))
            output = DailyOutput(in_order)
            yield dg.Output(output)
            yield from log_check_results(context, output.checks, context.asset_key)
            yield from fail_for_rejected_days(context, output)

    return cleaned_trips


def define_postgres_trips(stage: Stage) -> dg.AssetsDefinition:
    """Define the cleaned trips in Postgres."""

    @dg.asset(
        **stage.build_store_arguments(
            "postgres_trips", "cleaned_trips", "postgres", pool="postgres"
        ),
        description=f"The cleaned trips in Postgres, table `{stage.service.table}`. The days "
        "of a month are replaced in one transaction.",
    )
    def postgres_trips(
        context: dg.AssetExecutionContext,
        cleaned_trips: LazyPartitions[StoredTrips],
        postgres_trips: dg.ResourceParam[PostgresTripsIOManager],
    ) -> Events:
        yield from store_trips(context, stage.service, cleaned_trips, postgres_trips)

    return postgres_trips


def define_gcs_trips(stage: Stage) -> dg.AssetsDefinition:
    """Define the cleaned trips in the lake."""

    @dg.asset(
        **stage.build_store_arguments("gcs_trips", "cleaned_trips", "gcs", "parquet"),
        description="The cleaned trips in the lake: one Parquet object a day, in folders that "
        "pandas, DuckDB, Polars and Spark read as one table.",
    )
    def gcs_trips(
        context: dg.AssetExecutionContext,
        cleaned_trips: LazyPartitions[StoredTrips],
        gcs_trips: dg.ResourceParam[LakeTripsIOManager],
        bigquery_trips: dg.ResourceParam[BigQueryTripsIOManager],
    ) -> Events:
        stored = yield from store_trips(context, stage.service, cleaned_trips, gcs_trips)
        # BigQuery loads the objects while the next step of the run fills Postgres.
        if is_planned_in_process(context, stage.build_key("bigquery_trips")):
            objects = LazyPartitions(stored, partial(gcs_trips.read_partition, stage.service))
            bigquery_trips.start_staging(stage.service, objects, context.log)

    return gcs_trips


def define_bigquery_trips(stage: Stage) -> dg.AssetsDefinition:
    """Define the trips of the lake in BigQuery."""
    service = stage.service

    @dg.asset(
        **stage.build_store_arguments("bigquery_trips", "gcs_trips", "bigquery", pool="bigquery"),
        description=f"The trips in BigQuery, table `{service.table}`, partitioned by "
        f"`{service.day_column}`, loaded from the lake's objects.",
    )
    def bigquery_trips(
        context: dg.AssetExecutionContext,
        gcs_trips: LazyPartitions[StoredTrips],
        bigquery_trips: dg.ResourceParam[BigQueryTripsIOManager],
    ) -> Events:
        yield from store_trips(context, service, gcs_trips, bigquery_trips)

    return bigquery_trips


def store_trips(
    context: dg.AssetExecutionContext,
    service: Service,
    upstream: LazyPartitions[StoredTrips],
    store: StoreIOManager[Any],
) -> Generator[Any, None, list[date]]:
    """Store the days, read the store's totals back, and compare; return the stored days."""
    with name_asset_in_errors(context.asset_key, list_partition_days(context)):
        output = drain_partitions(context, upstream)
        if not output.partitions:
            yield from log_unchecked(context, output)
            raise build_rejected_days_error(
                context.asset_key, list_partition_days(context), output.rejected
            )
        yield dg.Output(output)
        partitions = {day: output.partitions[day] for day in output.records}
        totals = store.read_totals(service, list(partitions), context.log)
        results = check_stored_days(partitions, totals)
        for check in STORE_CHECKS:
            results |= list_unchecked(output.rejected, check, context.asset_key)
        yield from log_check_results(context, results, context.asset_key)
        yield from fail_for_rejected_days(context, output)
    return list(partitions)


def record_raw_day(
    split: SplitMonth, read_stored: Callable[[date], RawPartition | None], day: date
) -> RawRecord:
    """Build the record of a day of a split month."""
    change = find_restatement(read_stored, split, day)
    metadata = build_raw_metadata(split, day) | build_restatement_metadata(change)
    return RawRecord(metadata, split.get_spool(day).compute_data_version(), restatement=change)


def observe_trip_file(context: dg.AssetExecutionContext, key: dg.AssetKey, file: MonthFile) -> None:
    """Log the version of the month file that the run reads."""
    if_any = {
        "etag": file.etag,
        "last_modified": file.last_modified,
        "synthetic sample": file.synthetic,
    }
    metadata = {
        "dagster/uri": file.url,
        "bytes": file.size,
        "sha256": file.sha256,
        **{name: value for name, value in if_any.items() if value},
    }
    observation = build_observation(key, f"{file.month}-01", file.sha256, metadata)
    context.log_event(observation)
    report_external_version(context.instance, observation)
