"""Find the state of each day in the event log, and the assets that must run to load it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

import dagster as dg

from taxi_assets.dagster_internals import tags
from taxi_assets.dagster_internals.rejections import UPSTREAM, find_rejected_days
from taxi_assets.dagster_internals.stored_versions import (
    StoredVersion,
    read_stored_versions,
    read_version_tags,
)
from taxi_assets.defs.freshness import STORES
from taxi_assets.defs.resources.cleaning import build_cleaning_version
from taxi_assets.settings import read_rules_for_definitions
from taxi_assets.tlc.schema import Service

RAW = ("raw_trips",)
ASSETS = (*RAW, *UPSTREAM)


class State(StrEnum):
    """The state of a day; each day has exactly one."""

    loaded = "loaded"
    """Every store has the published rows, cleaned by the current rules."""
    missing = "missing"
    """A store does not have the day."""
    rejected = "rejected"
    """An asset rejected it and has not stored it since."""
    restated = "restated"
    """The day was loaded from another file than the published one."""
    stale = "stale"
    """The day was cleaned by other rules, or an asset has another version than its upstream."""


@dataclass(frozen=True)
class DayState:
    """A day, its state, and the assets that must run to load it."""

    day: date
    state: State
    assets: tuple[str, ...] = ()
    """Assets that must run, in order."""
    reason: str = ""


def find_day_states(
    instance: dg.DagsterInstance,
    service: Service,
    days: Sequence[date],
    restated: Collection[date] = (),
) -> list[DayState]:
    """Return the state of each day; `restated` days come from another file than the published."""
    versions = {
        name: read_stored_versions(instance, _build_key(service, name), days) for name in ASSETS
    }
    behind = _find_stale_assets(instance, service, versions)
    rejections = {
        day: str(error)
        for name in ("postgres_trips", "bigquery_trips")
        for day, error in find_rejected_days(
            instance, dg.AssetKey([service.name, name]), days
        ).items()
    }
    return [
        _derive_state(
            day,
            {name: stored[day] for name, stored in versions.items() if day in stored},
            rejections.get(day),
            behind.get(day, set()),
            restated=day in restated,
        )
        for day in days
    ]


def _build_key(service: Service, name: str) -> dg.AssetKey:
    return dg.AssetKey([service.name, name])


def _find_stale_assets(
    instance: dg.DagsterInstance,
    service: Service,
    versions: Mapping[str, Mapping[date, StoredVersion]],
) -> dict[date, set[str]]:
    """Return by day the assets whose version does not match that of their upstream."""
    stale: dict[date, set[str]] = {}
    rules = build_cleaning_version(read_rules_for_definitions())
    cleaned = versions["cleaned_trips"]
    key = _build_key(service, "cleaned_trips")
    codes = read_version_tags(instance, key, cleaned, tags.CODE_VERSION)
    for day in cleaned:
        if codes.get(day) != rules:
            stale.setdefault(day, set()).add("cleaned_trips")
    for name, upstream in UPSTREAM.items():
        stored, source = versions[name], versions[upstream]
        # A version that was stored after its upstream was made from it.
        older = {
            day: version
            for day, version in stored.items()
            if day in source and source[day].storage_id > version.storage_id
        }
        tag = f"{tags.INPUT_DATA_VERSION}/{_build_key(service, upstream).to_user_string()}"
        input_versions = read_version_tags(instance, _build_key(service, name), older, tag)
        for day in older:
            if input_versions.get(day) != source[day].data_version:
                stale.setdefault(day, set()).add(name)
    return stale


def _derive_state(
    day: date,
    versions: Mapping[str, StoredVersion],
    rejection: str | None,
    behind: Collection[str],
    *,
    restated: bool,
) -> DayState:
    if rejection is not None:
        return DayState(day, State.rejected, ASSETS, rejection)
    if restated and versions:
        # Only the comparison of raw rows shows which days the new file changed.
        return DayState(day, State.restated, RAW, "loaded from another file")
    due_assets: list[str] = []
    for name in ASSETS:
        if name not in versions or name in behind or UPSTREAM.get(name) in due_assets:
            due_assets.append(name)
    absent = [name for name in STORES if name not in versions]
    if absent:
        return DayState(day, State.missing, tuple(due_assets), f"not in {', '.join(absent)}")
    if due_assets:
        return DayState(day, State.stale, tuple(due_assets), f"{due_assets[0]} is behind")
    return DayState(day, State.loaded)
