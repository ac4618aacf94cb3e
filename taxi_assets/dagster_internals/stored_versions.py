"""Which version of a day each asset holds, and from which version of its input it was made.

Dagster keeps both as tags of the materialization. A whole event is read only where these cannot
answer: it holds the day's tables too, and takes a few milliseconds.
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


def stored_versions(
    instance: dg.DagsterInstance, key: dg.AssetKey, days: Sequence[date]
) -> dict[date, StoredVersion]:
    """Return what an asset holds of each day; a day that was never stored is left out."""
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


def code_versions(
    instance: dg.DagsterInstance, key: dg.AssetKey, versions: Mapping[date, StoredVersion]
) -> dict[date, str]:
    """Return the version of the code that stored each day."""
    return _tags(instance, key, versions, tags.CODE_VERSION)


def input_versions(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    upstream: dg.AssetKey,
    versions: Mapping[date, StoredVersion],
) -> dict[date, str]:
    """Return the data version that each day's upstream had when it was read."""
    return _tags(instance, key, versions, f"{tags.INPUT_DATA_VERSION}/{upstream.to_user_string()}")


def _tags(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    versions: Mapping[date, StoredVersion],
    tag: str,
) -> dict[date, str]:
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
