"""How old a service's last asset may be."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

import dagster as dg

from taxi_assets.partitions import TIMEZONE
from taxi_assets.settings.areas import AutomationSettings, DefinitionSettings

MISSED = timedelta(days=2)
"""Without a day stored: a morning was missed, or its month is late."""


def build_freshness_policy(today: date | None = None) -> dg.FreshnessPolicy | None:
    """WARN when no day was stored for two days; FAIL when none was for the schedule's lag more.

    By then all the time is over that the lag leaves for publishing. Dagster goes by the latest
    materialization of any partition. None once the last day (TAXI_END_DATE) should be stored: a
    history that is complete does not age.
    """
    lag = timedelta(days=AutomationSettings.from_env().schedule_lag_days)
    last = DefinitionSettings.from_env().end_date
    today = today or datetime.now(ZoneInfo(TIMEZONE)).date()
    if last is not None and last + lag + MISSED < today:
        return None
    return dg.FreshnessPolicy.time_window(fail_window=MISSED + lag, warn_window=MISSED)
