"""The messages for targets: an alert on a run, and a notice on another condition."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType

from taxi_assets.dagster_internals.tags import WILL_RETRY
from taxi_assets.errors import format_one_line
from taxi_assets.partitions import format_run_days

MAX_CAUSE_LENGTH = 500
"""Characters."""
MAX_LISTED = 5
"""Number of items of a list before `and 12 more`."""
# `package.module.SomeError: text`, as Dagster formats an error.
QUALIFIED = re.compile(r"^(?:\w+\.)+(\w+): ")


@dataclass(frozen=True)
class Notice:
    """One message about the instance.

    `key` identifies the event, so that it is sent once.
    """

    key: str
    title: str
    """The message in one line."""
    lines: tuple[str, ...]
    """The text after the title, without the link."""
    link: str
    """URL of the page with details."""


@dataclass(frozen=True)
class Alert:
    """One message about one run."""

    run_id: str
    job: str
    failed: bool
    """False if the run succeeded with failed checks."""
    assets: tuple[str, ...]
    """Assets whose steps failed; for an op job the steps."""
    days: str
    """`2021-01-05` or `2021-01-01 to 2021-01-31`; empty for a run without partitions."""
    cause: str
    checks: tuple[str, ...]
    """Each failed check with its days."""
    link: str

    @property
    def title(self) -> str:
        """The message in one line."""
        result = "failed" if self.failed else "has failed checks"
        partitions = " ".join(part for part in (format_list(self.assets), self.days) if part)
        return f"{self.job} {result}: {partitions}" if partitions else f"{self.job} {result}"

    @property
    def lines(self) -> tuple[str, ...]:
        """The text after the title, without the link."""
        checks = [f"Failed checks: {format_list(self.checks, '; ')}"] if self.checks else []
        return tuple(filter(None, [self.cause, *checks]))


def format_list(items: Sequence[str], separator: str = ", ") -> str:
    """Format the first few items of a list and the number of the others."""
    text = separator.join(items[:MAX_LISTED])
    return f"{text} and {len(items) - MAX_LISTED} more" if len(items) > MAX_LISTED else text


def build_alert(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    event: DagsterEvent,
    ui_url: str,
    *,
    warn: bool,
) -> Alert:
    """Build the alert for a finished run.

    `event` is the event that ended it; with `warn`, failed checks of severity WARN are named too.
    """
    failures = [
        record.event_log_entry.get_dagster_event()
        for record in instance.get_records_for_run(
            run.run_id, of_type=DagsterEventType.STEP_FAILURE
        ).records
    ]
    assets = tuple(_find_asset(failure.step_key or "") for failure in failures)
    days = format_run_days(run.tags)
    cause = ""
    if event.is_failure:
        cause = describe_cause(failures[0] if failures else event)
        if len(cause) > MAX_CAUSE_LENGTH:
            cause = f"{cause[:MAX_CAUSE_LENGTH]}..."
        cause = cause.removeprefix(f"{assets[0]} {days}: " if assets else "")
        if run.tags.get(WILL_RETRY) == "true":
            cause += " (Dagster will retry the run)"
    return Alert(
        run_id=run.run_id,
        # Dagster's internal name for a materialization from the asset graph.
        job="materialization" if run.job_name.startswith("__") else run.job_name,
        failed=event.is_failure,
        assets=assets,
        days=days,
        cause=cause,
        checks=_list_failed_checks(instance, run, warn=warn),
        link=f"{ui_url}/runs/{run.run_id}",
    )


def _find_asset(step: str) -> str:
    """Find the asset of a step: its name is the asset key joined by two underscores."""
    return step.replace("__", "/")


def describe_cause(event: DagsterEvent) -> str:
    """Return the innermost cause of the failure of a step or a run, in one line."""
    data: Any = event.event_specific_data
    failure = getattr(data, "user_failure_data", None)
    if failure and failure.description:
        return format_one_line(failure.description)
    text, error = event.message or "", getattr(data, "error", None)
    while error is not None:
        text, error = error.message, error.cause
    return format_one_line(QUALIFIED.sub(r"\1: ", text))


def _list_failed_checks(
    instance: dg.DagsterInstance, run: dg.DagsterRun, *, warn: bool
) -> tuple[str, ...]:
    """Return `asset.check (days)` for each failed check of the run."""
    days: dict[str, list[str]] = {}
    for record in instance.get_records_for_run(
        run.run_id, of_type=DagsterEventType.ASSET_CHECK_EVALUATION
    ).records:
        evaluation = record.event_log_entry.asset_check_evaluation
        if (
            evaluation
            and not evaluation.passed
            and (warn or evaluation.severity == AssetCheckSeverity.ERROR)
        ):
            name = f"{evaluation.asset_key.to_user_string()}.{evaluation.check_name}"
            days.setdefault(f"{evaluation.severity.value} {name}", []).append(
                evaluation.partition or ""
            )
    return tuple(
        f"{name} ({format_list(sorted(failed))})" if any(failed) else name
        for name, failed in days.items()
    )
