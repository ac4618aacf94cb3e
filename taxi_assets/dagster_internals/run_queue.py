"""Queue a run of a job, and find out whether a daemon processes the queue.

`dagster job launch` does the same without a selection of assets. The code location has the same
name in every deployment, so the daemon finds it in its own workspace.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.instance import build_job_origin

QUEUE_DAEMON = "QUEUED_RUN_COORDINATOR"
MAX_HEARTBEAT_AGE_SECONDS = 90.0
"""A daemon reports every 30 s; Dagster's UI considers it healthy for another half an hour."""


def get_heartbeat_ages(instance: dg.DagsterInstance) -> dict[str, float]:
    """Return the seconds since each daemon last reported, by name."""
    now = time.time()
    return {name: now - beat.timestamp for name, beat in instance.get_daemon_heartbeats().items()}


def has_live_queue(instance: dg.DagsterInstance) -> bool:
    """Return whether a daemon is running."""
    age = get_heartbeat_ages(instance).get(QUEUE_DAEMON, MAX_HEARTBEAT_AGE_SECONDS)
    return age < MAX_HEARTBEAT_AGE_SECONDS


def queue_run(
    instance: dg.DagsterInstance,
    job: Any,
    assets: Sequence[dg.AssetKey] | None,
    run_config: Mapping[str, Any],
    tags: Mapping[str, str],
) -> str:
    """Queue a run of a reconstructable job, or of the given assets of it, and return its id."""
    run = instance.create_run_for_job(
        job.get_definition(),
        run_config=run_config,
        tags=tags,
        asset_selection=None if assets is None else frozenset(assets),
        remote_job_origin=build_job_origin(job.job_name),
        job_code_origin=job.get_python_origin(),
    )
    workspace: Any = None  # Launchers need it, the queue does not.
    return instance.submit_run(run.run_id, workspace).run_id
