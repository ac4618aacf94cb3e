"""Has the daemon start a run again that lost Dagster's own storage.

`run_retries` in `dagster.yaml` leaves a run alone whose step failed: the step has used its own
retries. An event of Dagster's own that could not be stored fails the step, too, and no retry of
the step covers it.
"""

from __future__ import annotations

import dagster as dg

from taxi_assets.dagster_internals.tags import RETRY_ON_FAILURE
from taxi_assets.errors import is_transient


@dg.failure_hook(name="restart_run_that_lost_dagsters_storage")
def request_run_restart(context: dg.HookContext) -> None:
    """Tag the run for a restart if its step failed on Dagster's storage.

    All that an asset or an IO manager raises is a `Failure`: a transient error that reaches the
    hook as it is comes from Dagster's storage.
    """
    error = context.op_exception
    if error is not None and not isinstance(error, dg.Failure) and is_transient(error):
        context.instance.add_run_tags(context.run_id, {RETRY_ON_FAILURE: "true"})
