"""The definitions of the code location: assets, checks, resources, jobs, schedules and sensors."""

# ruff: noqa: E402 - the collector must be off before the imports
from __future__ import annotations

import gc

# Objects of imports and definitions live as long as the process. The garbage collector would
# traverse them repeatedly while they grow (0.2 s), and once more at exit (0.7 s).
gc.disable()

import warnings
from collections.abc import Callable, Mapping
from typing import Any, cast

import dagster as dg

from taxi_assets.defs.alerts.alert_sensors import build_alert_sensors
from taxi_assets.defs.alerts.operations_sensor import build_operations_sensor
from taxi_assets.defs.automation.history import build_run_retention_sensors
from taxi_assets.defs.automation.schedules import build_daily_schedule
from taxi_assets.defs.automation.sensors import build_monthly_report_sensor, build_new_month_sensor
from taxi_assets.defs.daily_assets import build_service_assets
from taxi_assets.defs.freshness import build_up_to_date_checks
from taxi_assets.defs.io_managers.base import PartitionIOManager
from taxi_assets.defs.io_managers.bigquery import BigQueryTripsIOManager
from taxi_assets.defs.io_managers.frame import CleanedTripsIOManager
from taxi_assets.defs.io_managers.lake_parquet import LakeTripsIOManager
from taxi_assets.defs.io_managers.monthly_report import MonthlyReportIOManager
from taxi_assets.defs.io_managers.postgres import PostgresTripsIOManager
from taxi_assets.defs.io_managers.raw_trips import RawTripsIOManager
from taxi_assets.defs.jobs.daily import build_daily_job, build_monthly_report_job
from taxi_assets.defs.jobs.export_parquet import build_export_parquet_job
from taxi_assets.defs.jobs.inspect_object import build_inspect_object_job
from taxi_assets.defs.jobs.sql_query import build_sql_query_job
from taxi_assets.defs.monthly_report import build_monthly_report
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.cleaning import CleaningResource
from taxi_assets.defs.resources.fields import build_from_environment
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.month_lock import month_locks
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.defs.resources.source import SourceResource
from taxi_assets.defs.stores_agree import build_stores_agree_check
from taxi_assets.settings.areas import AutomationSettings
from taxi_assets.tlc.loaded_services import load_services
from taxi_assets.tlc.schema import Service

IN_PROCESS = dg.in_process_executor.configured({})
"""Without config, as in `execute_in_process`: the UI compares the job of a run with the loaded one,
and marks the run of a command with a warning if they differ."""

# Tests pin the beta and preview features of Dagster that this package uses.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.simplefilter("ignore", category)
# dagster-dbt installs an extra of sqlglot that sqlglot calls deprecated.
warnings.filterwarnings("ignore", r"sqlglot\[rs\]", UserWarning)


def build_defs(
    services: Mapping[str, Service] | None = None,
    overrides: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition = IN_PROCESS,
) -> dg.Definitions:
    """Build the definitions of `services`, by default those of TAXI_SERVICES.

    `overrides` replaces resources by key.

    Raises:
        SettingsError: TAXI_SERVICES names an unknown service.
    """
    services = load_services() if services is None else services
    assets = [asset for service in services.values() for asset in build_service_assets(service)]
    executable = [asset for asset in assets if isinstance(asset, dg.AssetsDefinition)]
    jobs = [
        build_daily_job(service, [asset.key for asset in executable if asset.key.path[0] == name])
        for name, service in services.items()
    ]
    reports = [build_monthly_report(service) for service in services.values()]
    report_keys = [report.key for report in reports]
    jobs += map(build_monthly_report_job, services.values(), report_keys)
    automation = AutomationSettings.from_env()
    return dg.Definitions(
        assets=[*assets, *reports],
        asset_checks=[
            *(build_stores_agree_check(service) for service in services.values()),
            *(check for service in services.values() for check in build_up_to_date_checks(service)),
        ],
        jobs=[
            *jobs,
            build_sql_query_job(services),
            build_inspect_object_job(services),
            build_export_parquet_job(services),
        ],
        schedules=[build_daily_schedule(service, automation) for service in services.values()],
        sensors=[
            *(build_new_month_sensor(service, automation) for service in services.values()),
            build_monthly_report_sensor(report_keys, automation),
            *build_alert_sensors(),
            build_operations_sensor(services),
            *build_run_retention_sensors(),
        ],
        resources=_build_resources(services) | dict(overrides or {}),
        executor=executor,
    )


def _build_resources(services: Mapping[str, Service]) -> dict[str, Any]:
    """Build the connections, and the IO managers that store the assets of the same name."""
    return {
        "source": build_from_environment(SourceResource, redactable=["template"]),
        "cleaning": build_from_environment(CleaningResource),
        "lake": build_from_environment(LakeResource),
        "month_locks": month_locks,
        "postgres": build_from_environment(PostgresResource),
        "bigquery": build_from_environment(BigQueryResource),
        "raw_trips": _build_io_manager(RawTripsIOManager, services, "lake"),
        "cleaned_trips": _build_io_manager(CleanedTripsIOManager, services, "lake"),
        "postgres_trips": _build_io_manager(PostgresTripsIOManager, services, "postgres"),
        "gcs_trips": _build_io_manager(LakeTripsIOManager, services, "lake"),
        "bigquery_trips": _build_io_manager(BigQueryTripsIOManager, services, "bigquery"),
        "monthly_report": _build_io_manager(MonthlyReportIOManager, services, "lake"),
    }


def _build_io_manager(
    make: Callable[[Mapping[str, Service], Any], dg.IOManager],
    services: Mapping[str, Service],
    resource: str,
) -> dg.IOManagerDefinition:
    """Build an IO manager on the resource of a run, as the run's config defines it."""

    def create(context: dg.InitResourceContext) -> dg.IOManager:
        manager = make(services, getattr(context.resources, resource))
        if isinstance(manager, PartitionIOManager):
            manager.month_locks = context.resources.month_locks
        return manager

    return dg.IOManagerDefinition(
        cast("Any", create), required_resource_keys={resource, "month_locks"}
    )


defs = build_defs()

gc.freeze()
gc.enable()
