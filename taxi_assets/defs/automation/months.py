"""The state of a service's month files: versions at the source, and loaded days."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any, cast

import dagster as dg
from dagster import DagsterEventType

from taxi_assets.date_ranges import Month, group_days_by_month
from taxi_assets.partitions import get_partition_range, partitions_of_month
from taxi_assets.tlc.remote_version import RemoteVersion
from taxi_assets.tlc.schema import Service


@dataclass
class SeenMonths:
    """A sensor's cursor: the processed version of each month, and the month to continue with."""

    start: Month
    versions: dict[Month, RemoteVersion]

    @classmethod
    def read(cls, cursor: str | None, months: Sequence[Month]) -> SeenMonths:
        """Read a cursor for these months; empty if the text is not such a cursor."""
        try:
            fields = cast("dict[str, Any]", json.loads(cursor or "{}"))
            by_name = {str(month): month for month in months}
            return cls(
                by_name.get(fields.get("start", ""), months[0]),
                {
                    by_name[name]: RemoteVersion(**version)
                    for name, version in fields.get("months", {}).items()
                    if name in by_name
                },
            )
        except (ValueError, TypeError, AttributeError):
            return cls(months[0], {})

    def to_cursor(self) -> str:
        """Return the text of the cursor."""
        versions = {str(month): asdict(self.versions[month]) for month in sorted(self.versions)}
        return json.dumps({"start": str(self.start), "months": versions})


@dataclass(frozen=True)
class LoadedMonth:
    """The loaded version and days of a month, from the event log."""

    version: RemoteVersion | None
    """Version that a run read last; None if no run has read the month."""
    days: frozenset[date]
    """Days whose raw partitions come from this version."""


def list_ended_months() -> list[Month]:
    """Return the months whose last daily partition exists, oldest first."""
    days = get_partition_range() or ()
    months = group_days_by_month(days)
    return [month for month in months if max(partitions_of_month(month) or month.window) in days]


def find_loaded_month(instance: dg.DagsterInstance, service: Service, month: Month) -> LoadedMonth:
    """Return the loaded version and days of a month, by a few queries of the event log.

    A run records an observation of `trip_file` with the file's SHA-256 and the server's version;
    the record of each raw partition has the SHA-256 of its file.
    """
    file, raw = (dg.AssetKey([service.name, name]) for name in ("trip_file", "raw_trips"))
    observations = instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=file, asset_partitions=[f"{month}-01"]), limit=1
    ).records
    observation = observations[0].asset_observation if observations else None
    if observation is None or "sha256" not in observation.metadata:
        return LoadedMonth(None, frozenset())
    metadata = {name: entry.value for name, entry in observation.metadata.items()}
    ids = instance.event_log_storage.get_latest_storage_id_by_partition(
        raw, DagsterEventType.ASSET_MATERIALIZATION, {str(day) for day in month.window}
    )
    latest = dg.AssetRecordsFilter(asset_key=raw, storage_ids=list(ids.values()))
    partitions = instance.fetch_materializations(latest, limit=len(ids)).records if ids else []
    days = (
        date.fromisoformat(record.partition_key or "")
        for record in partitions
        if (event := record.asset_materialization)
        and event.metadata["source_sha256"].value == metadata["sha256"]
    )
    version = RemoteVersion(
        str(metadata.get("etag", "")) or None,
        str(metadata.get("last_modified", "")) or None,
        int(str(metadata["bytes"])),
    )
    return LoadedMonth(version, frozenset(days))


def identify_version(version: RemoteVersion) -> str:
    """Return a short hash of a version, for run keys and data versions."""
    return hashlib.sha256(json.dumps(asdict(version)).encode()).hexdigest()[:16]
