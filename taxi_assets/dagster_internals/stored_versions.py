"""The version of each stored day, and the version of the input that it was made from.

Dagster stores both as tags of the materialization. A complete event is read only if these do not
suffice: it contains the day's tables too and takes a few milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg
from dagster import DagsterEventType

from taxi_assets.dagster_internals import tags

KIND = DagsterEventType.ASSET_MATERIALIZATION


@dataclass(frozen=True)
class StoredVersion:
    """The latest materialization of one day of one asset."""

    storage_id: int
    data_version: str


def read_stored_versions(
    instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[date]
) -> dict[date, StoredVersion]:
    """Return the stored version of each day of an asset; days that are not stored are left out."""
    if not days:
        return {}
    partitions = [str(day) for day in days]
    storage = instance.event_log_storage
    ids = storage.get_latest_storage_id_by_partition(key, KIND, set(partitions))
    versions = storage.get_latest_tags_by_partition(key, KIND, [tags.DATA_VERSION], partitions)
    return {
        date.fromisoformat(partition): StoredVersion(
            storage_id, versions.get(partition, {}).get(tags.DATA_VERSION, "")
        )
        for partition, storage_id in ids.items()
    }


def read_version_tags(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    versions: Mapping[date, StoredVersion],
    tag: str,
) -> dict[date, str]:
    """Return a tag of each stored version: that of its code, or of one of its inputs."""
    if not versions:
        return {}
    ids = [version.storage_id for version in versions.values()]
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=key, storage_ids=ids), limit=len(ids)
    ).records
    return {
        date.fromisoformat(record.partition_key or ""): (event.tags or {}).get(tag, "")
        for record in records
        if (event := record.asset_materialization)
    }
