"""The sensor that sends the heartbeat, and alerts on conditions besides failed runs.

The conditions are failed ticks, long runs, ended backfills and stale stores; each is reported once.

It runs in the daemon, so its heartbeat stops with the daemon: the dead man's switch at
TAXI_HEARTBEAT_URL then raises the alarm.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

import dagster as dg
import requests
from dagster import DagsterRunStatus

from taxi_assets.dagster_internals.alert_ledger import AlertLedger
from taxi_assets.dagster_internals.backfills import list_ended_backfills
from taxi_assets.dagster_internals.instigators import find_first_failures
from taxi_assets.defs.alerts.alert_sensors import MAX_CAUSE_LENGTH, AlertNotDeliveredError
from taxi_assets.defs.alerts.targets import Notice, send_alert
from taxi_assets.defs.freshness import (
    Freshness,
    build_evaluation,
    find_newest_published,
    read_freshness,
)
from taxi_assets.errors import TerminalError, format_count, format_list, format_one_line
from taxi_assets.partitions import format_run_days
from taxi_assets.settings.alerts import AlertSettings, has_alert_target, has_heartbeat
from taxi_assets.settings.areas import AutomationSettings
from taxi_assets.tlc.http_session import LimitedSession
from taxi_assets.tlc.remote_version import SourceUnavailableError
from taxi_assets.tlc.schema import Service

NAME = "operations_alert"
SECONDS = 10
"""Interval between two ticks. An alert arrives within half a minute."""
MAX_SENT = 2
"""Maximum number of alerts per tick, each of which may take 18 s."""
HEARTBEAT_SECONDS = 10
"""Time limit of the heartbeat, whose server must not delay the alerts of its tick."""
OVERLAP_SECONDS = 3600.0
"""Time before the last tick that is read again, for events that were stored late."""
STALE_SECONDS = 24 * 3600.0
"""Time that a published month may take to reach the stores."""
UNENDED = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]


def build_operations_sensor(services: Mapping[str, Service]) -> dg.SensorDefinition:
    """Build `operations_alert`, which runs by default if a target or a heartbeat URL is set."""
    is_needed = has_alert_target() or has_heartbeat()
    status = dg.DefaultSensorStatus.RUNNING if is_needed else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=SECONDS,
        default_status=status,
        description="Requests TAXI_HEARTBEAT_URL, and reports once each: failed ticks of schedules "
        "and sensors, runs over TAXI_RUN_TIME_LIMIT_HOURS, ended backfills, and stores that have "
        "been without the newest published month for a day.",
    )
    def operations_alert(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        settings, now = AlertSettings.from_env(), time.time()
        ledger = AlertLedger.load(context.instance, now)
        url = settings.heartbeat_url
        remarks = [f"heartbeat: {request_heartbeat(url.get_secret_value())}"] if url else []
        freshness = list(_measure_freshness(context, services.values(), ledger, now))
        notices = [
            *find_failed_ticks(context.instance, ledger.since, NAME, settings.ui_url),
            *find_long_runs(
                context.instance, settings.run_time_limit_hours * 3600, now, settings.ui_url
            ),
            *find_ended_backfills(context.instance, ledger.since, settings.ui_url),
            *_find_stale_stores(freshness, ledger, now, settings.ui_url),
        ]
        failures = (
            _send_notices(context, ledger, notices, settings, now) if has_alert_target() else []
        )
        ledger.since = max(ledger.since, now - OVERLAP_SECONDS)
        ledger.save(now)
        for line in remarks:
            context.log.info(line)
        if failures:
            raise AlertNotDeliveredError("; ".join(failures))
        return dg.SensorResult(
            skip_reason="; ".join([*remarks, f"{len(notices)} conditions"]),
            asset_events=[build_evaluation(context.instance, store) for store in freshness],
        )

    return operations_alert


def request_heartbeat(url: str) -> str:
    """Request the dead man's switch; return the response's status, or the error without the URL."""
    try:
        with (
            LimitedSession(HEARTBEAT_SECONDS, HEARTBEAT_SECONDS) as session,
            session.get(
                url, timeout=HEARTBEAT_SECONDS, allow_redirects=False, stream=True
            ) as response,
        ):
            return f"HTTP {response.status_code}"
    except requests.RequestException as error:
        # The error's message would quote the URL, which is a secret.
        return type(error).__name__


def _measure_freshness(
    context: dg.SensorEvaluationContext,
    services: Iterable[Service],
    ledger: AlertLedger,
    now: float,
) -> Iterator[Freshness]:
    """Yield the freshness of every store, once per interval of the month sensors."""
    if (
        now - ledger.seen.get("freshness", 0.0)
        < AutomationSettings.from_env().sensor_interval_seconds
    ):
        return
    ledger.seen["freshness"] = now
    for service in services:
        try:
            published = find_newest_published(service)
        except (TerminalError, SourceUnavailableError) as error:
            context.log.warning(f"{service.name}: {error}")
            continue
        if published is not None:
            yield from read_freshness(context.instance, service, published)


def _find_stale_stores(
    freshness: list[Freshness], ledger: AlertLedger, now: float, ui_url: str
) -> Iterator[Notice]:
    for store in freshness:
        notice = describe_stale_store(store, ui_url)
        if store.is_fresh:
            ledger.clear(notice.key)
        elif ledger.measure_duration(notice.key, now) >= STALE_SECONDS:
            yield notice


def _send_notices(
    context: dg.SensorEvaluationContext,
    ledger: AlertLedger,
    notices: list[Notice],
    settings: AlertSettings,
    now: float,
) -> list[str]:
    """Send new notices; return a message for each target that one did not reach."""
    failures = list[str]()
    count = 0
    for notice in notices:
        # Dagster ends a tick after 60 s; the next one continues.
        if count == MAX_SENT or not ledger.begin(notice.key, now):
            continue
        count += 1
        reasons = send_alert(notice, settings)
        ledger.finish(notice.key, now)
        context.log.info(f"sent: {notice.title}")
        failures += [
            f"{notice.title} did not reach {name}: {reason}" for name, reason in reasons.items()
        ]
    return failures


def find_failed_ticks(
    instance: dg.DagsterInstance, since: float, own_name: str, ui_url: str
) -> Iterator[Notice]:
    """Yield a notice for each schedule and sensor that began to fail since a time."""
    for name, tick in find_first_failures(instance, since):
        if name != own_name:
            yield Notice(
                f"tick {tick.tick_id}",
                f"{name}: a tick failed",
                (format_one_line(tick.message)[:MAX_CAUSE_LENGTH],),
                f"{ui_url}/automation",
            )


def find_long_runs(
    instance: dg.DagsterInstance, limit: float, now: float, ui_url: str
) -> Iterator[Notice]:
    """Yield a notice for each run that started more than `limit` seconds ago and has not ended."""
    for record in instance.get_run_records(dg.RunsFilter(statuses=UNENDED)):
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
            (f"{format_count(backfill.runs, 'run')}{failed}: {format_list(backfill.assets)}",),
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
