"""Build the alert of a run: job, asset, days, the cause in one line, and a link."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import dagster as dg
from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType

from taxi_assets.dagster_internals.tags import WILL_RETRY
from taxi_assets.errors import format_one_line
from taxi_assets.partitions import PARTITION, RANGE

MAX_CAUSE_LENGTH = 500
"""Characters."""
MAX_LISTED = 5
"""Number of items of a list before `and 12 more`."""
# `package.module.SomeError: text`, as Dagster formats an error.
QUALIFIED = re.compile(r"^(?:\w+\.)+(\w+): ")


class Message(Protocol):
    """A message for the targets."""

    @property
    def title(self) -> str:
        """The message in one line."""

    @property
    def lines(self) -> Sequence[str]:
        """The text after the title, without the link."""

    @property
    def link(self) -> str:
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
    def lines(self) -> list[str]:
        """The text after the title, without the link."""
        checks = [f"Failed checks: {format_list(self.checks, '; ')}"] if self.checks else []
        return [line for line in [self.cause, *checks] if line]


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
    days = _list_days(run)
    cause = ""
    if event.is_failure:
        cause = _describe_cause(failures[0] if failures else event).removeprefix(
            f"{assets[0]} {days}: " if assets else ""
        )
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


def _list_days(run: dg.DagsterRun) -> str:
    first = run.tags.get(RANGE[0]) or run.tags.get(PARTITION) or ""
    last = run.tags.get(RANGE[1]) or first
    return first if first == last else f"{first} to {last}"


def _describe_cause(event: DagsterEvent) -> str:
    """Return the innermost cause in one line."""
    text = event.message or ""
    error: Any
    if event.is_step_failure:
        data = event.step_failure_data
        error = data.error
        if data.user_failure_data and data.user_failure_data.description:
            return _shorten_text(data.user_failure_data.description)
    else:
        error = event.job_failure_data.error
    while error is not None:
        text, error = error.message, error.cause
    return _shorten_text(QUALIFIED.sub(r"\1: ", text))


def _shorten_text(text: str) -> str:
    line = format_one_line(text)
    return line if len(line) <= MAX_CAUSE_LENGTH else f"{line[:MAX_CAUSE_LENGTH]}..."


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
