"""Sensors that tell of failed runs and failed checks.

A run is told of once. Dagster's cursor moves past a run when its tick ends, whether or not every
target took the message; a daemon or code server that dies within the tick finds the run again,
and what is noted in the run's own log before and after sending then keeps it to a second message
at most. Failures from before the sensor first ran are not told.
"""

import dagster as dg
from dagster import DagsterEventType

from taxi_assets.defs.alerts.message import Alert, build_alert
from taxi_assets.defs.alerts.targets import send_alert
from taxi_assets.errors import SettingsError
from taxi_assets.settings.alerts import ALERT_URLS, AlertSettings, has_alert_target

SECONDS = 10
"""Between two ticks; Dagster's default is 30."""
MAX_TRIES = 2
"""Ticks that may send a run's alert, when the first died before it noted that it was done."""


class AlertNotDeliveredError(Exception):
    """Targets that could not be told; shown in the tick."""


def build_alert_sensors() -> list[dg.SensorDefinition]:
    """Build `run_failure_alert` and `failed_check_alert`, running by default if a target is set.

    Of runs of every code location and those from a command line, which Dagster knows no
    location of.
    """
    status = (
        dg.DefaultSensorStatus.RUNNING if has_alert_target() else dg.DefaultSensorStatus.STOPPED
    )

    @dg.run_failure_sensor(
        name="run_failure_alert",
        description=f"Tells of failed runs: asset, days, cause, link. {_list_targets()}",
        default_status=status,
        minimum_interval_seconds=SECONDS,
        monitor_all_code_locations=True,
    )
    def run_failure_alert(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        return _build_sensor(context)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="failed_check_alert",
        description="Tells of runs that succeeded with failed checks: those of severity ERROR, and "
        f"with TAXI_ALERT_ON=failure_and_warnings of severity WARN. {_list_targets()}",
        default_status=status,
        minimum_interval_seconds=SECONDS,
        monitor_all_code_locations=True,
    )
    def failed_check_alert(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        return _build_sensor(context)

    return [run_failure_alert, failed_check_alert]


def _list_targets() -> str:
    """Return the alert targets, or the reason why there are none."""
    if not has_alert_target():
        return f"No target is set ({ALERT_URLS})."
    try:
        return f"Targets: {', '.join(AlertSettings.from_env().target_names)}."
    except SettingsError as error:
        return f"Nobody is told, the settings are wrong: {error}"


def _build_sensor(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
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
    if alert.failed or alert.checks:
        _deliver_alert(context, alert, settings)
    return None


def _deliver_alert(
    context: dg.RunStatusSensorContext, alert: Alert, settings: AlertSettings
) -> None:
    begun, done = f"{context.sensor_name}: telling", f"{context.sensor_name}: told"
    noted = [
        record.event_log_entry.get_dagster_event().message or ""
        for record in context.instance.get_records_for_run(
            alert.run_id, of_type=DagsterEventType.ENGINE_EVENT
        ).records
    ]
    tries = sum(message.startswith(begun) for message in noted)
    if tries >= MAX_TRIES or any(message.startswith(done) for message in noted):
        context.log.info(f"run {alert.run_id} was told of before")
        return
    _record_delivery(context, f"{begun} {', '.join(settings.target_names)}")
    unsent = send_alert(alert, settings)
    told = ", ".join(name for name in settings.target_names if name not in unsent)
    untold = "; ".join(f"{name}: {reason}" for name, reason in unsent.items())
    _record_delivery(
        context, f"{done} {told or 'nobody'}" + (f" (not told: {untold})" if untold else "")
    )
    if untold:
        # The tick turns red and says why; its cursor moves on all the same.
        raise AlertNotDeliveredError(f"run {alert.run_id} was not told to {untold}")


def _record_delivery(context: dg.RunStatusSensorContext, message: str) -> None:
    """Log it with the run."""
    context.instance.report_engine_event(message, context.dagster_run)
    context.log.info(message)
