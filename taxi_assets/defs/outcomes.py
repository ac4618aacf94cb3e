"""The outcome of each day of a run: stored, or rejected with a reason.

Good days continue to the stores; the run's last step fails and names the rejected days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, TypeVar

import dagster as dg

from taxi_assets.dagster_internals.partition_records import (
    CheckResult,
    PartitionRecord,
    build_evaluation,
    is_last_step,
    list_partition_days,
    list_run_steps,
    read_check_evaluations,
)
from taxi_assets.dagster_internals.rejections import (
    UPSTREAM,
    RecordedRejectionError,
    list_later_steps,
    log_rejection,
)
from taxi_assets.defs.checks.specs import AGREE, STORE_CHECKS, UP_TO_DATE, WARN
from taxi_assets.defs.run_summary import summarize_run
from taxi_assets.errors import PartitionNotStoredError, PartitionRejectedError, format_count
from taxi_assets.lazy_partitions import LazyPartitions
from taxi_assets.redaction import redact_cause, redact_text

T = TypeVar("T")
Outcome = tuple[date, PartitionRecord | PartitionRejectedError]
"""A day, with the record of its storage or the reason of its rejection."""


class FailedChecksError(PartitionRejectedError):
    """A day's rows fail an ERROR check."""

    def __init__(self, checks: Sequence[CheckResult], failed: Sequence[CheckResult]) -> None:
        failures = (f"{result.check} failed: {result.description}" for result in failed)
        super().__init__("; ".join(failures))
        self.checks = checks


@dataclass
class DailyOutput(Generic[T]):
    """Partitions for an IO manager, and the outcome of each day once it has stored them."""

    partitions: T
    records: dict[date, PartitionRecord] = field(default_factory=dict[date, PartitionRecord])
    """Records of the stored days, in order."""
    rejected: dict[date, PartitionRejectedError] = field(
        default_factory=dict[date, PartitionRejectedError]
    )

    def collect(self, outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
        """Yield outcomes unchanged, and collect them for the asset."""
        for day, outcome in outcomes:
            if isinstance(outcome, PartitionRejectedError):
                self.rejected[day] = outcome
            else:
                self.records[day] = outcome
            yield day, outcome

    @property
    def checks(self) -> dict[date, Sequence[CheckResult]]:
        """Check results of each day from before it was stored or rejected."""
        failed = {
            day: error.checks
            for day, error in self.rejected.items()
            if isinstance(error, FailedChecksError)
        }
        passed = {day: record.checks for day, record in self.records.items()}
        return dict(sorted({**passed, **failed}.items()))


def drain_partitions(
    context: dg.AssetExecutionContext, upstream: LazyPartitions[T]
) -> DailyOutput[dict[date, T]]:
    """Return the upstream days for a store; a day rejected upstream is rejected here too."""
    output = DailyOutput(dict(upstream), rejected=dict(upstream.rejected))
    for day, error in output.rejected.items():
        log_rejection(context, context.asset_key, day, error)
    return output


def list_unchecked(
    rejected: Mapping[date, PartitionRejectedError], check: str, store: dg.AssetKey
) -> dict[date, list[CheckResult]]:
    """Return the results of a store's check for days that an asset upstream of it rejected.

    In a failed run Dagster shows a planned check without a result as failed, which would blame the
    store.
    """
    return {
        day: [
            CheckResult(
                check,
                passed=True,
                severity=WARN,
                description=f"not checked: {error.asset.to_user_string()} rejected the day",
            )
        ]
        for day, error in rejected.items()
        if isinstance(error, RecordedRejectionError) and error.asset != store
    }


def log_unchecked(
    context: dg.AssetExecutionContext, output: DailyOutput[Any]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield the results of store checks whose steps do not run, because no day remains."""
    key, run_id = context.asset_key, context.run.run_id
    rejected: dict[date, PartitionRejectedError] = {
        day: error
        if isinstance(error, RecordedRejectionError)
        else RecordedRejectionError(key, run_id, str(error))
        for day, error in output.rejected.items()
        if not isinstance(error, PartitionNotStoredError)
    }
    later, steps = list_later_steps(key), list_run_steps(context)
    stores = [dg.AssetKey([key.path[0], name]) for name in UPSTREAM if name != "cleaned_trips"]
    checks = [
        (store, check)
        for store in stores
        if store.to_python_identifier() in later & steps or store == key
        for check in STORE_CHECKS
    ]
    if f"{key.path[0]}_{AGREE}" in later & steps:
        checks.append((dg.AssetKey([key.path[0], "bigquery_trips"]), AGREE))
    for store, check in checks:
        # Two stores without a day may both precede `stores_agree`.
        logged = read_check_evaluations(context.instance, run_id, check).get(store, {})
        for day, results in list_unchecked(rejected, check, store).items():
            if day not in logged:
                yield from (build_evaluation(store, result, str(day)) for result in results)
    yield from _log_not_compared(key, steps)


def _log_not_compared(
    key: dg.AssetKey, steps: AbstractSet[str]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Yield results of `up_to_date` for the stores that wait for a step that fails, or are it."""
    text = f"not compared: {key.to_user_string()} rejected days of this run"
    result = CheckResult(UP_TO_DATE, passed=True, severity=WARN, description=text)
    waiting = steps & (list_later_steps(key) | {key.to_python_identifier()})
    for name in UPSTREAM:
        store = dg.AssetKey([key.path[0], name])
        step = store.to_python_identifier()
        if step in waiting and f"{step}_{UP_TO_DATE}" in steps:
            yield build_evaluation(store, result)


def fail_for_rejected_days(
    context: dg.AssetExecutionContext, output: DailyOutput[Any]
) -> Iterator[dg.AssetCheckEvaluation]:
    """Fail the run's last step if a day was rejected, so that nobody overlooks it.

    Good days reach the stores first: an earlier step fails only if no day remains.
    """
    if output.rejected and not output.records:
        yield from log_unchecked(context, output)
    is_end = not output.records or is_last_step(context)
    if is_end:
        summarize_run(context, context.asset_key.path[0], sorted(output.rejected))
    if output.rejected and is_end:
        if output.records:
            yield from _log_not_compared(context.asset_key, list_run_steps(context))
        raise build_rejected_days_error(
            context.asset_key, list_partition_days(context), output.rejected
        )


def build_rejected_days_error(
    key: dg.AssetKey, days: Sequence[date], rejected: Mapping[date, PartitionRejectedError]
) -> dg.Failure:
    """Build the error that names the days of a run that are not stored, each with its cause.

    It begins with the asset that rejected the first of them, which may be an upstream asset.
    """
    missing = [day for day in days if day in rejected]
    good = len(days) - len(missing)
    first = rejected[missing[0]] if missing else None
    blamed = first.asset if isinstance(first, RecordedRejectionError) else key
    reasons = redact_text(
        "; ".join(f"{day}: {_format_cause(rejected[day], blamed)}" for day in missing[:5])
    )
    failure = dg.Failure(
        f"{blamed.to_user_string()}: {len(missing)} of {format_count(len(days), 'day')} not stored"
        f"{f'; the other {good} are stored' if good else ''}. {reasons}. Fix the cause, then "
        f"materialize {'that day' if len(missing) == 1 else 'those days'} alone, "
        "from raw_trips on",
        allow_retries=False,
    )
    # A bug that affects every day is shown with its traceback.
    cause = next((rejected[day].__cause__ for day in missing), None)
    failure.__cause__ = redact_cause(cause) if cause else None
    return failure


def _format_cause(error: PartitionRejectedError, blamed: dg.AssetKey) -> str:
    """Return the reason for a rejection, with the asset's name if it is another asset."""
    if isinstance(error, RecordedRejectionError) and error.asset == blamed:
        return error.reason
    return str(error)
