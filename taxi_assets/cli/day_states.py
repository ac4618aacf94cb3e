"""What the event log says of each day: loaded, or what is wrong and which assets must run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import StrEnum

import dagster as dg

from taxi_assets.dagster_internals.rejections import UPSTREAM, find_rejected_days
from taxi_assets.dagster_internals.stored_versions import (
    StoredVersion,
    read_code_versions,
    read_input_versions,
    read_stored_versions,
)
from taxi_assets.defs.resources.cleaning import cleaning_version
from taxi_assets.settings import read_rules_for_definitions
from taxi_assets.tlc.schema import Service

RAW = ("raw_trips",)
ASSETS = (*RAW, *UPSTREAM)
STORES = ("postgres_trips", "gcs_trips", "bigquery_trips")


class State(StrEnum):
    """What a day is; each day is exactly one of these."""

    loaded = "loaded"
    """Every store holds the published rows, cleaned by the rules of now."""
    missing = "missing"
    """A store does not hold it."""
    rejected = "rejected"
    """An asset rejected it and has not stored it since."""
    restated = "restated"
    """It was loaded from another file than the published one."""
    stale = "stale"
    """It was cleaned by other rules, or a store holds another version than the asset before it."""


@dataclass(frozen=True)
class DayState:
    """A day, and what would make it loaded."""

    day: date
    state: State
    assets: tuple[str, ...] = ()
    """That must run, in their order."""
    reason: str = ""


def day_states(
    instance: dg.DagsterInstance,
    service: Service,
    days: Sequence[date],
    restated: Collection[date] = (),
) -> list[DayState]:
    """Return the state of each day; `restated` are those known to come from another file."""
    versions = {name: read_stored_versions(instance, _key(service, name), days) for name in ASSETS}
    behind = _behind(instance, service, versions)
    rejections = {
        day: str(error)
        for name in ("postgres_trips", "bigquery_trips")
        for day, error in find_rejected_days(
            instance, dg.AssetKey([service.name, name]), days
        ).items()
    }
    return [
        _state(
            day,
            {name: found[day] for name, found in versions.items() if day in found},
            rejections.get(day),
            behind.get(day, set()),
            restated=day in restated,
        )
        for day in days
    ]


def _key(service: Service, name: str) -> dg.AssetKey:
    return dg.AssetKey([service.name, name])


def _behind(
    instance: dg.DagsterInstance,
    service: Service,
    versions: Mapping[str, Mapping[date, StoredVersion]],
) -> dict[date, set[str]]:
    """Return the assets, by day, that hold something else than the asset before them has now."""
    found: dict[date, set[str]] = {}
    rules = cleaning_version(read_rules_for_definitions())
    cleaned = versions["cleaned_trips"]
    codes = read_code_versions(instance, _key(service, "cleaned_trips"), cleaned)
    for day in cleaned:
        if codes.get(day) != rules:
            found.setdefault(day, set()).add("cleaned_trips")
    for name, upstream in UPSTREAM.items():
        own, source = versions[name], versions[upstream]
        # What was stored after its upstream was made from it.
        older = {
            day: version
            for day, version in own.items()
            if day in source and source[day].storage_id > version.storage_id
        }
        read = read_input_versions(instance, _key(service, name), _key(service, upstream), older)
        for day in older:
            if read.get(day) != source[day].data_version:
                found.setdefault(day, set()).add(name)
    return found


def _state(
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
        # Which days the new file changed is known once their raw rows are compared with it.
        return DayState(day, State.restated, RAW, "loaded from another file")
    due: list[str] = []
    for name in ASSETS:
        if name not in versions or name in behind or UPSTREAM.get(name) in due:
            due.append(name)
    absent = [name for name in STORES if name not in versions]
    if absent:
        return DayState(day, State.missing, tuple(due), f"not in {', '.join(absent)}")
    if due:
        return DayState(day, State.stale, tuple(due), f"{due[0]} is behind")
    return DayState(day, State.loaded)
