"""Where everything meets: services, assets, checks, IO managers, jobs."""

# ruff: noqa: E402 - the collector is off before the imports begin
from __future__ import annotations

import gc

# What imports and definitions make lives as long as the process. Left to the collector it is
# walked over and over while it grows (0.3 s), and once more at exit (0.7 s).
gc.disable()

from collections.abc import Callable, Mapping
from typing import Any, cast

import dagster as dg

from taxi_assets.defs.alerts.alert_sensors import alert_sensors
from taxi_assets.defs.automation.reports import monthly_report_job, monthly_report_sensor
from taxi_assets.defs.automation.schedules import daily_schedule
from taxi_assets.defs.automation.sensors import new_month_sensor
from taxi_assets.defs.daily_assets import service_assets
from taxi_assets.defs.io_managers.base import DaysIOManager
from taxi_assets.defs.io_managers.bigquery import BigQueryIOManager
from taxi_assets.defs.io_managers.frame import FrameIOManager
from taxi_assets.defs.io_managers.lake_parquet import LakeParquetIOManager
from taxi_assets.defs.io_managers.monthly_report import MonthlyReportIOManager
from taxi_assets.defs.io_managers.postgres import PostgresIOManager
from taxi_assets.defs.io_managers.raw_trips import RawTripsIOManager
from taxi_assets.defs.jobs.daily import daily_job
from taxi_assets.defs.jobs.export_parquet import export_parquet_job
from taxi_assets.defs.jobs.inspect_object import inspect_object_job
from taxi_assets.defs.jobs.sql_query import sql_query_job
from taxi_assets.defs.monthly_report import monthly_report
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.cleaning import CleaningResource
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.month_lock import month_locks
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.defs.resources.source import SourceResource
from taxi_assets.defs.stores_agree import stores_agree
from taxi_assets.settings.areas import AutomationSettings
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.services import SERVICES


def build_defs(
    services: Mapping[str, Service] = SERVICES,
    overrides: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition = dg.in_process_executor,
) -> dg.Definitions:
    """The definitions of `services`; `overrides` replaces resources by their key."""
    assets = [asset for service in services.values() for asset in service_assets(service)]
    executable = [asset for asset in assets if isinstance(asset, dg.AssetsDefinition)]
    jobs = [
        daily_job(service, [asset.key for asset in executable if asset.key.path[0] == name])
        for name, service in services.items()
    ]
    reports = [monthly_report(service) for service in services.values()]
    report_keys = [report.key for report in reports]
    jobs += map(monthly_report_job, services.values(), report_keys)
    automation = AutomationSettings.from_env()
    return dg.Definitions(
        assets=[*assets, *reports],
        asset_checks=[stores_agree(service) for service in services.values()],
        jobs=[*jobs, sql_query_job(), inspect_object_job(), export_parquet_job(services)],
        schedules=[daily_schedule(service, automation) for service in services.values()],
        sensors=[
            *(new_month_sensor(service, automation) for service in services.values()),
            monthly_report_sensor(report_keys, automation),
            *alert_sensors(),
        ],
        resources={
            "source": SourceResource(),
            "cleaning": CleaningResource(),
            "lake": LakeResource(),
            "month_locks": month_locks,
            "postgres": PostgresResource(),
            "bigquery": BigQueryResource(),
            "raw_trips": _io_manager(RawTripsIOManager, services, "lake"),
            "cleaned_trips": _io_manager(FrameIOManager, services, "lake"),
            "postgres_trips": _io_manager(PostgresIOManager, services, "postgres"),
            "gcs_trips": _io_manager(LakeParquetIOManager, services, "lake"),
            "bigquery_trips": _io_manager(BigQueryIOManager, services, "bigquery"),
            "monthly_report": _io_manager(MonthlyReportIOManager, services, "lake"),
            **(overrides or {}),
        },
        executor=executor,
    )


def _io_manager(
    make: Callable[[Mapping[str, Service], Any], dg.IOManager],
    services: Mapping[str, Service],
    resource: str,
) -> dg.IOManagerDefinition:
    """An IO manager on a run's own resource, which the run's config has reached."""

    def of_run(context: dg.InitResourceContext) -> dg.IOManager:
        manager = make(services, getattr(context.resources, resource))
        if isinstance(manager, DaysIOManager):
            manager.month_locks = context.resources.month_locks
        return manager

    return dg.IOManagerDefinition(
        cast("Any", of_run), required_resource_keys={resource, "month_locks"}
    )


defs = build_defs()

gc.freeze()
gc.enable()
