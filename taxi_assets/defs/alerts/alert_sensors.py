"""Sensors that send alerts on failed runs and failed checks, and the text of these alerts.

A run causes one alert. Dagster's cursor moves past a run when its tick ends, even if a target did
not accept the message. If the daemon or the code server dies within the tick, the sensor finds the
run again; entries in the run's own log, before and after sending, then limit it to a second
message. Failures from before the sensor's first tick are not reported.
"""

import re
from typing import Any

import dagster as dg
from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType

from taxi_assets.dagster_internals.tags import WILL_RETRY
from taxi_assets.defs.alerts.targets import Notice, send_alert
from taxi_assets.errors import SettingsError, format_list, format_one_line
from taxi_assets.partitions import format_run_days
from taxi_assets.settings.alerts import ALERT_URLS, AlertSettings, has_alert_target

SECONDS = 10
"""Interval between two ticks; Dagster's default is 30."""
MAX_TRIES = 2
"""Number of ticks that may send a run's alert: the first may die before it records success."""
MAX_CAUSE_LENGTH = 500
"""Characters."""
# `package.module.SomeError: text`, as Dagster formats an error.
QUALIFIED = re.compile(r"^(?:\w+\.)+(\w+): ")


class AlertNotDeliveredError(Exception):
    """Some targets did not accept an alert; shown in the tick."""


def build_alert_sensors() -> list[dg.SensorDefinition]:
    """Build `run_failure_alert` and `failed_check_alert`, which run by default if a target is set.

    They monitor every code location, and runs from a command line, which have no location.
    """
    running = dg.DefaultSensorStatus.RUNNING
    options: dict[str, Any] = {
        "default_status": running if has_alert_target() else dg.DefaultSensorStatus.STOPPED,
        "minimum_interval_seconds": SECONDS,
        "monitor_all_code_locations": True,
    }
    on_failure = dg.run_failure_sensor(
        name="run_failure_alert",
        description=f"Reports failed runs: asset, days, cause, link. {_list_targets()}",
        **options,
    )
    on_success = dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="failed_check_alert",
        description="Reports successful runs with failed checks: those of severity ERROR, and "
        f"with TAXI_ALERT_ON=failure_and_warnings of severity WARN. {_list_targets()}",
        **options,
    )
    return [on_failure(_report_run), on_success(_report_run)]


def _list_targets() -> str:
    """Return the alert targets, or the reason why there are none."""
    if not has_alert_target():
        return f"No target is set ({ALERT_URLS})."
    try:
        return f"Targets: {', '.join(AlertSettings.from_env().target_names)}."
    except SettingsError as error:
        return f"No alert can be sent, the settings are invalid: {error}"


def _report_run(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
    if not has_alert_target():
        return dg.SkipReason(f"no target is set ({ALERT_URLS})")
    settings = AlertSettings.from_env()
    alert = build_alert(
        context.instance,
        context.dagster_run,
        context.dagster_event,
        settings.ui_url,
        warn=settings.on_warnings,
    )
    if alert is not None:
        _deliver_alert(context, alert, settings)
    return None


def _deliver_alert(
    context: dg.RunStatusSensorContext, alert: Notice, settings: AlertSettings
) -> None:
    begun, done = f"{context.sensor_name}: alerting", f"{context.sensor_name}: alerted"
    messages = [
        record.event_log_entry.get_dagster_event().message or ""
        for record in context.instance.get_records_for_run(
            alert.key, of_type=DagsterEventType.ENGINE_EVENT
        ).records
    ]
    tries = sum(message.startswith(begun) for message in messages)
    if tries >= MAX_TRIES or any(message.startswith(done) for message in messages):
        context.log.info(f"run {alert.key} has been reported")
        return
    _record_delivery(context, f"{begun} {', '.join(settings.target_names)}")
    failures = send_alert(alert, settings)
    reached = ", ".join(name for name in settings.target_names if name not in failures)
    failed = "; ".join(f"{name}: {reason}" for name, reason in failures.items())
    suffix = f" (failed: {failed})" if failed else ""
    _record_delivery(context, f"{done} {reached or 'no target'}{suffix}")
    if failed:
        # The tick turns red and shows the reason; its cursor moves on nevertheless.
        raise AlertNotDeliveredError(f"the alert on run {alert.key} did not reach {failed}")


def _record_delivery(context: dg.RunStatusSensorContext, message: str) -> None:
    """Log a message in the run's own log and in the tick's."""
    context.instance.report_engine_event(message, context.dagster_run)
    context.log.info(message)


def build_alert(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    event: DagsterEvent,
    ui_url: str,
    *,
    warn: bool,
) -> Notice | None:
    """Build the notice on a finished run; None if it succeeded and no check failed.

    `event` is the event that ended it; with `warn`, failed checks of severity WARN are named too.
    """
    failures = [
        record.event_log_entry.get_dagster_event()
        for record in instance.get_records_for_run(
            run.run_id, of_type=DagsterEventType.STEP_FAILURE
        ).records
    ]
    # The name of a step is the asset key joined by two underscores; that of an op has none.
    assets = [(failure.step_key or "").replace("__", "/") for failure in failures]
    days = format_run_days(run.tags)
    cause = ""
    if event.is_failure:
        cause = describe_cause(failures[0] if failures else event)
        if len(cause) > MAX_CAUSE_LENGTH:
            cause = f"{cause[:MAX_CAUSE_LENGTH]}..."
        cause = cause.removeprefix(f"{assets[0]} {days}: " if assets else "")
        if run.tags.get(WILL_RETRY) == "true":
            cause += " (Dagster will retry the run)"
    checks = _list_failed_checks(instance, run, warn=warn)
    if not (event.is_failure or checks):
        return None
    # Dagster's internal name for a materialization from the asset graph.
    job = "materialization" if run.job_name.startswith("__") else run.job_name
    partitions = " ".join(filter(None, (format_list(assets), days)))
    result = "failed" if event.is_failure else "has failed checks"
    listed = f"Failed checks: {format_list(checks, '; ')}" if checks else ""
    return Notice(
        key=run.run_id,
        title=f"{job} {result}: {partitions}" if partitions else f"{job} {result}",
        lines=tuple(filter(None, (cause, listed))),
        link=f"{ui_url}/runs/{run.run_id}",
    )


def describe_cause(event: DagsterEvent) -> str:
    """Return the innermost cause of the failure of a step or a run, in one line."""
    data: Any = event.event_specific_data
    failure = getattr(data, "user_failure_data", None)
    if failure and failure.description:
        return format_one_line(failure.description)
    text, error = event.message or "", getattr(data, "error", None)
    while error is not None:
        text, error = error.message, error.cause
    return format_one_line(QUALIFIED.sub(r"\1: ", text))


def _list_failed_checks(
    instance: dg.DagsterInstance, run: dg.DagsterRun, *, warn: bool
) -> list[str]:
    """Return `asset.check (days)` for each failed check of the run."""
    days: dict[str, list[str]] = {}
    for record in instance.get_records_for_run(
        run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
    ).records:
        evaluation = record.event_log_entry.asset_check_evaluation
        if (
            evaluation
            and not evaluation.passed
            and (warn or evaluation.severity == AssetCheckSeverity.ERROR)
        ):
            name = f"{evaluation.asset_key.to_user_string()}.{evaluation.check_name}"
            days.setdefault(f"{evaluation.severity.value} {name}", []).append(
                evaluation.partition or ""
            )
    return [
        f"{name} ({format_list(sorted(failed))})" if any(failed) else name
        for name, failed in days.items()
    ]
