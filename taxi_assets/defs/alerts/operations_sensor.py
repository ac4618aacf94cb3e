"""The sensor behind every alert that is not about one run's failure, and the heartbeat.

It runs in the daemon, so its heartbeat stops with the daemon: a dead man's switch at
TAXI_HEARTBEAT_URL then raises the alarm that nothing here can raise any more.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

import dagster as dg

from taxi_assets.dagster_internals.alert_ledger import AlertLedger
from taxi_assets.defs.alerts.alert_sensors import AlertNotDeliveredError
from taxi_assets.defs.alerts.conditions import (
    Notice,
    describe_stale_store,
    find_ended_backfills,
    find_failed_ticks,
    find_long_runs,
)
from taxi_assets.defs.alerts.targets import send_alert
from taxi_assets.defs.freshness import Freshness, find_newest_published, read_freshness
from taxi_assets.defs.up_to_date import evaluation
from taxi_assets.errors import TerminalError
from taxi_assets.settings.alerts import AlertSettings, has_alert_target, has_heartbeat
from taxi_assets.settings.areas import AutomationSettings
from taxi_assets.tlc.remote_version import SourceUnavailableError
from taxi_assets.tlc.schema import Service

NAME = "operations_alert"
SECONDS = 10
"""Between two ticks. An alert arrives within half a minute."""
MAX_SENT = 2
"""Alerts of one tick, each of which may take 18 s."""
HEARTBEAT_SECONDS = 10
"""For which the heartbeat's answer is waited for."""
OVERLAP_SECONDS = 3600.0
"""Before the last tick: what was stored late is found all the same, and not sent twice."""
STALE_SECONDS = 24 * 3600.0
"""For which a published month may be on its way into the stores."""


def build_operations_sensor(services: Mapping[str, Service]) -> dg.SensorDefinition:
    """`operations_alert`; it runs by default if a target or a heartbeat URL is set."""
    wanted = has_alert_target() or has_heartbeat()
    status = dg.DefaultSensorStatus.RUNNING if wanted else dg.DefaultSensorStatus.STOPPED

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=SECONDS,
        default_status=status,
        description="Requests TAXI_HEARTBEAT_URL, and reports failed ticks of schedules and "
        "sensors, runs over TAXI_RUN_TIME_LIMIT_HOURS, backfills that ended, and stores without "
        "the newest published month for a day. Each once.",
    )
    def operations_alert(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        settings, now = AlertSettings.from_env(), time.time()
        ledger = AlertLedger.load(context.instance, now)
        url = settings.heartbeat_url
        notes = [f"heartbeat: {request_heartbeat(url.get_secret_value())}"] if url else []
        found = list(_freshness(context, services.values(), ledger, now))
        notices = [
            *find_failed_ticks(context.instance, ledger.since, NAME, settings.ui_url),
            *find_long_runs(
                context.instance, settings.run_time_limit_hours * 3600, now, settings.ui_url
            ),
            *find_ended_backfills(context.instance, ledger.since, settings.ui_url),
            *_stale(found, ledger, now, settings.ui_url),
        ]
        unsent = _send(context, ledger, notices, settings, now) if has_alert_target() else []
        ledger.since = max(ledger.since, now - OVERLAP_SECONDS)
        ledger.save(now)
        for line in notes:
            context.log.info(line)
        if unsent:
            raise AlertNotDeliveredError("; ".join(unsent))
        return dg.SensorResult(
            skip_reason="; ".join([*notes, f"{len(notices)} conditions"]),
            asset_events=[evaluation(one) for one in found],
        )

    return operations_alert


def request_heartbeat(url: str) -> str:
    """Request the dead man's switch; return the answer's status, or the error without the URL."""
    import requests  # noqa: PLC0415 - heavy at import

    try:
        with requests.get(
            url, timeout=HEARTBEAT_SECONDS, allow_redirects=False, stream=True
        ) as answer:
            return f"HTTP {answer.status_code}"
    except requests.RequestException as error:
        # Its message would quote the URL, which is a secret.
        return type(error).__name__


def _freshness(
    context: dg.SensorEvaluationContext,
    services: Iterable[Service],
    ledger: AlertLedger,
    now: float,
) -> Iterator[Freshness]:
    """Every store's freshness, each time that the source is due to be asked."""
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


def _stale(
    found: list[Freshness], ledger: AlertLedger, now: float, ui_url: str
) -> Iterator[Notice]:
    for one in found:
        notice = describe_stale_store(one, ui_url)
        if one.is_fresh:
            ledger.clear(notice.key)
        elif ledger.measure_duration(notice.key, now) >= STALE_SECONDS:
            yield notice


def _send(
    context: dg.SensorEvaluationContext,
    ledger: AlertLedger,
    notices: list[Notice],
    settings: AlertSettings,
    now: float,
) -> list[str]:
    """Send what was not sent; return whom it did not reach."""
    unsent = []
    sent = 0
    for notice in notices:
        # Dagster cuts a tick off after 60 s; the next one goes on.
        if sent == MAX_SENT or not ledger.begin(notice.key, now):
            continue
        sent += 1
        failed = send_alert(notice, settings)
        ledger.finish(notice.key, now)
        context.log.info(f"sent: {notice.title}")
        unsent += [f"{notice.title} did not reach {name}: {why}" for name, why in failed.items()]
    return unsent
