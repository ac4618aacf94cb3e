"""The settings of assets and runs: services, source, cleaning, limits, retention, automation.

The settings of the stores and of alerts have their own modules. The docstring of a field is its
row on the settings page.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, SecretStr, ValidationInfo, field_validator

from taxi_assets.redaction import CREDENTIALS, HIDDEN, quote_redacted
from taxi_assets.settings.addresses import find_path_problem, find_source_problem
from taxi_assets.settings.base import (
    NEVER_QUOTED,
    SettingsArea,
    is_local,
    require_integer,
    require_valid,
    split_commas,
)
from taxi_assets.settings.rule_names import DEFAULT_RULES, RuleName

Profile = Literal["local", "gcp"]

SAMPLE = "sample"
PLACEHOLDERS = ("{service}", "{year}", "{month}")
HOUR, DAY = 3600, 86_400
"""Seconds."""
MAX_DAYS = 36_500
MAX_POOL = 1000
MAX_BYTES = 1 << 40
MAX_DAY_BYTES = 512 << 20
MAX_INVALID_RATIO = 0.01
FOREVER = "forever"
SAMPLE_LAG = 1
PUBLISHED_LAG = 100
"""Days after which TLC (the Taxi & Limousine Commission) has published a day: the month ends within
31 days and is published two months later; a week is left for delays."""
# The owners that Dagster accepts.
OWNER = re.compile(r"team:\S+|[A-Za-z0-9._%+-]+@[A-Za-z0-9.-]+\.[A-Za-z]{2,7}")
OWNERS_SHOWN = re.compile(r"[\w.%+@:, -]*")
SERVICE = re.compile(r"[a-z][a-z0-9_]*")
ISO_DATE = re.compile(r"\d{4}-\d\d-\d\d")
YEARS = range(2000, 3000)
"""TLC's months begin in 2009. Dagster has no partitions before 1000 or at the end of 9999."""


def make_absolute_path(value: Any) -> Path:
    """Return an absolute local path; a relative one starts at the working directory."""
    if isinstance(value, str) and (problem := find_path_problem(value)):
        raise ValueError(problem)
    return Path(value).expanduser().absolute()


def _parse_date(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        day = date.fromisoformat(value if ISO_DATE.fullmatch(value) else "")
    except ValueError:  # The original message would quote the value.
        raise ValueError("is not a date: write it as 2021-01-01") from None
    if day.year not in YEARS:
        raise ValueError(f"is not in the years {YEARS[0]} to {YEARS[-1]}")
    return day


StateDirectory = Annotated[Path, BeforeValidator(make_absolute_path), NEVER_QUOTED]
Names = Annotated[tuple[str, ...], BeforeValidator(split_commas)]
Date = Annotated[date, BeforeValidator(_parse_date)]
Bytes = Annotated[int, require_integer(MAX_BYTES)]


class StackSettings(SettingsArea):
    """Profile and state directory."""

    profile: Profile = "local"
    """`local`: the embedded stack; `gcp`: Google Cloud. Every other variable overrides its
    profile's default."""
    home: StateDirectory = Path(".taxi")
    """Folder of the embedded stack, the local lake and downloads; by default in the project's
    folder."""
    local_idle_timeout: Annotated[float, Field(ge=0, le=DAY)] = 10
    """Seconds that the embedded stack stays up after its last user."""


class DefinitionSettings(SettingsArea):
    """Assets and partitions."""

    services: Names = ()
    """Services whose assets are defined, separated by commas; by default the two of taxis."""
    start_date: Date = date(2021, 1, 1)
    """First daily partition."""
    end_date: Date | None = Field(default=None, examples=["2021-07-31"])
    """Last daily partition, inclusive; by default yesterday, New York time."""
    max_partitions_per_run: Annotated[int, require_integer(MAX_DAYS)] = 31
    """Maximum number of days of a backfill in one run."""
    owners: Annotated[Names, NEVER_QUOTED] = ("team:taxi",)
    """Owners of the assets in the UI: e-mail addresses or `team:<name>`, separated by commas."""
    retry_delay: Annotated[float, Field(gt=0, le=HOUR)] = 2
    """Seconds before a failed step is retried; each retry waits that much longer (2, 4, 6, 8). A
    cancelled run ends after its current wait."""

    @field_validator("services")
    @classmethod
    def _check_services(cls, services: tuple[str, ...]) -> tuple[str, ...]:
        if not all(map(SERVICE.fullmatch, services)):
            raise ValueError("is not a list of services: write their names, separated by commas")
        return tuple(dict.fromkeys(services))

    @field_validator("end_date")
    @classmethod
    def _check_end_date(cls, end: date | None, info: ValidationInfo) -> date | None:
        start = info.data.get("start_date")
        if end is not None and start is not None and end < start:
            raise ValueError(f"is before TAXI_START_DATE ({start})")
        return end

    @field_validator("owners")
    @classmethod
    def _check_owners(cls, owners: tuple[str, ...]) -> tuple[str, ...]:
        if not owners or not all(map(OWNER.fullmatch, owners)):
            text = ", ".join(owners)
            harmless = OWNERS_SHOWN.fullmatch(text) and not CREDENTIALS.search(text)
            raise ValueError(
                f"({text if harmless else HIDDEN}) is not a list of owners: write e-mail addresses "
                "or team:<name>, separated by commas"
            )
        return owners


class PoolSettings(SettingsArea):
    """Runs at once."""

    postgres_pool: Annotated[int, require_integer(MAX_POOL)] = 4
    """Maximum number of queued runs that write to Postgres at once."""
    bigquery_pool: Annotated[int, require_integer(MAX_POOL)] = 4
    """Maximum number of queued runs that write to BigQuery at once."""


class SourceSettings(SettingsArea):
    """Source."""

    source: SecretStr
    """Where month files come from: `sample`, or a URL or path with `{service}`, `{year}` and
    `{month}`."""
    zones: Annotated[SecretStr | None, require_valid(find_source_problem)] = Field(
        default=None, examples=["/data/taxi_zones.zip"]
    )
    """Path or URL of TLC's `taxi_zones` shapefile or GeoJSON, which maps coordinates to zones;
    without it the zones stay null."""

    local_defaults: ClassVar = {"TAXI_SOURCE": SAMPLE}

    @field_validator("source")
    @classmethod
    def _check_source(cls, source: SecretStr) -> SecretStr:
        template = source.get_secret_value()
        missing = [name for name in PLACEHOLDERS if name not in template]
        if template != SAMPLE and missing:
            raise ValueError(f"is neither 'sample' nor a template with {', '.join(missing)}")
        if template != SAMPLE and (problem := find_source_problem(template)):
            raise ValueError(problem)
        return source

    @property
    def template(self) -> str:
        """`sample`, or the template, which may contain a password."""
        return self.source.get_secret_value()


class LimitSettings(SettingsArea):
    """Limits."""

    max_day_bytes: Bytes = MAX_DAY_BYTES
    """Largest day, in bytes of unpacked rows; a month file with a larger one is rejected (the
    largest published day takes 180 MB)."""
    max_download_bytes: Bytes = 8 << 30
    """Largest month file, in bytes; a larger one is rejected (the largest published one has
    2.9 GB)."""
    download_timeout_seconds: Annotated[float, Field(gt=0, le=DAY)] = 3600
    """Seconds for the download of a month file, all attempts together; the next run resumes it."""


class CleaningSettings(SettingsArea):
    """Cleaning."""

    drop: Annotated[tuple[RuleName, ...], NEVER_QUOTED] = DEFAULT_RULES
    """Cleaning rules whose rows are dropped, separated by commas; also `zero_distance`,
    `negative_total`, `outside_fare`, `null_vendor`, `unknown_code`, `outside_limits`,
    `dropoff_before_pickup`, `over_a_day`; `none` keeps every row."""
    max_invalid_ratio: Annotated[float, Field(ge=0, le=1)] = MAX_INVALID_RATIO
    """Share of invalid rows above which a month, or a day, is rejected."""
    unusual_deviations: Annotated[float, Field(gt=0, le=1000)] = 4
    """Number of deviations between a day's figure and the same weekdays before it above which the
    check `usual_day` warns; 3 warns about five times as often."""

    @field_validator("drop", mode="before")
    @classmethod
    def _read_rules(cls, value: Any) -> Any:
        names = dict.fromkeys(split_commas(value.lower() if isinstance(value, str) else value))
        names.pop("none", None)
        if unknown := [name for name in names if name not in set(RuleName)]:
            raise ValueError(
                f"names {', '.join(map(quote_redacted, unknown))}: "
                f"the rules are {', '.join(RuleName)}; none keeps every row"
            )
        return tuple(names)


class RunSettings(SettingsArea):
    """Runs and retention."""

    lock_timeout: Annotated[int, require_integer(7 * DAY)] = 7200
    """Seconds that a run waits for another run of the same month to end."""
    download_retention_days: Annotated[int | None, require_integer(MAX_DAYS, none=FOREVER)] = 90
    """Days after its last use for which a downloaded month file stays in the cache, or
    `forever`."""
    temp_retention_hours: Annotated[int, require_integer(8760)] = 6
    """Hours after which leftovers of killed runs are removed: files in the lake's `_tmp` and
    staging tables."""
    raw_retention_days: Annotated[int, require_integer(MAX_DAYS, minimum=0)] = 30
    """Days for which the former raw partitions of a restated month stay in the lake."""
    run_retention_days: Annotated[int | None, require_integer(MAX_DAYS)] = Field(
        default=None, examples=["30"]
    )
    """Days for which finished runs, their logs and ticks stay in Dagster's storage; by default
    forever."""

    @property
    def download_retention(self) -> timedelta | None:
        """Time after its last use for which a download stays in the cache; None means forever."""
        days = self.download_retention_days
        return None if days is None else timedelta(days=days)

    @property
    def temp_retention(self) -> timedelta:
        """Age at which leftovers of killed runs are removed."""
        return timedelta(hours=self.temp_retention_hours)


class AutomationSettings(SettingsArea):
    """Automation."""

    automation: Literal["stopped", "running"] = "stopped"
    """`running` starts schedules and sensors with the code location; the UI's switch overrides
    that."""
    schedule_lag_days: Annotated[int, require_integer(3650)] = PUBLISHED_LAG
    """Days between a schedule's tick and the day that it requests; 1 for the sample."""
    months_per_tick: Annotated[int, require_integer(1000)] = 3
    """Maximum number of months that one tick of a month sensor requests."""
    sensor_interval_seconds: Annotated[int, require_integer(DAY)] = 3600
    """Seconds between two ticks of a month sensor."""

    @classmethod
    def read_values(cls, env: Mapping[str, str]) -> dict[str, Any]:
        """Return the set values, with a default lag that fits the source: 1 day for the sample."""
        source = env.get("TAXI_SOURCE") or (SAMPLE if is_local(env) else "")
        lag = SAMPLE_LAG if source == SAMPLE else PUBLISHED_LAG
        return {"schedule_lag_days": lag} | super().read_values(env)

    @property
    def running(self) -> bool:
        """Whether schedules and sensors start with the code location."""
        return self.automation == "running"
