"""`taxi-assets status`: services, months, stores, queue, daemon, schedules on one screen."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from rich.console import Console
from rich.table import Table

from taxi_assets.cli.day_states import STORES
from taxi_assets.cli.runner import UNFINISHED
from taxi_assets.dagster_internals.instigators import Instigator, read_instigators
from taxi_assets.dagster_internals.rejections import find_rejected_days
from taxi_assets.dagster_internals.run_queue import MAX_HEARTBEAT_AGE_SECONDS, get_heartbeat_ages
from taxi_assets.date_ranges import group_days_by_month
from taxi_assets.local.__main__ import get_status as get_local_status
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets.partitions import TIMEZONE
from taxi_assets.settings import Settings
from taxi_assets.tlc.loaded_services import load_services
from taxi_assets.tlc.schema import Service

REJECTED_DAYS = 31
"""Latest loaded days in which rejected ones are counted; `plan` counts any range."""


def collect_status(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return everything that the screen shows, as plain values."""
    settings = Settings.from_env()
    runs = instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED)))
    return {
        "instance": instance.root_directory,
        "profile": settings.profile,
        "services": {
            name: service_status(instance, service) for name, service in load_services().items()
        },
        "stores": _stores(settings),
        "queue": dict(Counter(run.status.value for run in runs)),
        "daemons": {
            name: {"seconds": round(age), "alive": age < MAX_HEARTBEAT_AGE_SECONDS}
            for name, age in sorted(get_heartbeat_ages(instance).items())
        },
        "automation": [_instigator(one) for one in _all_instigators(instance)],
    }


def service_status(instance: dg.DagsterInstance, service: Service) -> dict[str, Any]:
    """Return the days and the newest day of each store, and what was rejected lately."""
    found: dict[str, Any] = {}
    newest: list[date] = []
    for name in STORES:
        partitions = instance.get_materialized_partitions(dg.AssetKey([service.name, name]))
        days = sorted(map(date.fromisoformat, partitions))
        months = group_days_by_month(days)
        found[name] = {
            "days": len(days),
            "months": len(months),
            "whole_months": sum(len(month.window) == len(of) for month, of in months.items()),
            "newest": str(days[-1]) if days else None,
        }
        newest = max(newest, days[-REJECTED_DAYS:])
    rejected = find_rejected_days(instance, dg.AssetKey([service.name, "bigquery_trips"]), newest)
    return {"stores": found, "rejected": sorted(map(str, rejected))}


def _stores(settings: Settings) -> dict[str, str]:
    """Return the address of each store, and whether an embedded one is running."""
    postgres, bigquery, lake = settings.postgres, settings.bigquery, settings.lake
    embedded = get_local_status(StateDirectory(settings.home)) if settings.needs_local_stack else {}

    def local(name: str) -> str:
        return f"embedded, {embedded[name]['state']} {embedded[name]['address'] or ''}".strip()

    return {
        "postgres": f"{postgres.host}:{postgres.port}" if postgres.host else local("postgres"),
        "lake": str(lake.path) if lake.path else f"gs://{lake.bucket}",
        "bigquery": local("bigquery")
        if bigquery.embedded
        else f"{bigquery.endpoint or 'Google'} {bigquery.project}.{bigquery.dataset}",
    }


def _all_instigators(instance: dg.DagsterInstance) -> list[Instigator]:
    """Return all schedules and sensors, including those that never ran."""
    from taxi_assets.definitions import defs  # noqa: PLC0415 - takes two seconds

    known = {one.name: one for one in read_instigators(instance)}
    for kind, parts in (("schedule", defs.schedules or ()), ("sensor", defs.sensors or ())):
        for part in parts:
            running = getattr(part, "default_status").value == "RUNNING"  # noqa: B009 - two types
            known.setdefault(part.name, Instigator(part.name, kind, running, []))
    return sorted(known.values(), key=lambda one: (one.kind, one.name))


def _instigator(found: Instigator) -> dict[str, Any]:
    tick = found.ticks[0] if found.ticks else None
    when = datetime.fromtimestamp(tick.timestamp, ZoneInfo(TIMEZONE)) if tick else None
    return {
        "name": found.name,
        "kind": found.kind,
        "running": found.is_running,
        "last_tick": f"{when:%Y-%m-%d %H:%M}" if when else None,
        "status": tick.status if tick else None,
        "message": tick.message if tick else "",
    }


def print_status(found: dict[str, Any], console: Console) -> None:
    """Show it on one screen."""
    console.print(f"instance {found['instance']} (profile {found['profile']})", soft_wrap=True)
    table = _table("service", "store", "days", "months", "whole", "newest", "rejected lately")
    for service, status in found["services"].items():
        for store, days in status["stores"].items():
            table.add_row(
                service,
                store,
                *(str(days[name]) for name in ("days", "months", "whole_months")),
                days["newest"] or "-",
                ", ".join(status["rejected"]) if store == STORES[-1] else "",
            )
    console.print(table)
    for name, place in found["stores"].items():
        console.print(f"{name:9} {place}", soft_wrap=True, highlight=False)
    queue = ", ".join(f"{count} {status}" for status, count in found["queue"].items())
    console.print(f"{'queue':9} {queue or 'no unfinished run'}", highlight=False)
    console.print(f"{'daemon':9} {_daemon(found['daemons'])}", highlight=False, soft_wrap=True)
    table = _table("automation", "kind", "on", "last tick", "status", "message")
    for one in found["automation"]:
        table.add_row(
            one["name"],
            one["kind"],
            "on" if one["running"] else "off",
            one["last_tick"] or "-",
            one["status"] or "",
            one["message"],
        )
    console.print(table)


def _daemon(daemons: dict[str, Any]) -> str:
    if not daemons:
        return "none has ever run on this instance"
    silent = {name: it["seconds"] for name, it in daemons.items() if not it["alive"]}
    if not silent:
        return f"alive ({len(daemons)} parts)"
    return "silent: " + ", ".join(f"{name} for {age:,} s" for name, age in silent.items())


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, overflow="fold")
    return table
