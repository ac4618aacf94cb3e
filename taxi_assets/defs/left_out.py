"""Days of a run that an asset does not store: which go on, and who says so at the end.

Good days go on to the stores; the run's last step fails and names the others.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import date
from typing import TypeVar

import dagster as dg

from taxi_assets.dagster_internals.partition_records import days_of, is_last
from taxi_assets.dagster_internals.rejections import (
    find_rejections,
    record_rejection,
    rejected_by_asset,
)
from taxi_assets.errors import DayRefusedError
from taxi_assets.lazy_partitions import Days
from taxi_assets.redaction import redact, redacted_cause

T = TypeVar("T")


def pull_days(context: dg.AssetExecutionContext, upstream: Days[T]) -> dict[date, T]:
    """Return the upstream's days that this asset may store; one rejected there is so here, too.

    Raises:
        Failure: no day is left.
    """
    found = dict(upstream)
    for day, error in upstream.refused.items():
        record_rejection(context, context.asset_key, day, error)
    if not found:
        raise left_out(context.asset_key, days_of(context), upstream.refused)
    return found


def landed_days(context: dg.AssetExecutionContext, days: Sequence[date]) -> list[date]:
    """Return the days that the IO manager has stored, and not rejected."""
    rejected = rejected_by_asset(context.instance, context.asset_key, days)
    return [day for day in days if day not in rejected]


def fail_last_step(
    context: dg.AssetExecutionContext,
    stored: Collection[date],
    refused: Mapping[date, DayRefusedError],
) -> None:
    """Fail the run's last step when a day was left out, so that nobody overlooks it.

    Good days go on to the stores first: a step in the middle fails only when nothing is left.
    """
    days = days_of(context)
    missing = [day for day in days if day not in stored]
    if missing and (not stored or is_last(context)):
        rejected = find_rejections(context.instance, context.asset_key, missing)
        raise left_out(context.asset_key, days, {**rejected, **refused})


def left_out(
    key: dg.AssetKey, days: Sequence[date], refused: Mapping[date, DayRefusedError]
) -> dg.Failure:
    """Return the error that names the days of a run that are not stored, each with its cause."""
    missing = [day for day in days if day in refused]
    good = len(days) - len(missing)
    reasons = redact("; ".join(f"{day}: {refused[day]}" for day in missing[:5]))
    failure = dg.Failure(
        f"{key.to_user_string()}: {len(missing)} of {len(days)} days not stored"
        f"{f'; the other {good} are stored' if good else ''}. {reasons}. Fix the cause, then "
        f"materialize {'that day' if len(missing) == 1 else 'those days'} alone, "
        "from raw_trips on",
        allow_retries=False,
    )
    # An error of ours that hits every day comes with its traceback.
    cause = next((refused[day].__cause__ for day in missing), None)
    failure.__cause__ = redacted_cause(cause) if cause else None
    return failure
