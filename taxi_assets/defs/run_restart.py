"""Let the daemon restart a run that failed because Dagster's own storage was unreachable.

`run_retries` in `dagster.yaml` does not restart a run whose step failed, because the step has used
its own retries. But an event that Dagster could not store also fails the step, and no retry of the
step covers that.
"""

from __future__ import annotations

import dagster as dg

from taxi_assets.dagster_internals.tags import RETRY_ON_FAILURE
from taxi_assets.errors import is_transient


@dg.failure_hook(name="restart_run_that_lost_dagsters_storage")
def request_run_restart(context: dg.HookContext) -> None:
    """Tag the run for a restart if its step failed because of Dagster's storage.

    Assets and IO managers raise only `Failure`, so any other transient error that reaches this hook
    comes from Dagster's storage.
    """
    error = context.op_exception
    if error is not None and not isinstance(error, dg.Failure) and is_transient(error):
        context.instance.add_run_tags(context.run_id, {RETRY_ON_FAILURE: "true"})
