"""The messages for targets, and the one on a finished run."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetCheckSeverity, DagsterEvent, DagsterEventType

from taxi_assets.dagster_internals.tags import WILL_RETRY
from taxi_assets.errors import format_list, format_one_line
from taxi_assets.partitions import format_run_days

MAX_CAUSE_LENGTH = 500
"""Characters."""
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


def build_alert(
    instance: dg.DagsterInstance,
    run: dg.DagsterRun,
    event: DagsterEvent,
    ui_url: str,
    *,
    warn: bool,
) -> Notice | None:
    """Build the notice on a finished run; None if it succeeded and no check failed.

    `event` is the event that ended it; with `warn`, failed checks of severity WARN are named too.
    """
    failures = [
        record.event_log_entry.get_dagster_event()
        for record in instance.get_records_for_run(
            run.run_id, of_type=DagsterEventType.STEP_FAILURE
        ).records
    ]
    # The name of a step is the asset key joined by two underscores; that of an op has none.
    assets = [(failure.step_key or "").replace("__", "/") for failure in failures]
    days = format_run_days(run.tags)
    cause = ""
    if event.is_failure:
        cause = describe_cause(failures[0] if failures else event)
        if len(cause) > MAX_CAUSE_LENGTH:
            cause = f"{cause[:MAX_CAUSE_LENGTH]}..."
        cause = cause.removeprefix(f"{assets[0]} {days}: " if assets else "")
        if run.tags.get(WILL_RETRY) == "true":
            cause += " (Dagster will retry the run)"
    checks = _list_failed_checks(instance, run, warn=warn)
    if not (event.is_failure or checks):
        return None
    # Dagster's internal name for a materialization from the asset graph.
    job = "materialization" if run.job_name.startswith("__") else run.job_name
    partitions = " ".join(filter(None, (format_list(assets), days)))
    result = "failed" if event.is_failure else "has failed checks"
    listed = f"Failed checks: {format_list(checks, '; ')}" if checks else ""
    return Notice(
        key=run.run_id,
        title=f"{job} {result}: {partitions}" if partitions else f"{job} {result}",
        lines=tuple(filter(None, (cause, listed))),
        link=f"{ui_url}/runs/{run.run_id}",
    )


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
) -> list[str]:
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
    return [
        f"{name} ({format_list(sorted(failed))})" if any(failed) else name
        for name, failed in days.items()
    ]
