"""How old a service's last asset may be."""

from __future__ import annotations

from datetime import timedelta

import dagster as dg

from taxi_assets.settings.automation import AutomationSettings

MISSED = timedelta(days=2)
"""Without a day stored: a morning was missed, or its month is late."""


def lately_stored() -> dg.FreshnessPolicy:
    """WARN when no day was stored for two days; FAIL when none was for the schedule's lag more.

    By then all the time is over that the lag leaves for publishing. Dagster goes by the latest
    materialization of any partition.
    """
    lag = timedelta(days=AutomationSettings.from_env().lag_days)
    return dg.FreshnessPolicy.time_window(fail_window=MISSED + lag, warn_window=MISSED)
