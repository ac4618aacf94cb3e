"""Settings of schedules and sensors: defaults that follow the source, one error for all."""

from __future__ import annotations

import pytest

from taxi_assets.errors import SettingsError
from taxi_assets.settings.areas import AutomationSettings


@pytest.mark.parametrize(
    ("env", "days"),
    [
        ({}, 1),
        ({"TAXI_SOURCE": "sample"}, 1),
        ({"TAXI_PROFILE": "gcp"}, 100),
        ({"TAXI_SOURCE": "/data/{service}/{year}/{month}.csv"}, 100),
        ({"TAXI_SCHEDULE_LAG_DAYS": "7"}, 7),
    ],
)
def test_lag_follows_the_source(env: dict[str, str], days: int) -> None:
    automation = AutomationSettings.from_env(env)
    assert automation == AutomationSettings(schedule_lag_days=days)
    assert (automation.running, automation.months_per_tick, automation.sensor_interval_seconds) == (
        False,
        3,
        3600,
    )


def test_every_variable_is_a_setting() -> None:
    env = {
        "TAXI_AUTOMATION": "running",
        "TAXI_SCHEDULE_LAG_DAYS": "95",
        "TAXI_MONTHS_PER_TICK": "12",
        "TAXI_SENSOR_INTERVAL_SECONDS": "600",
    }
    automation = AutomationSettings.from_env(env)
    assert automation.running
    assert automation.schedule_lag_days == 95
    assert automation.months_per_tick == 12
    assert automation.sensor_interval_seconds == 600


def test_invalid_settings_are_reported_together() -> None:
    env = {
        "TAXI_AUTOMATION": "on",
        "TAXI_SCHEDULE_LAG_DAYS": "0",
        "TAXI_MONTHS_PER_TICK": "x",
        "TAXI_SENSOR_INTERVAL_SECONDS": "-1",
    }
    with pytest.raises(SettingsError, match=r"^profile 'local': ") as rejected:
        AutomationSettings.from_env(env)
    for name in env:
        assert name in str(rejected.value)
