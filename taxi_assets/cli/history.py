"""Estimate the duration and the rows of runs from earlier ones."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

import dagster as dg
from dagster import DagsterRunStatus

from taxi_assets.defs.jobs.daily import get_daily_job_name
from taxi_assets.partitions import list_run_days
from taxi_assets.tlc.schema import Service

RUNS = 30
"""Number of latest successful runs for the estimate."""
DAYS = 60
"""Number of latest days for the estimate of rows."""


@dataclass(frozen=True)
class History:
    """Averages of one service; None without a successful run."""

    seconds_per_day: float | None = None
    rows_per_day: float | None = None

    def estimate_minutes(self, days: int) -> float | None:
        """Return the estimated minutes of consecutive runs over a number of days."""
        return None if self.seconds_per_day is None else days * self.seconds_per_day / 60

    def estimate_rows(self, days: int) -> int | None:
        """Return the estimated published rows of a number of days."""
        return None if self.rows_per_day is None else round(days * self.rows_per_day)


def read_history(instance: dg.DagsterInstance, service: Service) -> History:
    """Return the mean seconds per day of the latest runs, and the median rows of a day."""
    successful = dg.RunsFilter(
        job_name=get_daily_job_name(service), statuses=[DagsterRunStatus.SUCCESS]
    )
    seconds, days = 0.0, 0
    for record in instance.get_run_records(successful, limit=RUNS):
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
