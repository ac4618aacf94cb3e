"""Rejected days: an observation on the partition, which every later step and run respects.

If an asset rejects a day, an `AssetObservation` on that asset's partition names the cause. It
applies until the asset materializes the day: the later of the two events counts. It depends neither
on the run's id nor on the memory of a process, so a day stays rejected in a retry, in every kind of
re-execution, and in a run of a downstream asset alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import Any

import dagster as dg

from taxi_assets.errors import (
    PartitionNotStoredError,
    PartitionRejectedError,
    escape_markdown,
    format_one_line,
)
from taxi_assets.redaction import redact_text

REJECTED = "rejected"
"""Metadata key of the cause."""
REJECTED_BY = "rejected_by"
"""Metadata key of the asset that rejected the day, if it is an upstream asset."""
PAGE = 1000
"""Number of events read at once."""

UPSTREAM = {
    "cleaned_trips": "raw_trips",
    "postgres_trips": "cleaned_trips",
    "gcs_trips": "cleaned_trips",
    "bigquery_trips": "gcs_trips",
}
"""The asset that each asset's rows come from. A run's own graph has only the assets of the run."""


class RecordedRejectionError(PartitionRejectedError):
    """An asset rejected this day, according to the event log."""

    def __init__(self, asset: dg.AssetKey, run_id: str, reason: str) -> None:
        super().__init__(f"{asset.to_user_string()} rejected it in run {run_id[:8]}: {reason}")
        self.asset = asset
        self.reason = reason


def list_upstream_chain(key: dg.AssetKey) -> list[dg.AssetKey]:
    """Return the assets that a service's asset has its rows from, in order, itself included."""
    names = [key.path[-1]]
    while names[0] in UPSTREAM:
        names.insert(0, UPSTREAM[names[0]])
    return [dg.AssetKey([*key.path[:-1], name]) for name in names]


def list_later_steps(key: dg.AssetKey) -> set[str]:
    """Return the steps that depend on an asset's rows, including `stores_agree`."""
    service, name = key.path
    assets = [dg.AssetKey([service, downstream]) for downstream in UPSTREAM]
    later = {
        asset.to_python_identifier() for asset in assets if key in list_upstream_chain(asset)[:-1]
    }
    return later | ({f"{service}_stores_agree"} if name in {"raw_trips", *UPSTREAM} else set())


def log_rejection(
    context: dg.AssetExecutionContext | dg.OutputContext,
    key: dg.AssetKey,
    day: date,
    error: PartitionRejectedError,
) -> None:
    """Log that an asset rejects a day, and why; the asset that found the fault logs an error.

    A day that was never stored upstream is not recorded: its rows may be valid.
    """
    if isinstance(error, PartitionNotStoredError):
        return
    reason = redact_text(format_one_line(error))
    name = key.to_user_string()
    metadata: dict[str, Any] = {REJECTED: reason}
    if isinstance(error, RecordedRejectionError):
        upstream = error.asset.to_user_string()
        metadata[REJECTED_BY] = dg.MetadataValue.asset(error.asset)
        context.log.warning(f"{name}: {day} is skipped because {upstream} rejected it")
    else:
        context.log.error(f"{name}: {day} is rejected: {reason}")
    context.log_event(
        dg.AssetObservation(
            key,
            description=f"Rejected: {escape_markdown(reason)}",
            partition=str(day),
            metadata=metadata,
        )
    )


def find_skipped_partitions(
    fetch_observations: Callable[..., Any],
    key: dg.AssetKey,
    attempts: Mapping[str, tuple[str, int]],
) -> set[str]:
    """Return the partitions that a run did not store because an upstream asset rejected them.

    `attempts` has run and number of the planned event of each partition that was not materialized.
    """
    if key.path[-1] not in UPSTREAM or not attempts:
        return set()
    skipped: set[str] = set()
    first = min(event for _, event in attempts.values())
    for asset in list_upstream_chain(key):
        since = dg.AssetRecordsFilter(asset, after_storage_id=first)
        for record, event in _iterate_rejections(fetch_observations, since):
            is_upstream = asset != key or REJECTED_BY in event.metadata
            run_id, _ = attempts.get(str(event.partition), (None, 0))
            if is_upstream and run_id == record.run_id:
                skipped.add(str(event.partition))
    return skipped


def find_rejected_days(
    instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[date]
) -> dict[date, PartitionRejectedError]:
    """Return the days that an asset, or an asset upstream of it, rejected last."""
    rejections: dict[date, PartitionRejectedError] = {}
    for asset in list_upstream_chain(key):
        other_days = [day for day in days if day not in rejections]
        rejections |= _find_rejections_by_asset(instance, asset, other_days)
    return rejections


def find_latest_rejected_days(
    instance: dg.DagsterInstance, key: dg.AssetKey
) -> dict[date, PartitionRejectedError]:
    """Return the days of the latest observations that are still rejected, loaded before or not."""
    days: set[date] = set()
    for asset in list_upstream_chain(key):
        for record in instance.fetch_observations(asset, limit=PAGE).records:
            event = record.asset_observation
            if event is not None and event.partition and REJECTED in event.metadata:
                days.add(date.fromisoformat(event.partition))
    return find_rejected_days(instance, key, sorted(days))


def _find_rejections_by_asset(
    instance: dg.DagsterInstance, asset: dg.AssetKey, days: Sequence[date]
) -> dict[date, PartitionRejectedError]:
    """Return the days that an asset itself rejected last."""
    if not days:
        return {}
    latest: dict[date, tuple[dg.EventLogRecord, dg.AssetObservation]] = {}
    records_filter = dg.AssetRecordsFilter(asset, asset_partitions=[str(day) for day in days])
    for record, event in _iterate_rejections(instance.fetch_observations, records_filter):
        latest.setdefault(date.fromisoformat(str(event.partition)), (record, event))
    return {
        day: RecordedRejectionError(asset, record.run_id, str(event.metadata[REJECTED].value))
        for day, (record, event) in latest.items()
        if not _find_materialized_since(instance, asset, day, record.storage_id)
    }


def _iterate_rejections(
    fetch_observations: Callable[..., Any], records_filter: dg.AssetRecordsFilter
) -> Iterator[tuple[dg.EventLogRecord, dg.AssetObservation]]:
    """Yield the rejections among an asset's observations, the latest first."""
    cursor, more = None, True
    while more:
        page = fetch_observations(records_filter, limit=PAGE, cursor=cursor)
        for record in page.records:
            event = record.asset_observation
            if event is not None and event.partition and REJECTED in event.metadata:
                yield record, event
        cursor, more = page.cursor, page.has_more


def _find_materialized_since(
    instance: dg.DagsterInstance, asset: dg.AssetKey, day: date, storage_id: int
) -> bool:
    later = dg.AssetRecordsFilter(asset, asset_partitions=[str(day)], after_storage_id=storage_id)
    return bool(instance.fetch_materializations(later, limit=1).records)
