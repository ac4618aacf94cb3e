"""The check that needs every store: that Postgres, lake and BigQuery hold the same day."""

import warnings
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
from dagster import DagsterEventType

from taxi_assets import checks
from taxi_assets.assets import Stage
from taxi_assets.io_managers import bigquery as bigquery_store
from taxi_assets.io_managers import lake_parquet as lake_store
from taxi_assets.io_managers import postgres as postgres_store
from taxi_assets.partitions import daily_partitions
from taxi_assets.record import CheckResult, checked_here, days_of, record_checks
from taxi_assets.resources.bigquery import BigQueryResource
from taxi_assets.resources.lake import LakeResource
from taxi_assets.resources.postgres import PostgresResource
from taxi_assets.services import Service

Totals = Mapping[date, tuple[int, float]]


def stores_agree(service: Service) -> dg.AssetChecksDefinition:
    """`stores_agree` on `bigquery_trips`: counts and sums of all stores that have the day."""
    stage = Stage(service, daily_partitions())
    stores = [stage.key(f"{name}_trips") for name in ("postgres", "gcs", "bigquery")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # partitioned checks are in preview in Dagster 1.13
        spec = dg.AssetCheckSpec(
            checks.AGREE,
            asset=stores[-1],
            additional_deps=stores[:-1],
            partitions_def=stage.partitions,
            description="ERROR: Postgres, lake and BigQuery hold the same rows and sum of "
            "total_amount. A store without the day (left out of the run) is not compared.",
        )

        @dg.multi_asset_check(specs=[spec], name=f"{service.name}_stores_agree")
        def check(
            context: dg.AssetCheckExecutionContext,
            postgres: PostgresResource,
            lake: LakeResource,
            bigquery: BigQueryResource,
        ) -> Iterator[Any]:
            days = days_of(context)
            readers: dict[dg.AssetKey, Callable[[list[date]], Totals]] = dict(
                zip(
                    stores,
                    (
                        lambda asked: _in_postgres(postgres, service, asked),
                        lambda asked: lake_store.read_back(
                            lake.lake, service, asked, context.log.error
                        ),
                        lambda asked: _in_bigquery(bigquery, service, asked),
                    ),
                    strict=True,
                )
            )
            totals: dict[date, dict[str, tuple[int, float]]] = {day: {} for day in days}
            for key, read in readers.items():
                held = _materialized(context, key, days)
                found = _just_read(context.run.run_id, key, held) or (read(held) if held else {})
                for day in held:
                    totals[day][key.path[-1]] = found.get(day, (0, 0.0))
            results = {
                day: [_compare(of_day)]
                for day, of_day in totals.items()
                if stores[-1].path[-1] in of_day
            }
            yield from record_checks(context, results, stores[-1])

    return check


def _just_read(run_id: str, key: dg.AssetKey, held: list[date]) -> Totals:
    """What `matches_cleaned` read back from a store a moment ago, if it did for all the days."""
    results = checked_here(run_id, key, "matches_cleaned")
    if not set(held) <= set(results):
        return {}
    return {
        day: (int(results[day].metadata["rows"]), float(results[day].metadata["total_amount"]))
        for day in held
    }


def _in_postgres(postgres: PostgresResource, service: Service, days: list[date]) -> Totals:
    with postgres.connect() as connection:
        return postgres_store.read_back(connection, service, postgres.schema_name(), days)


def _in_bigquery(bigquery: BigQueryResource, service: Service, days: list[date]) -> Totals:
    with bigquery.client() as client:
        return bigquery_store.read_back(client, service, bigquery.dataset, days)


def _compare(totals: Mapping[str, tuple[int, float]]) -> CheckResult:
    first = next(iter(totals.values()))
    metadata: dict[str, Any] = {}
    for store, (rows, total) in totals.items():
        metadata |= {f"{store}_rows": rows, f"{store}_total_amount": total}
    return CheckResult(
        checks.AGREE, all(checks.same(first, other) for other in totals.values()), metadata
    )


def _materialized(
    context: dg.AssetCheckExecutionContext, key: dg.AssetKey, days: list[date]
) -> list[date]:
    """The days that have a materialization of an asset."""
    ids = context.instance.event_log_storage.get_latest_storage_id_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, {str(day) for day in days}
    )
    return [day for day in days if str(day) in ids]
