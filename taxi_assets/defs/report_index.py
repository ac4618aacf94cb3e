"""What became of every day, from the event log, for the page of all reports."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import dagster as dg

from taxi_assets.dagster_internals.rejections import find_rejected_days
from taxi_assets.date_ranges import ONE_DAY, DateRange, Month
from taxi_assets.partitions import daily_partitions
from taxi_assets.report.index_page import ServiceCalendar, find_states
from taxi_assets.tlc.schema import Service

STORES = ("postgres_trips", "gcs_trips", "bigquery_trips")


def collect_calendars(
    instance: dg.DagsterInstance, services: Iterable[Service], written: tuple[Service, Month]
) -> list[ServiceCalendar]:
    """Return the calendar of each service; `written` is the report that is stored just now."""
    calendars: list[ServiceCalendar] = []
    for service in services:
        keys = [dg.AssetKey([service.name, name]) for name in STORES]
        stored = [_days(instance.get_materialized_partitions(key)) for key in keys]
        days = list(_partitions())
        rejected = {day for key in keys for day in find_rejected_days(instance, key, days)}
        reports = instance.get_materialized_partitions(
            dg.AssetKey([service.name, "monthly_report"])
        )
        months = {Month.of(day) for day in _days(reports)}
        if service == written[0]:
            months.add(written[1])
        states = find_states(_partitions(), stored, rejected)
        calendars.append(ServiceCalendar(service.name, states, months))
    return calendars


def _days(partitions: Iterable[str]) -> set[date]:
    return {date.fromisoformat(partition) for partition in partitions}


def _partitions() -> DateRange:
    partitions = daily_partitions()
    first, last = partitions.get_first_partition_key(), partitions.get_last_partition_key()
    if first is None or last is None:
        raise dg.Failure("there is no daily partition yet: set TAXI_START_DATE to an earlier day")
    return DateRange(date.fromisoformat(first), date.fromisoformat(last) + ONE_DAY)
