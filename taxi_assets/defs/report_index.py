"""Find the state of every day in the event log, for the index of all reports."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import dagster as dg

from taxi_assets.dagster_internals.rejections import find_rejected_days
from taxi_assets.date_ranges import Month
from taxi_assets.defs.freshness import STORES
from taxi_assets.partitions import get_partition_range
from taxi_assets.report.index_page import ServiceCalendar, find_states
from taxi_assets.tlc.schema import Service


def collect_calendars(
    instance: dg.DagsterInstance, services: Iterable[Service], written: tuple[Service, Month]
) -> list[ServiceCalendar]:
    """Return the calendar of each service, including the report that is `written` now."""
    calendars: list[ServiceCalendar] = []
    days = get_partition_range()
    if days is None:
        raise dg.Failure("there is no daily partition yet: set TAXI_START_DATE to an earlier day")
    for service in services:
        keys = [dg.AssetKey([service.name, name]) for name in STORES]
        stored = [_parse_days(instance.get_materialized_partitions(key)) for key in keys]
        rejected = {day for key in keys for day in find_rejected_days(instance, key, list(days))}
        reports = instance.get_materialized_partitions(
            dg.AssetKey([service.name, "monthly_report"])
        )
        months = {Month.of(day) for day in _parse_days(reports)}
        if service == written[0]:
            months.add(written[1])
        states = find_states(days, stored, rejected)
        calendars.append(ServiceCalendar(service.name, states, months))
    return calendars


def _parse_days(partitions: Iterable[str]) -> set[date]:
    return {date.fromisoformat(partition) for partition in partitions}
