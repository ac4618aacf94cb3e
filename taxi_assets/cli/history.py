"""What earlier runs say of later ones: how long a day takes, how many rows it has."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import dagster as dg
from dagster import DagsterRunStatus

from taxi_assets.defs.jobs.daily import get_daily_job_name
from taxi_assets.partitions import list_run_days
from taxi_assets.tlc.schema import Service

RUNS = 30
"""Latest successful runs that an estimate goes by."""
DAYS = 60
"""Latest days whose rows it goes by."""


@dataclass(frozen=True)
class History:
    """Of one service; None without a successful run."""

    seconds_per_day: float | None = None
    rows_per_day: float | None = None

    def minutes(self, days: int) -> float | None:
        """Estimate the minutes that runs over so many days take, one after the other."""
        return None if self.seconds_per_day is None else days * self.seconds_per_day / 60

    def rows(self, days: int) -> int | None:
        """Estimate the published rows of so many days."""
        return None if self.rows_per_day is None else round(days * self.rows_per_day)


def read_history(instance: dg.DagsterInstance, service: Service) -> History:
    """Return the seconds of a day in the latest runs, and the median rows of the latest days."""
    done = dg.RunsFilter(job_name=get_daily_job_name(service), statuses=[DagsterRunStatus.SUCCESS])
    seconds, days = 0.0, 0
    for record in instance.get_run_records(done, limit=RUNS):
        if record.start_time is not None and record.end_time is not None:
            seconds += record.end_time - record.start_time
            days += len(list_run_days(record.dagster_run.tags))
    raw = dg.AssetKey([service.name, "raw_trips"])
    rows = [
        float(str(event.metadata["rows"].value))
        for record in instance.fetch_materializations(raw, limit=DAYS).records
        if (event := record.asset_materialization) and "rows" in event.metadata
    ]
    return History(seconds / days if days else None, median(rows) if rows else None)
