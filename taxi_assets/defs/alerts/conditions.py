"""What an operator must know beside failed runs: one notice for each thing that went wrong.

Ticks that fail, runs that take too long, backfills that ended, services that are not up to date.
Here conditions are found; `operations_sensor` sends them, each once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import dagster as dg
from dagster import DagsterRunStatus

from taxi_assets.dagster_internals.backfills import list_ended_backfills
from taxi_assets.dagster_internals.instigators import find_first_failures
from taxi_assets.defs.alerts.message import format_list
from taxi_assets.defs.freshness import Freshness
from taxi_assets.errors import format_one_line
from taxi_assets.partitions import PARTITION, RANGE

RUNNING = (DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING)
MAX_TEXT = 500
"""Characters of an error."""


@dataclass(frozen=True)
class Notice:
    """One message about the instance, as `Alert` is one about a run.

    `key` is the same for the same event, whoever finds it.
    """

    key: str
    title: str
    lines: tuple[str, ...]
    link: str


def find_failed_ticks(
    instance: dg.DagsterInstance, since: float, own_name: str, ui_url: str
) -> Iterator[Notice]:
    """Return schedules and sensors whose last tick failed, once until a tick succeeds."""
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
    """Return runs that were started more than `limit` seconds ago and have not ended."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=list(RUNNING))):
        started = record.start_time
        if started is not None and now - started > limit:
            run = record.dagster_run
            days = _days(run.tags)
            yield Notice(
                f"long {run.run_id}",
                f"{run.job_name} runs for {(now - started) / 3600:.1f} h{days}",
                (f"The limit is {limit / 3600:g} h (TAXI_RUN_TIME_LIMIT_HOURS).",),
                f"{ui_url}/runs/{run.run_id}",
            )


def find_ended_backfills(
    instance: dg.DagsterInstance, since: float, ui_url: str
) -> Iterator[Notice]:
    """Return backfills that have ended, successfully or not."""
    for backfill in list_ended_backfills(instance, since):
        how = "succeeded" if backfill.succeeded else f"ended as {backfill.status}"
        failed = f", {backfill.failed_runs} of them failed" if backfill.failed_runs else ""
        yield Notice(
            f"backfill {backfill.backfill_id}",
            f"backfill {backfill.backfill_id} {how}",
            (f"{backfill.runs} runs{failed}: {format_list(backfill.assets)}",),
            f"{ui_url}/runs/b/{backfill.backfill_id}",
        )


def describe_stale_store(found: Freshness, ui_url: str) -> Notice:
    """Return stores that do not have the newest published month."""
    return Notice(
        f"stale {found.service} {found.store} {found.published}",
        f"{found.service}/{found.store} is not up to date",
        (str(found),),
        f"{ui_url}/assets/{found.service}/{found.store}?view=checks",
    )


def _days(tags: Mapping[str, str]) -> str:
    first = tags.get(RANGE[0]) or tags.get(PARTITION)
    last = tags.get(RANGE[1]) or first
    return "" if first is None else f": {first}" if first == last else f": {first} to {last}"
