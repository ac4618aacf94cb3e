"""Sensors that request newly published and restated months, and monthly reports."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.partition_records import build_observation
from taxi_assets.date_ranges import Month, split_date_range
from taxi_assets.defs.automation.months import (
    SeenMonths,
    find_loaded_month,
    identify_version,
    list_ended_months,
)
from taxi_assets.defs.jobs.daily import get_daily_job_name
from taxi_assets.errors import format_count
from taxi_assets.partitions import RANGE, partitions_of_month
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import SAMPLE, AutomationSettings, DefinitionSettings
from taxi_assets.tlc.month_address import describe_location
from taxi_assets.tlc.remote_version import RemoteVersion, SourceUnavailableError
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import probe_month_file

MAX_TICK_SECONDS = 20.0
"""Time for probes in one tick, of Dagster's limit of 60; the next tick continues."""

CONFIRM = {"resources": {"source": {"config": {"must_confirm": True}}}}
"""A run of a restated month must not use the cached file of the old version."""


def build_new_month_sensor(service: Service, automation: AutomationSettings) -> dg.SensorDefinition:
    """Build `<service>_new_month_sensor`, which requests new and restated months, oldest first.

    It probes the month files (HEAD or stat), stores their versions in its cursor, and requests the
    ranges of a month with a day that was not loaded from the current file. A run key names the
    file's version, so a tick that is repeated after a crash requests nothing twice.
    """

    @dg.sensor(
        name=f"{service.name}_new_month_sensor",
        job_name=get_daily_job_name(service),
        minimum_interval_seconds=automation.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING
        if automation.running
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Probes the {service.name} month files at the source and requests newly "
        "published and restated months, oldest first, at most "
        f"{automation.months_per_tick} a tick (TAXI_MONTHS_PER_TICK).",
    )
    def new_month(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        settings = Settings.from_env()
        source = settings.source.template
        if source == SAMPLE:
            return dg.SkipReason(
                "the synthetic sample has every month and never restates one: nothing to request "
                "(set TAXI_SOURCE for real months)"
            )
        months = list_ended_months()
        if not months:
            first = DefinitionSettings.from_env().start_date
            return dg.SkipReason(f"no month since {first} (TAXI_START_DATE) has ended yet")
        cursor = SeenMonths.read(context.cursor, months)
        tick = _Tick(service, source, settings.home, context.instance, cursor)
        tick.check_months(months, automation.months_per_tick)
        for line in tick.requested:
            context.log.info(line)
        return dg.SensorResult(
            run_requests=tick.runs,
            skip_reason=None if tick.runs else tick.describe_result(),
            cursor=tick.cursor.to_cursor(),
            asset_events=tick.observations,
        )

    return new_month


@dataclass
class _Tick:
    """One tick of a sensor over all months."""

    service: Service
    source: str
    home: Path
    instance: dg.DagsterInstance
    cursor: SeenMonths
    runs: list[dg.RunRequest] = field(default_factory=list[dg.RunRequest])
    observations: list[Any] = field(default_factory=list[Any])
    requested: list[str] = field(default_factory=list[str])
    unchanged: int = 0
    unconfirmed: int = 0
    """Number of months without an ETag or time that would reveal a restatement."""
    absent: list[Month] = field(default_factory=list[Month])
    trouble: str = ""

    def check_months(self, months: list[Month], max_months: int) -> None:
        """Probe every month, from where the last tick stopped, until `max_months` are requested.

        Raises:
            SourceError: the source rejects a request, which needs a person.
        """
        first, end = months.index(self.cursor.start), time.monotonic() + MAX_TICK_SECONDS
        for probes, month in enumerate(months[first:] + months[:first]):
            self.cursor.start = month
            if len(self.requested) == max_months or (probes and time.monotonic() > end):
                return
            try:
                before = self.cursor.versions.get(month)
                now = probe_month_file(
                    self.source, self.service, month, before=before, home=self.home
                )
            except SourceUnavailableError as error:
                self.trouble = str(error)
                return
            if now is None:
                self.absent.append(month)
            else:
                self.compare(month, now)
        self.cursor.start = months[0]

    def compare(self, month: Month, now: RemoteVersion) -> None:
        """Request the missing days of a month whose version was not processed before."""
        before = self.cursor.versions.get(month)
        differs = before is not None and now.differs_from(before)
        self.unconfirmed += differs is None
        if before is not None and not differs:
            self.unchanged += 1
            return
        self.cursor.versions[month] = now
        log = find_loaded_month(self.instance, self.service, month)
        same = log.version is not None and not now.differs_from(log.version)
        if not same:
            self.observations.append(self.build_observation(month, now))
        chunk_days = DefinitionSettings.from_env().max_partitions_per_run
        days = partitions_of_month(month) or month.window
        missing = [
            chunk
            for chunk in split_date_range(days, chunk_days)
            if not same or not log.days.issuperset(chunk)
        ]
        if not missing:
            self.unchanged += 1
            return
        is_new = same or (before is None and log.version is None)
        change = f"{month} {'new' if is_new else 'restated'}"
        self.requested.append(f"{self.service.name} {change}: {', '.join(map(str, missing))}")
        self.runs += [
            dg.RunRequest(
                run_key=f"{self.service.name} {month} {identify_version(now)} {chunk.start}",
                run_config=CONFIRM,
                tags={RANGE[0]: str(chunk.start), RANGE[1]: str(max(chunk)), "month_file": change},
            )
            for chunk in missing
        ]

    def build_observation(self, month: Month, now: RemoteVersion) -> dg.AssetObservation:
        """Return an observation of a file that no run has read yet."""
        metadata = {
            "dagster/uri": describe_location(self.source, self.service, month),
            "bytes": now.total or 0,
            "etag": now.etag or "",
            "last_modified": now.last_modified or "",
        }
        key = dg.AssetKey([self.service.name, "trip_file"])
        return build_observation(key, f"{month}-01", identify_version(now), metadata)

    def describe_result(self) -> str:
        """Return the result of a tick that requests no run."""
        parts = [f"{format_count(self.unchanged, 'month')} unchanged"]
        if self.unconfirmed:
            parts.append(
                f"{self.unconfirmed} of them without a stable ETag or time: a restated one is "
                "detected by its size, or by a run, which downloads it and compares"
            )
        if self.absent:
            parts.append(f"{len(self.absent)} not published ({self.absent[0]} the first)")
        if self.trouble:
            parts.append(f"the source did not answer, the next tick continues: {self.trouble}")
        return f"{self.service.name}: {'; '.join(parts)}"


def build_monthly_report_sensor(
    reports: list[dg.AssetKey], automation: AutomationSettings
) -> dg.AutomationConditionSensorDefinition:
    """Build the sensor that requests the reports whose automation condition is met."""
    return dg.AutomationConditionSensorDefinition(
        "monthly_report_sensor",
        target=dg.AssetSelection.assets(*reports),
        default_status=dg.DefaultSensorStatus.RUNNING
        if automation.running
        else dg.DefaultSensorStatus.STOPPED,
        description="Requests the report of a month once all of its days are in the lake, "
        "and again when one is replaced.",
    )
