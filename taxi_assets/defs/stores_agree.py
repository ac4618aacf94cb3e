"""The check that needs every store: that Postgres, lake and BigQuery hold the same day."""

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
from dagster import DagsterEventType

from taxi_assets.dagster_internals.partition_records import (
    CheckResult,
    list_partition_days,
    log_check_results,
    read_check_evaluations,
)
from taxi_assets.dagster_internals.rejections import find_rejected_days
from taxi_assets.defs import checks
from taxi_assets.defs.daily_assets import Stage
from taxi_assets.defs.io_managers.base import StoreIOManager, Totals, name_asset_in_errors
from taxi_assets.defs.outcomes import build_rejected_days_error
from taxi_assets.defs.run_summary import summarize_run
from taxi_assets.errors import PartitionNotStoredError
from taxi_assets.partitions import daily_partitions
from taxi_assets.tlc.schema import Service


def build_stores_agree_check(service: Service) -> dg.AssetChecksDefinition:
    """Build `stores_agree` on `bigquery_trips`: counts and sums of all stores with the day."""
    stage = Stage(service, daily_partitions())
    stores = [stage.key(f"{name}_trips") for name in ("postgres", "gcs", "bigquery")]
    spec = dg.AssetCheckSpec(
        checks.AGREE,
        asset=stores[-1],
        additional_deps=stores[:-1],
        partitions_def=stage.partitions,
        description=f"ERROR: Postgres, lake and BigQuery hold the same {list_compared(service)}. "
        "A store without the day (left out of the run) is not compared.",
    )

    @dg.multi_asset_check(
        specs=[spec],
        name=f"{service.name}_stores_agree",
        required_resource_keys={"month_locks", *(key.path[-1] for key in stores)},
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        days = list_partition_days(context)
        with name_asset_in_errors(stores[-1], days):
            # In the middle of another run's load the stores do differ.
            context.resources.month_locks.acquire(service, days, context.log.info)
            rejected = find_rejected_days(context.instance, stores[-1], days)
            just_read = read_check_evaluations(
                context.instance, context.run.run_id, "matches_cleaned"
            )
            totals: dict[date, dict[str, tuple[int, float]]] = {}
            for key in stores:
                held = [
                    day
                    for day in _find_materialized_days(context, key, days)
                    if day not in rejected
                ]
                store: StoreIOManager[Any] = getattr(context.resources, key.path[-1])
                found = _reuse_totals(just_read.get(key, {}), held, service)
                if held and not found:
                    found = store.read_totals(service, held, context.log)
                for day in held:
                    totals.setdefault(day, {})[key.path[-1]] = found.get(day, (0, 0.0))
            compared = {day: of for day, of in totals.items() if stores[-1].path[-1] in of}
            results = {
                day: [_compare_totals(of_day, service)] for day, of_day in sorted(compared.items())
            }
            yield from log_check_results(context, results, stores[-1])
            refused = find_rejected_days(context.instance, stores[0], days) | rejected
            refused |= {
                day: _build_not_stored_error(stores[-1], day)
                for day in days
                if day not in compared and day not in refused
            }
            summarize_run(context, service.name, sorted(refused))
            if refused:
                raise build_rejected_days_error(stores[-1], days, refused)

    return check


def list_compared(service: Service) -> str:
    """Return what stores are compared by: rows, and the sum of the total if there is one."""
    return f"rows and sum of {service.total}" if service.total else "number of rows"


def _reuse_totals(
    read: Mapping[date, dg.AssetCheckEvaluation], held: list[date], service: Service
) -> Totals:
    """Return what `matches_cleaned` read from a store in this run, if it did for all the days."""
    if not set(held) <= set(read):
        return {}
    total, shown = service.total or "", {day: read[day].metadata for day in held}
    return {
        day: (
            int(str(of_day["rows"].value)),
            float(str(of_day[total].value)) if total in of_day else 0.0,
        )
        for day, of_day in shown.items()
    }


def _build_not_stored_error(key: dg.AssetKey, day: date) -> PartitionNotStoredError:
    name = key.to_user_string()
    return PartitionNotStoredError(
        f"{name} has no record of it: materialize {name} for {day} first"
    )


def _compare_totals(totals: Mapping[str, tuple[int, float]], service: Service) -> CheckResult:
    first = next(iter(totals.values()))
    metadata: dict[str, Any] = {}
    for store, (rows, total) in totals.items():
        metadata[f"{store}_rows"] = rows
        if service.total:
            metadata[f"{store}_{service.total}"] = round(total, 2)
    agree = all(checks.compare_amounts(first, other) for other in totals.values())
    return CheckResult(checks.AGREE, agree, metadata, description=_describe(service, totals))


def _describe(service: Service, totals: Mapping[str, tuple[int, float]]) -> str:
    return "; ".join(
        f"{store}: {rows:,} rows{f', ${total:,.2f}' if service.total else ''}"
        for store, (rows, total) in totals.items()
    )


def _find_materialized_days(
    context: dg.AssetCheckExecutionContext, key: dg.AssetKey, days: list[date]
) -> list[date]:
    """Return the days that have a materialization of an asset."""
    ids = context.instance.event_log_storage.get_latest_storage_id_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, {str(day) for day in days}
    )
    return [day for day in days if str(day) in ids]
