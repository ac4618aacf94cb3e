"""Which days and months are requested without a person, read from the environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from taxi_assets.errors import SettingsError
from taxi_assets.settings import SAMPLE
from taxi_assets.settings.environment import environment
from taxi_assets.settings.variables import Variables

SAMPLE_LAG = 1
PUBLISHED_LAG = 100
"""Days until TLC has published any day: its month ends within 31, is published two months later,
and a week is left for delays."""


@dataclass(frozen=True)
class AutomationSettings:
    """What schedules and sensors go by."""

    running: bool
    """Whether they run until somebody stops them, or the other way round."""
    lag_days: int
    """Days from the day that a schedule requests to the morning of its tick."""
    months_per_tick: int
    """Most months that one tick of a sensor requests."""
    look_seconds: int
    """Seconds between two looks of a sensor at the source."""

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None) -> AutomationSettings:
        """Read the environment.

        Raises:
            SettingsError: naming every variable that is wrong.
        """
        variables = Variables(environment() if env is None else env)
        settings = cls(
            running=variables.choice("TAXI_AUTOMATION", ("stopped", "running"), "stopped")
            == "running",
            lag_days=variables.number("TAXI_SCHEDULE_LAG_DAYS", _lag(variables.env), 3650),
            months_per_tick=variables.number("TAXI_MONTHS_PER_TICK", 3, 1000),
            look_seconds=variables.number("TAXI_SENSOR_INTERVAL_SECONDS", 3600, 86_400),
        )
        if variables.wrong:
            raise SettingsError(
                f"automation: {'; '.join(variables.wrong)}. Set them in the environment or in "
                ".env (see .env.example)."
            )
        return settings


def _lag(env: Mapping[str, str]) -> int:
    """Default lag of the source: the sample has yesterday."""
    default = SAMPLE if env.get("TAXI_PROFILE") != "gcp" else ""
    return SAMPLE_LAG if (env.get("TAXI_SOURCE") or default) == SAMPLE else PUBLISHED_LAG
