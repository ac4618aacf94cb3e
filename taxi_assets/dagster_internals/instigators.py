"""Schedules and sensors of an instance, with their latest ticks.

Dagster exposes these in the UI and by GraphQL only; the instance's methods for them are not public.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import dagster as dg

FAILURE = "FAILURE"
MAX_TICKS = 500


@dataclass(frozen=True)
class Tick:
    """One evaluation of a schedule or sensor."""

    tick_id: int
    status: str
    """`SUCCESS`, `SKIPPED`, `FAILURE` or `STARTED`."""
    timestamp: float
    """Seconds since 1970."""
    message: str
    """Error of a failed tick, or reason of a skipped one."""


@dataclass(frozen=True)
class Instigator:
    """A schedule or sensor that has run, or was switched on or off, at least once."""

    name: str
    kind: str
    """`schedule` or `sensor`."""
    is_running: bool
    latest_tick: Tick | None


def read_instigators(instance: dg.DagsterInstance) -> list[Instigator]:
    """Return each schedule and sensor with its latest tick."""
    return [
        Instigator(
            state.instigator_name,
            state.instigator_type.value.lower(),
            state.is_running,
            next(iter(_read_ticks(instance, state, limit=1)), None),
        )
        for state in instance.all_instigator_state()
    ]


def is_any_running(instance: dg.DagsterInstance, names: Container[str]) -> bool:
    """Return whether one of the named schedules and sensors is switched on."""
    states = instance.all_instigator_state() if instance.schedule_storage else ()
    return any(state.is_running and state.instigator_name in names for state in states)


def find_first_failures(instance: dg.DagsterInstance, since: float) -> list[tuple[str, Tick]]:
    """Return names and ticks that failed since a time, if the tick before them did not fail."""
    failures = []
    for state in instance.all_instigator_state():
        ticks = _read_ended_ticks(instance, state, after=since, limit=MAX_TICKS)
        if not any(tick.status == FAILURE for tick in ticks):
            continue
        before = _read_ended_ticks(instance, state, before=ticks[-1].timestamp, limit=2)
        failed = bool(before) and before[0].status == FAILURE
        for tick in ticks[::-1]:
            if tick.status == FAILURE and not failed:
                failures.append((state.instigator_name, tick))
            failed = tick.status == FAILURE
    return failures


def _read_ended_ticks(instance: dg.DagsterInstance, state: Any, **choice: Any) -> list[Tick]:
    """Return ended ticks, latest first."""
    return [tick for tick in _read_ticks(instance, state, **choice) if tick.status != "STARTED"]


def _read_ticks(instance: dg.DagsterInstance, state: Any, **choice: Any) -> list[Tick]:
    """Return ticks, latest first."""
    ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, **choice)
    return [_convert_tick(tick) for tick in sorted(ticks, key=lambda tick: -tick.timestamp)]


def _convert_tick(tick: Any) -> Tick:
    message = tick.error.message if tick.error else tick.tick_data.skip_reason or ""
    return Tick(int(tick.tick_id), tick.status.value, tick.timestamp, " ".join(message.split()))
