"""The outcome of each day of a run: stored, or rejected with a reason.

Good days continue to the stores; the run's last step fails and names the rejected days.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, TypeVar

import dagster as dg

from taxi_assets.dagster_internals.partition_records import (
    CheckResult,
    PartitionRecord,
    is_last_step,
    list_partition_days,
)
from taxi_assets.dagster_internals.rejections import RecordedRejectionError, log_rejection
from taxi_assets.defs.run_summary import summarize_run
from taxi_assets.errors import PartitionRejectedError
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
    """Return the upstream days for a store; a day rejected upstream is rejected here too.

    Raises:
        Failure: no day remains.
    """
    output = DailyOutput(dict(upstream), rejected=dict(upstream.rejected))
    for day, error in output.rejected.items():
        log_rejection(context, context.asset_key, day, error)
    if not output.partitions:
        raise build_rejected_days_error(
            context.asset_key, list_partition_days(context), output.rejected
        )
    return output


def fail_for_rejected_days(context: dg.AssetExecutionContext, output: DailyOutput[Any]) -> None:
    """Fail the run's last step if a day was rejected, so that nobody overlooks it.

    Good days reach the stores first: an earlier step fails only if no day remains.
    """
    is_end = not output.records or is_last_step(context)
    if is_end:
        summarize_run(context, context.asset_key.path[0], sorted(output.rejected))
    if output.rejected and is_end:
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
        f"{blamed.to_user_string()}: {len(missing)} of {len(days)} days not stored"
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
