"""The line that every run of the daily assets ends with, and the tags that runs are filtered by.

Defined here: what a run did, counted from its own check results, and who requested it. What the
checks compare belongs in `checks.py`.
"""

from __future__ import annotations

import getpass
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

import dagster as dg
from dagster import AssetCheckEvaluation, DagsterEventType

from taxi_assets.dagster_internals import tags
from taxi_assets.date_ranges import Month, group_days_by_month
from taxi_assets.partitions import list_run_days

DAYS_TAG, ROWS_TAG, REQUESTED_BY_TAG = "days", "rows", "requested_by"
REQUESTERS = {
    tags.SCHEDULE_NAME: "{}",
    tags.SENSOR_NAME: "{}",
    tags.BACKFILL: "backfill {}",
    tags.PARENT_RUN: "re-execution of {}",
    tags.FROM_UI: "Dagster's UI",
}
"""What requested a run, by the tag that Dagster puts on it; the first that is there counts."""


@dataclass
class RunCounts:
    """What a run read, stored and left out, by its check results."""

    read: Counter[str] = field(default_factory=Counter[str])
    """Published rows of each day that was cleaned."""
    dropped: Counter[str] = field(default_factory=Counter[str])
    """Rows of each day that the cleaning left out."""
    outside: int = 0
    """Rows of the month files whose pickup lies in another month."""
    unreadable: int = 0
    stored: Counter[str] = field(default_factory=Counter[str])
    """Rows that each store gave back."""
    warned: set[str] = field(default_factory=set[str])
    """Days with a failed WARN check."""
    warned_of_file: bool = False
    """Whether a WARN check of a month file failed."""

    def add(self, evaluation: AssetCheckEvaluation) -> None:
        """Count one check of one day."""
        found = {name: value.value for name, value in evaluation.metadata.items()}
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.WARN:
            if evaluation.partition is None:
                self.warned_of_file = True
            else:
                self.warned.add(evaluation.partition)
        match evaluation.check_name:
            case "rows_accounted_for":
                day = str(evaluation.partition)
                self.read[day] += _whole(found["raw_rows"])
                self.dropped[day] += sum(
                    _whole(rows) for name, rows in found.items() if name.startswith("dropped_")
                )
            case "matches_cleaned":
                self.stored[evaluation.asset_key.path[-1]] += _whole(found["rows"])
            case "rows_outside_month":
                self.outside += _whole(found["rows"])
            case "rows_readable":
                self.unreadable += _whole(found["rows"])

    @property
    def rows(self) -> int:
        """Rows of the run's days, as the store with the most of them has them."""
        return max(self.stored.values(), default=0)


def _whole(value: object) -> int:
    return int(str(value))


def count_run(evaluations: Iterable[AssetCheckEvaluation]) -> RunCounts:
    """Count the check results of a run."""
    counts = RunCounts()
    for evaluation in evaluations:
        counts.add(evaluation)
    return counts


def name_days(days: Sequence[date]) -> str:
    """Return a run's days in short: `2021-01-05`, `2021-01`, `2021-01-03 to 2021-02-10`."""
    if len(days) == 1:
        return str(days[0])
    first, last = Month.of(days[0]), Month.of(days[-1])
    whole = days[0] == first.window.start and days[-1] == max(last.window)
    if not whole:
        return f"{days[0]} to {days[-1]}"
    return str(first) if first == last else f"{first} to {last}"


def write_summary(
    service: str, days: Sequence[date], counts: RunCounts, rejected: Sequence[date], seconds: float
) -> str:
    """Return what a run did, in one line."""
    whole_months = all(
        len(month_days) == len(month.window)
        for month, month_days in group_days_by_month(days).items()
    )
    good = len(days) - len(rejected)
    parts = [_count(len(days), "day") if not rejected else f"{good} of {_count(len(days), 'day')}"]
    outside = counts.outside + counts.unreadable if whole_months else 0
    of_rejected = sum(counts.read[str(day)] for day in rejected)
    dropped = counts.dropped.total() - sum(counts.dropped[str(day)] for day in rejected)
    if counts.read:
        parts.append(f"{_count(counts.read.total() + outside, 'row')} read")
    if counts.stored:
        parts.append(_stored(counts.stored))
    if dropped:
        parts.append(f"{dropped:,} dropped")
    if of_rejected:
        parts.append(f"{of_rejected:,} rejected")
    if whole_months and counts.outside:
        parts.append(f"{counts.outside:,} outside the month")
    if whole_months and counts.unreadable:
        parts.append(f"{counts.unreadable:,} unreadable")
    text = f"{service} {name_days(days)}: {', '.join(parts)}"
    if rejected:
        named = ", ".join(map(str, rejected[:3])) + (", ..." if len(rejected) > 3 else "")  # noqa: PLR2004
        text += f"; rejected: {named}"
    warned = [f"on {_count(len(counts.warned), 'day')}"] if counts.warned else []
    warned += ["about the month's file"] if counts.warned_of_file else []
    if warned:
        text += f"; warnings {' and '.join(warned)}"
    return f"{text}; {seconds:.1f} s"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _stored(stored: Mapping[str, int]) -> str:
    if len(set(stored.values())) == 1:
        return f"{max(stored.values()):,} stored in {_count(len(stored), 'store')}"
    return ", ".join(f"{rows:,} stored in {name}" for name, rows in stored.items())


def name_requester(run: dg.DagsterRun) -> str:
    """Return who or what requested a run: a schedule, a sensor, a backfill, the UI, a person."""
    for tag, text in REQUESTERS.items():
        if tag in run.tags:
            return text.format(run.tags[tag][:40])
    try:
        return f"{getpass.getuser()}, command line"
    except (KeyError, OSError):  # an account without a name, as containers have
        return "command line"


def tag_run(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Put days and requester on a run as tags, by which the list of runs is filtered."""
    if DAYS_TAG not in run.tags:
        days = name_days(list_run_days(run.tags))
        instance.add_run_tags(run.run_id, {DAYS_TAG: days, REQUESTED_BY_TAG: name_requester(run)})


def summarize_run(
    context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext,
    service: str,
    rejected: Sequence[date],
) -> None:
    """Log what the run did as its last line, and tag it with its rows."""
    instance, run = context.instance, context.run
    records = instance.get_records_for_run(
        run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
    ).records
    found = (record.event_log_entry.asset_check_evaluation for record in records)
    counts = count_run(evaluation for evaluation in found if evaluation is not None)
    record = instance.get_run_record_by_id(run.run_id)
    began = record.start_time if record else None
    seconds = time.time() - began if began else 0.0
    line = write_summary(service, list_run_days(run.tags), counts, rejected, seconds)
    context.log.info(line)
    tag_run(instance, run)
    instance.add_run_tags(run.run_id, {ROWS_TAG: str(counts.rows)})
