"""Queue a run of a job, and find out whether a daemon processes the queue.

`dagster job launch` does the same without a selection of assets; no public function does it. The
workspace, a job's remote definition and its execution plan are private. The location has the same
name in every deployment, so the daemon finds it in its own workspace.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import dagster as dg

from taxi_assets.dagster_internals.private_names import (
    JOB_SELECTOR,
    WORKSPACE,
    WORKSPACE_OPTIONS,
)

LOCATION = "taxi_assets.definitions"
QUEUE_DAEMON = "QUEUED_RUN_COORDINATOR"
MAX_HEARTBEAT_AGE_SECONDS = 90.0
"""A daemon reports every 30 s; Dagster's UI considers it healthy for another half an hour."""


def get_heartbeat_ages(instance: dg.DagsterInstance) -> dict[str, float]:
    """Return the seconds since each daemon last reported, by name."""
    now = time.time()
    return {name: now - beat.timestamp for name, beat in instance.get_daemon_heartbeats().items()}


def has_live_queue(instance: dg.DagsterInstance) -> bool:
    """Return whether a daemon is running and this Dagster version supports queueing runs."""
    if not all(name.find() for name in (JOB_SELECTOR, WORKSPACE, WORKSPACE_OPTIONS)):
        return False
    return (
        get_heartbeat_ages(instance).get(QUEUE_DAEMON, MAX_HEARTBEAT_AGE_SECONDS)
        < MAX_HEARTBEAT_AGE_SECONDS
    )


@dataclass(frozen=True)
class RunQueue:
    """An instance's queue, with this package's definitions."""

    instance: dg.DagsterInstance
    workspace: Any

    def submit(
        self,
        job_name: str,
        assets: Sequence[dg.AssetKey],
        run_config: Mapping[str, Any],
        tags: Mapping[str, str],
    ) -> str:
        """Queue a run of the given assets of a job, and return its id."""
        location = self.workspace.get_code_location(LOCATION)
        (repository,) = location.get_repositories().values()
        selector = JOB_SELECTOR.find()(LOCATION, repository.name, job_name, None, assets)
        job = location.get_job(selector)
        plan = location.get_execution_plan(
            job, run_config, step_keys_to_execute=None, known_state=None, instance=self.instance
        ).execution_plan_snapshot
        run = self.instance.create_run(
            job_name=job_name,
            run_id=None,
            run_config=run_config,
            resolved_op_selection=job.resolved_op_selection,
            step_keys_to_execute=plan.step_keys_to_execute,
            op_selection=None,
            status=None,
            root_run_id=None,
            parent_run_id=None,
            tags=dict(tags),
            job_snapshot=job.job_snapshot,
            execution_plan_snapshot=plan,
            parent_job_snapshot=job.parent_job_snapshot,
            remote_job_origin=job.get_remote_origin(),
            job_code_origin=job.get_python_origin(),
            asset_selection=frozenset(assets),
            asset_check_selection=None,
            asset_graph=repository.asset_graph,
        )
        return self.instance.submit_run(run.run_id, self.workspace).run_id


@contextmanager
def open_run_queue(instance: dg.DagsterInstance) -> Iterator[RunQueue]:
    """Load the definitions in this process, and yield the queue."""
    target = WORKSPACE_OPTIONS.find()(module_name=(LOCATION,))
    with WORKSPACE.find()(
        instance, version=dg.__version__, workspace_opts=target, allow_in_process=True
    ) as workspace:
        yield RunQueue(instance, workspace)
