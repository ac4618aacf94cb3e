"""Compare each store with the newest month that TLC (the Taxi & Limousine Commission) published.

The time since the last materialization would not do: loading 2009 would make a store look fresh.
Instead, every store must have all days of the newest published month.

The sensor `operations_alert` evaluates the check `up_to_date` of each store without a run; it can
also be executed in the UI. A run that loads days compares only if the schedule or the sensor of the
service is on: a store of a few old months, which nobody keeps up to date, needs no warning.
"""

from dataclasses import dataclass
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation

from taxi_assets.dagster_internals.instigators import is_any_running
from taxi_assets.dagster_internals.partition_records import find_check_target, list_run_steps
from taxi_assets.date_ranges import Month, merge_into_date_ranges
from taxi_assets.defs.automation.months import list_ended_months
from taxi_assets.defs.checks.specs import UP_TO_DATE
from taxi_assets.partitions import partitions_of_month
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import SAMPLE
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import probe_month_file

STORES = ("postgres_trips", "gcs_trips", "bigquery_trips")
MAX_PROBES = 24
"""Number of newest months without a file after which a service counts as unpublished."""


@dataclass(frozen=True)
class Freshness:
    """The newest month of a store, and the newest published month."""

    service: str
    store: str
    published: Month | None
    """The newest published month; None if none is."""
    loaded: Month | None
    """The newest month that is complete in the store."""
    missing: tuple[date, ...] = ()
    """Days of the newest published month that are missing in the store."""

    @property
    def is_fresh(self) -> bool:
        """Whether the store has every day of the newest published month."""
        return not self.missing

    def __str__(self) -> str:
        if self.published is None:
            return (
                f"{self.service}/{self.store}: not compared, because the source has published no "
                f"month, or neither schedule nor sensor of {self.service} is on"
            )
        days = ", ".join(map(str, merge_into_date_ranges(self.missing)))
        return (
            f"{self.service}/{self.store}: {self.published} is published, "
            f"{self.loaded or 'no month'} is the newest complete month here; "
            f"missing: {days or 'none'}"
        )


def find_newest_published(service: Service) -> Month | None:
    """Return the newest ended month at the source; None if there is none, or for the sample.

    Raises:
        SourceError: the source rejects the request.
        SourceUnavailableError: the source does not answer.
    """
    settings = Settings.from_env()
    if settings.source.template == SAMPLE:
        return None
    for month in list_ended_months()[::-1][:MAX_PROBES]:
        if probe_month_file(settings.source.template, service, month, home=settings.home):
            return month
    return None


def read_freshness(
    instance: dg.DagsterInstance, service: Service, published: Month | None
) -> list[Freshness]:
    """Compare every store with the newest published month."""
    return [_compare_store(instance, service, name, published) for name in STORES]


def _compare_store(
    instance: dg.DagsterInstance, service: Service, name: str, published: Month | None
) -> Freshness:
    days = instance.get_materialized_partitions(dg.AssetKey([service.name, name]))
    months = list_ended_months()[::-1]
    loaded = next(
        (month for month in months if days.issuperset(map(str, _list_due_days(month)))), None
    )
    due_days = _list_due_days(published) if published else []
    missing = tuple(day for day in due_days if str(day) not in days)
    return Freshness(service.name, name, published, loaded, missing)


def _list_due_days(month: Month) -> list[date]:
    """Return the days of a month that are partitions."""
    return list(partitions_of_month(month) or ())


def build_up_to_date_checks(service: Service) -> list[dg.AssetChecksDefinition]:
    """Build one check per store."""
    return [_build_check(service, name) for name in STORES]


def _build_check(service: Service, name: str) -> dg.AssetChecksDefinition:
    key = dg.AssetKey([service.name, name])
    automation = {f"{service.name}_daily_schedule", f"{service.name}_new_month_sensor"}

    @dg.asset_check(
        asset=key,
        name=UP_TO_DATE,
        description="WARN: the store has every day of the newest published month.",
    )
    def up_to_date(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        loads_days = key.to_python_identifier() in list_run_steps(context)
        is_compared = not loads_days or is_any_running(context.instance, automation)
        published = find_newest_published(service) if is_compared else None
        freshness = _compare_store(context.instance, service, name, published)
        return dg.AssetCheckResult(**_describe_result(freshness))

    return up_to_date


def build_evaluation(instance: dg.DagsterInstance, freshness: Freshness) -> AssetCheckEvaluation:
    """Return the check evaluation of a store that belongs to no run."""
    key = dg.AssetKey([freshness.service, freshness.store])
    return AssetCheckEvaluation(
        asset_key=key,
        check_name=UP_TO_DATE,
        target_materialization_data=find_check_target(instance, key),
        **_describe_result(freshness),
    )


def _describe_result(freshness: Freshness) -> dict[str, Any]:
    texts = {
        "newest_published": str(freshness.published or "none"),
        "newest_loaded": str(freshness.loaded or "none"),
        "missing_days": str(len(freshness.missing)),
    }
    return {
        "passed": freshness.is_fresh,
        "severity": dg.AssetCheckSeverity.WARN,
        "metadata": {name: dg.MetadataValue.text(text) for name, text in texts.items()},
        "description": str(freshness),
    }
