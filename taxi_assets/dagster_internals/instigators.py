"""Schedules and sensors as the instance knows them, with their latest ticks.

Dagster shows these in the UI and by GraphQL only; the instance's methods for them are not public.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.private_names import TICK_STATUS


@dataclass(frozen=True)
class Tick:
    """One evaluation of a schedule or sensor."""

    tick_id: int
    status: str
    """`SUCCESS`, `SKIPPED`, `FAILURE` or `STARTED`."""
    timestamp: float
    """Seconds since 1970."""
    message: str
    """The error of a failed tick, the reason of a skipped one."""


@dataclass(frozen=True)
class Instigator:
    """A schedule or sensor that has run at least once, or that somebody switched."""

    name: str
    kind: str
    """`schedule` or `sensor`."""
    is_running: bool
    ticks: Sequence[Tick]
    """The latest first."""


def read_instigators(
    instance: dg.DagsterInstance, limit: int = 1, *, failed_only: bool = False
) -> list[Instigator]:
    """Return each schedule and sensor with its latest ticks, by name."""
    statuses = _failed() if failed_only else None
    return sorted(
        (
            Instigator(
                state.instigator_name,
                state.instigator_type.value.lower(),
                state.is_running,
                [_tick(tick) for tick in _ticks(instance, state, limit, statuses)],
            )
            for state in instance.all_instigator_state()
        ),
        key=lambda found: found.name,
    )


def _failed() -> list[Any] | None:
    status = TICK_STATUS.find()
    return None if status is None else [status.FAILURE]


def _ticks(
    instance: dg.DagsterInstance,
    state: Any,
    limit: int,
    statuses: Sequence[Any] | None,
) -> Sequence[Any]:
    return instance.get_ticks(
        state.instigator_origin_id, state.selector_id, limit=limit, statuses=statuses
    )


def _tick(tick: Any) -> Tick:
    message = tick.error.message if tick.error else tick.tick_data.skip_reason or ""
    return Tick(int(tick.tick_id), tick.status.value, tick.timestamp, " ".join(message.split()))
