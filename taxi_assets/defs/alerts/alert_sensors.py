"""Sensors that tell of failed runs and failed checks.

A run is told of once. Dagster's cursor moves past a run when its tick ends, whether or not every
target took the message; a daemon or code server that dies within the tick finds the run again,
and what is noted in the run's own log before and after sending then keeps it to a second message
at most. Failures from before the sensor first ran are not told.
"""

import dagster as dg
from dagster import DagsterEventType

from taxi_assets.defs.alerts.message import Alert, alert_of
from taxi_assets.defs.alerts.targets import send
from taxi_assets.errors import SettingsError
from taxi_assets.settings.alerts import ALERT_URLS, AlertSettings, any_target

SECONDS = 10
"""Between two ticks; Dagster's default is 30."""
MOST_TRIES = 2
"""Ticks that may send a run's alert, when the first died before it noted that it was done."""


class UntoldError(Exception):
    """Targets that could not be told; shown in the tick."""


def alert_sensors() -> list[dg.SensorDefinition]:
    """`run_failure_alert` and `failed_check_alert`; they run by default where a target is set.

    Of runs of every code location and those from a command line, which Dagster knows no
    location of.
    """
    status = dg.DefaultSensorStatus.RUNNING if any_target() else dg.DefaultSensorStatus.STOPPED

    @dg.run_failure_sensor(
        name="run_failure_alert",
        description=f"Tells of failed runs: asset, days, cause, link. {_targets()}",
        default_status=status,
        minimum_interval_seconds=SECONDS,
        monitor_all_code_locations=True,
    )
    def run_failure_alert(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        return _react(context)

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="failed_check_alert",
        description="Tells of runs that succeeded with failed checks: those of severity ERROR, and "
        f"with TAXI_ALERT_ON=failure_and_warnings of severity WARN. {_targets()}",
        default_status=status,
        minimum_interval_seconds=SECONDS,
        monitor_all_code_locations=True,
    )
    def failed_check_alert(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
        return _react(context)

    return [run_failure_alert, failed_check_alert]


def _targets() -> str:
    """Whom the sensors tell, or why nobody."""
    if not any_target():
        return f"No target is set ({ALERT_URLS})."
    try:
        return f"Targets: {', '.join(AlertSettings.from_env().target_names)}."
    except SettingsError as error:
        return f"Nobody is told, the settings are wrong: {error}"


def _react(context: dg.RunStatusSensorContext) -> dg.SkipReason | None:
    if not any_target():
        return dg.SkipReason(f"no target is set ({ALERT_URLS})")
    settings = AlertSettings.from_env()
    alert = alert_of(
        context.instance,
        context.dagster_run,
        context.dagster_event,
        settings.ui_url,
        warn=settings.on_warnings,
    )
    if alert.failed or alert.checks:
        _tell(context, alert, settings)
    return None


def _tell(context: dg.RunStatusSensorContext, alert: Alert, settings: AlertSettings) -> None:
    begun, done = f"{context.sensor_name}: telling", f"{context.sensor_name}: told"
    noted = [
        record.event_log_entry.get_dagster_event().message or ""
        for record in context.instance.get_records_for_run(
            alert.run_id, of_type=DagsterEventType.ENGINE_EVENT
        ).records
    ]
    tries = sum(message.startswith(begun) for message in noted)
    if tries >= MOST_TRIES or any(message.startswith(done) for message in noted):
        context.log.info(f"run {alert.run_id} was told of before")
        return
    _note(context, f"{begun} {', '.join(settings.target_names)}")
    unsent = send(alert, settings)
    told = ", ".join(name for name in settings.target_names if name not in unsent)
    untold = "; ".join(f"{name}: {reason}" for name, reason in unsent.items())
    _note(context, f"{done} {told or 'nobody'}" + (f" (not told: {untold})" if untold else ""))
    if untold:
        # The tick turns red and says why; its cursor moves on all the same.
        raise UntoldError(f"run {alert.run_id} was not told to {untold}")


def _note(context: dg.RunStatusSensorContext, message: str) -> None:
    """Log it with the run."""
    context.instance.report_engine_event(message, context.dagster_run)
    context.log.info(message)
