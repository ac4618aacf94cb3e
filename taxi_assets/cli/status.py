"""The command `taxi-assets status`: services, stores, queue, daemon, automation on one screen."""

from __future__ import annotations

from collections import Counter
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
from rich.console import Console

from taxi_assets.cli.runner import UNFINISHED
from taxi_assets.cli.tables import build_table
from taxi_assets.dagster_internals.instigators import Instigator, read_instigators
from taxi_assets.dagster_internals.rejections import find_latest_rejected_days
from taxi_assets.dagster_internals.run_queue import MAX_HEARTBEAT_AGE_SECONDS, get_heartbeat_ages
from taxi_assets.date_ranges import group_days_by_month
from taxi_assets.defs.freshness import STORES
from taxi_assets.local.__main__ import get_status as get_local_status
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets.partitions import TIMEZONE
from taxi_assets.settings import Settings
from taxi_assets.tlc.loaded_services import load_services
from taxi_assets.tlc.schema import Service

REJECTED_DAYS = 31
"""Number of rejected days that are shown, the newest; `plan` covers any range."""


def collect_status(instance: dg.DagsterInstance) -> dict[str, Any]:
    """Return the content of the screen as plain values."""
    settings = Settings.from_env()
    runs = instance.get_runs(dg.RunsFilter(statuses=list(UNFINISHED)))
    return {
        "instance": instance.root_directory,
        "profile": settings.profile,
        "services": {
            name: collect_service_status(instance, service)
            for name, service in load_services().items()
        },
        "stores": _describe_stores(settings),
        "queue": dict(Counter(run.status.value for run in runs)),
        "daemons": {
            name: {"seconds": round(age), "alive": age < MAX_HEARTBEAT_AGE_SECONDS}
            for name, age in sorted(get_heartbeat_ages(instance).items())
        },
        "automation": [
            _describe_instigator(instigator) for instigator in _list_instigators(instance)
        ],
    }


def collect_service_status(instance: dg.DagsterInstance, service: Service) -> dict[str, Any]:
    """Return the number of days and the newest day of each store, and recently rejected days."""
    stores: dict[str, Any] = {}
    for name in STORES:
        partitions = instance.get_materialized_partitions(dg.AssetKey([service.name, name]))
        days = sorted(map(date.fromisoformat, partitions))
        months = group_days_by_month(days)
        stores[name] = {
            "days": len(days),
            "months": len(months),
            "complete_months": sum(
                len(month.window) == len(month_days) for month, month_days in months.items()
            ),
            "newest": str(days[-1]) if days else None,
        }
    rejected = find_latest_rejected_days(instance, dg.AssetKey([service.name, STORES[-1]]))
    return {"stores": stores, "rejected": sorted(map(str, rejected))[-REJECTED_DAYS:]}


def _describe_stores(settings: Settings) -> dict[str, str]:
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


def _list_instigators(instance: dg.DagsterInstance) -> list[Instigator]:
    """Return all schedules and sensors, including those that never ran."""
    from taxi_assets.definitions import defs

    instigators = {instigator.name: instigator for instigator in read_instigators(instance)}
    for kind, parts in (("schedule", defs.schedules or ()), ("sensor", defs.sensors or ())):
        for part in parts:
            running = getattr(part, "default_status").value == "RUNNING"  # noqa: B009 - two types
            instigators.setdefault(part.name, Instigator(part.name, kind, running, None))
    return sorted(instigators.values(), key=lambda instigator: (instigator.kind, instigator.name))


def _describe_instigator(instigator: Instigator) -> dict[str, Any]:
    tick = instigator.latest_tick
    when = datetime.fromtimestamp(tick.timestamp, ZoneInfo(TIMEZONE)) if tick else None
    return {
        "name": instigator.name,
        "kind": instigator.kind,
        "running": instigator.is_running,
        "last_tick": f"{when:%Y-%m-%d %H:%M}" if when else None,
        "status": tick.status if tick else None,
        "message": tick.message if tick else "",
    }


def print_status(status: dict[str, Any], console: Console) -> None:
    """Print the status on one screen."""
    console.print(f"instance {status['instance']} (profile {status['profile']})", soft_wrap=True)
    table = build_table(
        "service", "store", "days", "months", "complete", "newest", "rejected lately"
    )
    for service, service_state in status["services"].items():
        for store, days in service_state["stores"].items():
            table.add_row(
                service,
                store,
                *(str(days[name]) for name in ("days", "months", "complete_months")),
                days["newest"] or "-",
                ", ".join(service_state["rejected"]) if store == STORES[-1] else "",
            )
    console.print(table)
    for name, place in status["stores"].items():
        console.print(f"{name:9} {place}", soft_wrap=True, highlight=False)
    queue = ", ".join(f"{count} {state}" for state, count in status["queue"].items())
    console.print(f"{'queue':9} {queue or 'no unfinished run'}", highlight=False)
    console.print(
        f"{'daemon':9} {_describe_daemons(status['daemons'])}", highlight=False, soft_wrap=True
    )
    table = build_table("automation", "kind", "on", "last tick", "status", "message")
    for automation in status["automation"]:
        table.add_row(
            automation["name"],
            automation["kind"],
            "on" if automation["running"] else "off",
            automation["last_tick"] or "-",
            automation["status"] or "",
            automation["message"],
        )
    console.print(table)


def _describe_daemons(daemons: dict[str, Any]) -> str:
    if not daemons:
        return "none has ever run on this instance"
    silent = {name: daemon["seconds"] for name, daemon in daemons.items() if not daemon["alive"]}
    if not silent:
        return f"alive ({len(daemons)} parts)"
    return "silent: " + ", ".join(f"{name} for {age:,} s" for name, age in silent.items())
