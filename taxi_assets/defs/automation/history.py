"""The sensor that prunes Dagster's own history."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

import dagster as dg

from taxi_assets.dagster_internals.history import prune_history
from taxi_assets.errors import SettingsError
from taxi_assets.settings.areas import RunSettings

INTERVAL_SECONDS = 3600


def build_run_retention_sensors() -> list[dg.SensorDefinition]:
    """Return `run_retention_sensor` in a list, which is empty without TAXI_RUN_RETENTION_DAYS.

    The sensor runs by default, because the setting is explicit.
    """
    days: int | None = None
    with suppress(SettingsError):  # Runs report an invalid setting; the definitions must load.
        days = RunSettings.from_env().run_retention_days
    if days is None:
        return []

    @dg.sensor(
        name="run_retention_sensor",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Deletes runs that ended more than {days} days ago, with their logs and ticks "
        "(TAXI_RUN_RETENTION_DAYS). Materializations, the latest check results and the failed "
        "status of partitions stay.",
    )
    def run_retention(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        before = datetime.now(UTC) - timedelta(days=days)
        pruned = prune_history(context.instance, before)
        return dg.SkipReason(f"{pruned} runs that ended before {before:%Y-%m-%d %H:%M} UTC deleted")

    return [run_retention]
