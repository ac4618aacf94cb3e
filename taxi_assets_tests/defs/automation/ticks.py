"""Sensors with ticks in an instance, in the daemon's form."""

from __future__ import annotations

import dagster as dg
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo


def add_sensor(instance: dg.DagsterInstance, name: str) -> InstigatorState:
    """Add a running sensor."""
    target = LoadableTargetOrigin(module_name="taxi_assets.definitions")
    location = InProcessCodeLocationOrigin(target, location_name="taxi_assets.definitions")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)
    data = SensorInstigatorData(min_interval=10)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, data)
    return instance.add_instigator_state(state)


def add_tick(
    instance: dg.DagsterInstance, state: InstigatorState, status: TickStatus, at: float
) -> None:
    """Add an ended tick."""
    error = SerializableErrorInfo(f"SourceError: 403 at {at}\n", [], None)
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name=state.instigator_name,
            instigator_type=state.instigator_type,
            status=status,
            timestamp=float(at),
            run_ids=[],
            error=error if status == TickStatus.FAILURE else None,
            selector_id=state.selector_id,
        )
    )
