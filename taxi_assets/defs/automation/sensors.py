"""Sensors: months that the source publishes or restates."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.partition_records import build_observation
from taxi_assets.date_ranges import Month, split_date_range
from taxi_assets.defs.automation.months import (
    SeenMonths,
    find_loaded_months,
    identify_version,
    list_ended_months,
)
from taxi_assets.defs.jobs.daily import get_daily_job_name
from taxi_assets.partitions import RANGE, partitions_of_month
from taxi_assets.settings import Settings
from taxi_assets.settings.areas import SAMPLE, AutomationSettings, DefinitionSettings
from taxi_assets.tlc.month_address import describe_location
from taxi_assets.tlc.remote_version import RemoteVersion, SourceUnavailableError
from taxi_assets.tlc.schema import Service
from taxi_assets.tlc.source import probe_month_file

MAX_TICK_SECONDS = 20.0
"""Time for looks in one tick, of the 60 that Dagster gives it; the next tick goes on from there."""

CONFIRM = {"resources": {"source": {"config": {"must_confirm": True}}}}
"""A run over a restated month must not go by the file kept of the old one."""


def build_new_month_sensor(service: Service, automation: AutomationSettings) -> dg.SensorDefinition:
    """Build `<service>_new_month_sensor`, which requests new and restated months, oldest first.

    It looks at the month files (HEAD or stat), keeps what it saw in its cursor, and requests the
    chunks of a month of which a day was not loaded from the file that is there now. A run key
    names the file's version: a tick that is repeated after a crash requests nothing twice.
    """

    @dg.sensor(
        name=f"{service.name}_new_month_sensor",
        job_name=get_daily_job_name(service),
        minimum_interval_seconds=automation.sensor_interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING
        if automation.running
        else dg.DefaultSensorStatus.STOPPED,
        description=f"Looks at the {service.name} month files at the source and requests months "
        "that are newly published or were restated, oldest first, at most "
        f"{automation.months_per_tick} a tick (TAXI_MONTHS_PER_TICK).",
    )
    def new_month(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        settings = Settings.from_env()
        source = settings.source.template
        if source == SAMPLE:
            return dg.SkipReason(
                "the synthetic sample has every month and none is ever restated: nothing to look "
                "for (set TAXI_SOURCE for real months)"
            )
        months = list_ended_months()
        if not months:
            first = DefinitionSettings.from_env().start_date
            return dg.SkipReason(f"no month since {first} (TAXI_START_DATE) is over yet")
        seen = SeenMonths.read(context.cursor, months)
        tick = _Tick(service, source, settings.home, context.instance, seen)
        tick.check_months(months, automation.months_per_tick)
        for line in tick.requested:
            context.log.info(line)
        return dg.SensorResult(
            run_requests=tick.runs,
            skip_reason=None if tick.runs else tick.reason(),
            cursor=tick.seen.written(),
            asset_events=tick.observations,
        )

    return new_month


@dataclass
class _Tick:
    """One look round the months."""

    service: Service
    source: str
    home: Path
    instance: dg.DagsterInstance
    seen: SeenMonths
    runs: list[dg.RunRequest] = field(default_factory=list[dg.RunRequest])
    observations: list[Any] = field(default_factory=list[Any])
    requested: list[str] = field(default_factory=list[str])
    unchanged: int = 0
    unconfirmed: int = 0
    """Months of which the server says nothing that would tell a restated one."""
    absent: list[Month] = field(default_factory=list[Month])
    trouble: str = ""

    def check_months(self, months: list[Month], most: int) -> None:
        """Look at every month, from where the last tick stopped, until `most` are requested.

        Raises:
            SourceError: the source refuses; a person must look.
        """
        first, end = months.index(self.seen.start), time.monotonic() + MAX_TICK_SECONDS
        for looks, month in enumerate(months[first:] + months[:first]):
            self.seen.start = month
            if len(self.requested) == most or (looks and time.monotonic() > end):
                return
            try:
                before = self.seen.versions.get(month)
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
        self.seen.start = months[0]

    def compare(self, month: Month, now: RemoteVersion) -> None:
        """Request what is not loaded of a month's version that was not dealt with."""
        before = self.seen.versions.get(month)
        differs = before is not None and now.differs_from(before)
        self.unconfirmed += differs is None
        if before is not None and not differs:
            self.unchanged += 1
            return
        self.seen.versions[month] = now
        log = find_loaded_months(self.instance, self.service, month)
        same = log.version is not None and not now.differs_from(log.version)
        if not same:
            self.observations.append(self.observed(month, now))
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
        what = f"{month} {'new' if is_new else 'restated'}"
        self.requested.append(f"{self.service.name} {what}: {', '.join(map(str, missing))}")
        self.runs += [
            dg.RunRequest(
                run_key=f"{self.service.name} {month} {identify_version(now)} {chunk.start}",
                run_config=CONFIRM,
                tags={RANGE[0]: str(chunk.start), RANGE[1]: str(max(chunk)), "month_file": what},
            )
            for chunk in missing
        ]

    def observed(self, month: Month, now: RemoteVersion) -> dg.AssetObservation:
        """Return an observation of a file that no run has read yet."""
        facts = {
            "dagster/uri": describe_location(self.source, self.service, month),
            "bytes": now.total or 0,
            "etag": now.etag or "",
            "last_modified": now.last_modified or "",
        }
        key = dg.AssetKey([self.service.name, "trip_file"])
        return build_observation(key, f"{month}-01", identify_version(now), facts)

    def reason(self) -> str:
        """Return the reason why nothing is requested."""
        found = [f"{self.unchanged} months as they were loaded"]
        if self.unconfirmed:
            found.append(
                f"{self.unconfirmed} of them without an ETag or time that stays: a restated one is "
                "noticed by its size, or by a run, which downloads it and compares"
            )
        if self.absent:
            found.append(f"{len(self.absent)} not published ({self.absent[0]} the first)")
        if self.trouble:
            found.append(f"then the source did not answer, the next tick goes on: {self.trouble}")
        return f"{self.service.name}: {'; '.join(found)}"
