"""Dagster runs as executions of a Cloud Run job: `dagster-contrib-gcp`'s launcher, repaired.

Named by `deploy/dagster-gcp.yaml`; nothing else imports it, and it needs the extra `gcp`.
"""

from __future__ import annotations

import os
from typing import Any

import dagster as dg
from dagster_contrib_gcp.cloud_run.run_launcher import CloudRunRunLauncher
from google.api_core.exceptions import FailedPrecondition, NotFound

RUNS_JOB = "CLOUD_RUN_RUNS_JOB"
"""Variable with the name of the job whose executions are runs, where it is not the settings'."""


class CloudRunLauncher(CloudRunRunLauncher):  # type: ignore[misc]
    """Launches runs on Cloud Run, watches and cancels them."""

    instance: dg.DagsterInstance
    """Of the process: the launcher and the instance have each other."""

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Take the instance that runs are reported to."""
        super().register_instance(instance)
        self.instance = instance

    def fully_qualified_job_name(self, code_location_name: str) -> str:
        """Return the job of a code location: the environment's, else the one in `dagster.yaml`.

        Two deployments in one project have jobs of different names and one image, and the parent
        does not resolve `env:` in this place.
        """
        name: str = super().fully_qualified_job_name(code_location_name)
        job = os.environ.get(RUNS_JOB)
        return f"{name.rpartition('/')[0]}/{job}" if job else name

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Return whether the run's execution is still running.

        Run monitoring takes every other answer than RUNNING and SUCCESS for a dead worker. The
        parent says UNKNOWN when the Cloud Run API answers 5xx once: a healthy run was marked as
        failed and started a second time beside itself. What is not known is asked again at the
        next poll; `max_runtime_seconds` bounds it.
        """
        try:
            health = super().check_run_worker_health(run)
        except NotFound as error:
            # Without an execution's id the parent answers UNKNOWN.
            health = super().check_run_worker_health(run.with_tags({}))
            status = type(health.status).NOT_FOUND
            return health._replace(status=status, msg=error.message)
        if health.status.value == "UNKNOWN":
            return health._replace(status=type(health.status).RUNNING)
        return health

    def terminate(self, run_id: str) -> bool:
        """Cancel the run's execution.

        The parent lets the API's refusal to cancel an execution that has already ended (an image
        that cannot be pulled, say) out to the UI and leaves the run CANCELING.
        """
        try:
            return bool(super().terminate(run_id))
        except (FailedPrecondition, NotFound) as error:
            instance = self.instance
            run = instance.get_run_by_id(run_id)
            if run is None:
                return False
            instance.report_run_canceled(run, f"Its execution had ended: {error.message}")
            return True
