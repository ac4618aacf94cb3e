"""Summarize a run of the daily assets in its last log line, and tag it for the list of runs.

The counts come from the run's own check results.
"""

from __future__ import annotations

import getpass
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import dagster as dg
from dagster import AssetCheckEvaluation, DagsterEventType

from taxi_assets.dagster_internals import tags
from taxi_assets.date_ranges import Month, group_days_by_month
from taxi_assets.errors import format_count
from taxi_assets.partitions import list_run_days

SERVICE_TAG, DAYS_TAG, ROWS_TAG, REQUESTED_BY_TAG = "service", "days", "rows", "requested_by"
REQUESTERS = {
    tags.SCHEDULE_NAME: "{}",
    tags.SENSOR_NAME: "{}",
    tags.BACKFILL: "backfill {}",
    tags.PARENT_RUN: "re-execution of {}",
    tags.FROM_UI: "Dagster's UI",
}
"""The requester of a run by Dagster's tag; the first tag that is present counts."""


@dataclass
class RunCounts:
    """The rows that a run read, stored and dropped, from its check results."""

    read: Counter[str] = field(default_factory=Counter[str])
    """Published rows of each day that was cleaned."""
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Dropped rows of each day."""
    outside: int = 0
    """Rows of the month files with a pickup in another month."""
    unreadable: int = 0
    stored: Counter[str] = field(default_factory=Counter[str])
    """Rows that each store returned."""
    warned: set[str] = field(default_factory=set[str])
    """Days with a failed WARN check."""
    warned_of_file: bool = False
    """Whether a WARN check of a month file failed."""

    def add(self, evaluation: AssetCheckEvaluation) -> None:
        """Add one check of one day."""
        metadata: dict[str, Any] = {
            name: value.value for name, value in evaluation.metadata.items()
        }
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.WARN:
            if evaluation.partition is None:
                # The other check without a day, `up_to_date`, concerns months of other files.
                self.warned_of_file |= evaluation.asset_key.path[-1] == "raw_trips"
            else:
                self.warned.add(evaluation.partition)
        match evaluation.check_name:
            case "rows_accounted_for":
                day = str(evaluation.partition)
                self.read[day] += metadata["raw_rows"]
                self.dropped[day] += sum(
                    rows for name, rows in metadata.items() if name.startswith("dropped_")
                )
            case "matches_cleaned" if "rows" in metadata:
                self.stored[evaluation.asset_key.path[-1]] += metadata["rows"]
            case "rows_outside_month":
                self.outside += metadata["rows"]
            case "rows_readable":
                self.unreadable += metadata["rows"]

    @property
    def rows(self) -> int:
        """Rows of the run's days, in the store with the most rows."""
        return max(self.stored.values(), default=0)


def count_run(evaluations: Iterable[AssetCheckEvaluation]) -> RunCounts:
    """Count the check results of a run."""
    counts = RunCounts()
    for evaluation in evaluations:
        counts.add(evaluation)
    return counts


def name_days(days: Sequence[date]) -> str:
    """Return a short form of a run's days: `2021-01-05`, `2021-01`, `2021-01-03 to 2021-02-10`."""
    if len(days) == 1:
        return str(days[0])
    first, last = Month.of(days[0]), Month.of(days[-1])
    is_complete = days[0] == first.window.start and days[-1] == max(last.window)
    if not is_complete:
        return f"{days[0]} to {days[-1]}"
    return str(first) if first == last else f"{first} to {last}"


def write_summary(
    service: str, days: Sequence[date], counts: RunCounts, rejected: Sequence[date], seconds: float
) -> str:
    """Return a summary of a run in one line."""
    are_complete = all(
        len(month_days) == len(month.window)
        for month, month_days in group_days_by_month(days).items()
    )
    good = len(days) - len(rejected)
    parts = [
        format_count(len(days), "day")
        if not rejected
        else f"{good} of {format_count(len(days), 'day')}"
    ]
    outside = counts.outside + counts.unreadable if are_complete else 0
    of_rejected = sum(counts.read[str(day)] for day in rejected)
    dropped = counts.dropped.total() - sum(counts.dropped[str(day)] for day in rejected)
    if counts.read:
        parts.append(f"{format_count(counts.read.total() + outside, 'row')} read")
    if counts.stored:
        parts.append(_format_stored(counts.stored))
    if dropped:
        parts.append(f"{dropped:,} dropped")
    if of_rejected:
        parts.append(f"{of_rejected:,} rejected")
    if are_complete and counts.outside:
        parts.append(f"{counts.outside:,} outside the month")
    if are_complete and counts.unreadable:
        parts.append(f"{counts.unreadable:,} unreadable")
    text = f"{service} {name_days(days)}: {', '.join(parts)}"
    if rejected:
        names = ", ".join(map(str, rejected[:3])) + (", ..." if len(rejected) > 3 else "")  # noqa: PLR2004
        text += f"; rejected: {names}"
    warned = [f"on {format_count(len(counts.warned), 'day')}"] if counts.warned else []
    warned += ["about the month's file"] if counts.warned_of_file else []
    if warned:
        text += f"; warnings {' and '.join(warned)}"
    return f"{text}; {seconds:.1f} s"


def _format_stored(stored: Mapping[str, int]) -> str:
    if len(set(stored.values())) == 1:
        return f"{max(stored.values()):,} stored in {format_count(len(stored), 'store')}"
    return ", ".join(f"{rows:,} stored in {name}" for name, rows in stored.items())


def name_requester(run: dg.DagsterRun) -> str:
    """Return the requester of a run: a schedule, a sensor, a backfill, the UI, or a user."""
    for tag, text in REQUESTERS.items():
        if tag in run.tags:
            return text.format(run.tags[tag][:40])
    try:
        return f"{getpass.getuser()}, command line"
    except (KeyError, OSError):  # an account without a name, as in containers
        return "command line"


def tag_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, service: str, days: str, **more: str
) -> None:
    """Tag a run with its service, days and requester, by which the list of runs can be filtered.

    A run of assets has no tags of a job, one of assets of several services gets the names of all,
    and a re-execution starts with the tags of its parent.
    """
    stored = instance.get_run_by_id(run.run_id) or run
    services = {service, *filter(None, stored.tags.get(SERVICE_TAG, "").split(", "))}
    tags = {
        SERVICE_TAG: ", ".join(sorted(services)),
        DAYS_TAG: days,
        REQUESTED_BY_TAG: name_requester(run),
        **more,
    }
    if tags.items() - stored.tags.items():
        instance.add_run_tags(run.run_id, tags)


def measure_seconds(instance: dg.DagsterInstance, run_id: str) -> float:
    """Return the seconds since the start of a run; 0 if it has not been recorded."""
    record = instance.get_run_record_by_id(run_id)
    return time.time() - record.start_time if record and record.start_time else 0.0


def count_raw_rows(instance: dg.DagsterInstance, run_id: str) -> Counter[str]:
    """Return the rows of each raw day that a run stored."""
    records = instance.get_records_for_run(
        run_id, of_type=DagsterEventType.ASSET_MATERIALIZATION
    ).records
    rows = Counter[str]()
    for record in records:
        stored = record.asset_materialization
        if stored and stored.asset_key.path[-1] == "raw_trips" and "rows" in stored.metadata:
            rows[str(stored.partition)] = int(str(stored.metadata["rows"].value))
    return rows


def summarize_run(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    service: str,
    rejected: Sequence[date],
) -> None:
    """Log a summary as the run's last line, and tag the run with its rows."""
    instance, run = context.instance, context.run
    records = instance.get_records_for_run(
        run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    metadata = (record.event_log_entry.asset_check_evaluation for record in records)
    counts = count_run(evaluation for evaluation in metadata if evaluation is not None)
    if not counts.read:  # a run of `raw_trips` alone: their checks are about the month's file
        counts.read = count_raw_rows(instance, run.run_id)
    days = list_run_days(run.tags)
    seconds = measure_seconds(instance, run.run_id)
    context.log.info(write_summary(service, days, counts, rejected, seconds))
    tag_run(instance, run, service, name_days(days), **{ROWS_TAG: str(counts.rows)})
