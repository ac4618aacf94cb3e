"""Find the conditions that alerts report besides failed runs, with one notice for each.

These are failed ticks, long runs, ended backfills and stale stores. `operations_sensor` sends each
notice once.
"""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
from dagster import DagsterRunStatus

from taxi_assets.dagster_internals.backfills import list_ended_backfills
from taxi_assets.dagster_internals.instigators import find_first_failures
from taxi_assets.defs.alerts.message import Notice
from taxi_assets.defs.freshness import Freshness
from taxi_assets.errors import format_list, format_one_line
from taxi_assets.partitions import format_run_days

RUNNING = (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)
MAX_TEXT = 500
"""Longest text of an error, in characters."""


def find_failed_ticks(
    instance: dg.DagsterInstance, since: float, own_name: str, ui_url: str
) -> Iterator[Notice]:
    """Yield a notice for each schedule and sensor that began to fail since a time."""
    for name, tick in find_first_failures(instance, since):
        if name != own_name:
            yield Notice(
                f"tick {tick.tick_id}",
                f"{name}: a tick failed",
                (format_one_line(tick.message)[:MAX_TEXT],),
                f"{ui_url}/automation",
            )


def find_long_runs(
    instance: dg.DagsterInstance, limit: float, now: float, ui_url: str
) -> Iterator[Notice]:
    """Yield a notice for each run that started more than `limit` seconds ago and has not ended."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(RUNNING))):
        started = record.start_time
        if started is not None and now - started > limit:
            run = record.dagster_run
            days = format_run_days(run.tags)
            suffix = f": {days}" if days else ""
            yield Notice(
                f"long {run.run_id}",
                f"{run.job_name} has been running for {(now - started) / 3600:.1f} h{suffix}",
                (f"The limit is {limit / 3600:g} h (TAXI_RUN_TIME_LIMIT_HOURS).",),
                f"{ui_url}/runs/{run.run_id}",
            )


def find_ended_backfills(
    instance: dg.DagsterInstance, since: float, ui_url: str
) -> Iterator[Notice]:
    """Yield a notice for each backfill that has ended, successfully or not."""
    for backfill in list_ended_backfills(instance, since):
        result = "succeeded" if backfill.succeeded else f"ended as {backfill.status}"
        failed = f", {backfill.failed_runs} of them failed" if backfill.failed_runs else ""
        yield Notice(
            f"backfill {backfill.backfill_id}",
            f"backfill {backfill.backfill_id} {result}",
            (f"{backfill.runs} runs{failed}: {format_list(backfill.assets)}",),
            f"{ui_url}/runs/b/{backfill.backfill_id}",
        )


def describe_stale_store(freshness: Freshness, ui_url: str) -> Notice:
    """Return the notice for a store without the newest published month."""
    return Notice(
        f"stale {freshness.service} {freshness.store} {freshness.published}",
        f"{freshness.service}/{freshness.store} is not up to date",
        (str(freshness),),
        f"{ui_url}/assets/{freshness.service}/{freshness.store}?view=checks",
    )
