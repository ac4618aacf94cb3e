"""The check that compares the stores: Postgres, lake and BigQuery must have the same days."""

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
from taxi_assets.defs.checks.specs import AGREE
from taxi_assets.defs.checks.stored import are_amounts_equal
from taxi_assets.defs.io_managers.base import StoreIOManager, Totals, name_asset_in_errors
from taxi_assets.defs.outcomes import build_rejected_days_error, list_unchecked
from taxi_assets.defs.run_summary import summarize_run
from taxi_assets.defs.stage import Stage
from taxi_assets.errors import PartitionNotStoredError
from taxi_assets.tlc.schema import Service


def build_stores_agree_check(service: Service) -> dg.AssetChecksDefinition:
    """Build `stores_agree` on `bigquery_trips`: counts and sums of all stores with the day."""
    stage = Stage(service)
    stores = [stage.build_key(f"{name}_trips") for name in ("postgres", "gcs", "bigquery")]
    spec = dg.AssetCheckSpec(
        AGREE,
        asset=stores[-1],
        additional_deps=stores[:-1],
        partitions_def=stage.partitions,
        description=f"ERROR: Postgres, lake and BigQuery have the same {list_compared(service)}. "
        "A store without the day (not part of the run) is not compared.",
    )

    @dg.multi_asset_check(
        specs=[spec],
        name=f"{service.name}_stores_agree",
        required_resource_keys={"month_locks", *(key.path[-1] for key in stores)},
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[Any]:
        days = list_partition_days(context)
        with name_asset_in_errors(stores[-1], days):
            # The stores differ while another run loads the month.
            context.resources.month_locks.acquire(service, days, context.log.info)
            rejected = find_rejected_days(context.instance, stores[-1], days)
            just_read = read_check_evaluations(
                context.instance, context.run.run_id, "matches_cleaned"
            )
            totals: dict[date, dict[str, tuple[int, float]]] = {}
            for key in stores:
                accepted = [day for day in days if day not in rejected]
                stored_days = _find_materialized_days(context, key, accepted)
                store: StoreIOManager[Any] = getattr(context.resources, key.path[-1])
                store_totals = _reuse_totals(just_read.get(key, {}), stored_days, service)
                if stored_days and not store_totals:
                    store_totals = store.read_totals(service, stored_days, context.log)
                for day in stored_days:
                    totals.setdefault(day, {})[key.path[-1]] = store_totals.get(day, (0, 0.0))
            compared = {day: of for day, of in totals.items() if stores[-1].path[-1] in of}
            results = {
                day: [_compare_totals(of_day, service)] for day, of_day in sorted(compared.items())
            }
            all_rejected = find_rejected_days(context.instance, stores[0], days) | rejected
            unchecked = list_unchecked(all_rejected, AGREE, stores[-1])
            yield from log_check_results(context, unchecked | results, stores[-1])
            all_rejected |= {
                day: _build_not_stored_error(stores[-1], day)
                for day in days
                if day not in compared and day not in all_rejected
            }
            summarize_run(context, service.name, sorted(all_rejected))
            if all_rejected:
                raise build_rejected_days_error(stores[-1], days, all_rejected)

    return check


def list_compared(service: Service) -> str:
    """Return the compared figures: rows, and the sum of the total if the service has one."""
    return f"rows and sum of {service.total}" if service.total else "number of rows"


def _reuse_totals(
    evaluations: Mapping[date, dg.AssetCheckEvaluation], days: list[date], service: Service
) -> Totals:
    """Return the totals that `matches_cleaned` read in this run, if it read all of the days."""
    if not set(days) <= set(evaluations):
        return {}
    total = service.total or ""
    return {
        day: (
            int(str(of_day["rows"].value)),
            float(str(of_day[total].value)) if total in of_day else 0.0,
        )
        for day in days
        if (of_day := evaluations[day].metadata)
    }


def _build_not_stored_error(key: dg.AssetKey, day: date) -> PartitionNotStoredError:
    name = key.to_user_string()
    return PartitionNotStoredError(
        f"{name} has no record of this day: materialize {name} for {day} first"
    )


def _compare_totals(totals: Mapping[str, tuple[int, float]], service: Service) -> CheckResult:
    first = next(iter(totals.values()))
    metadata: dict[str, Any] = {}
    for store, (rows, total) in totals.items():
        metadata[f"{store}_rows"] = rows
        if service.total:
            metadata[f"{store}_{service.total}"] = round(total, 2)
    agree = all(are_amounts_equal(first, amounts) for amounts in totals.values())
    return CheckResult(AGREE, agree, metadata, description=_describe(service, totals))


def _describe(service: Service, totals: Mapping[str, tuple[int, float]]) -> str:
    return "; ".join(
        f"{store}: {rows:,} rows{f', ${total:,.2f}' if service.total else ''}"
        for store, (rows, total) in totals.items()
    )


def _find_materialized_days(
    context: dg.AssetCheckExecutionContext, key: dg.AssetKey, days: list[date]
) -> list[date]:
    """Return the days of which an asset has a materialization."""
    ids = context.instance.event_log_storage.get_latest_storage_id_by_partition(
        key, DagsterEventType.ASSET_MATERIALIZATION, {str(day) for day in days}
    )
    return [day for day in days if str(day) in ids]
