"""Ended backfills, which Dagster exposes in the UI and by GraphQL only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.tags import BACKFILL

SUCCESSES = ("COMPLETED", "COMPLETED_SUCCESS")
ENDED = (*SUCCESSES, "COMPLETED_FAILED", "FAILED", "CANCELED")
LATEST = 100


@dataclass(frozen=True)
class EndedBackfill:
    """A backfill in a final state."""

    backfill_id: str
    succeeded: bool
    status: str
    runs: int
    failed_runs: int
    assets: tuple[str, ...]


def list_ended_backfills(instance: dg.DagsterInstance, since: float) -> list[EndedBackfill]:
    """Return the latest backfills, at most 100, that ended after a time in seconds since 1970."""
    return [
        _describe(instance, backfill)
        for backfill in instance.get_backfills(limit=LATEST)
        if backfill.status.value in ENDED and (backfill.backfill_end_timestamp or 0) > since
    ]


def _describe(instance: dg.DagsterInstance, backfill: Any) -> EndedBackfill:
    tags = {BACKFILL: backfill.backfill_id}
    failed = [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
    return EndedBackfill(
        backfill.backfill_id,
        backfill.status.value in SUCCESSES,
        backfill.status.value,
        instance.get_runs_count(dg.RunsFilter(tags=tags)),
        instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=failed)),
        tuple(key.to_user_string() for key in backfill.asset_selection or ()),
    )
