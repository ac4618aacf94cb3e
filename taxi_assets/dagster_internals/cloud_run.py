"""A run launcher for Cloud Run: that of `dagster-contrib-gcp` with fixes.

`deploy/dagster-gcp.yaml` names it; nothing else imports it. It needs the extra `gcp`.
"""

from __future__ import annotations

import os
from typing import Any

import dagster as dg
from dagster_contrib_gcp.cloud_run.run_launcher import CloudRunRunLauncher
from google.api_core.exceptions import FailedPrecondition, NotFound

RUNS_JOB = "CLOUD_RUN_RUNS_JOB"
"""Environment variable that overrides the name of the Cloud Run job for runs."""


class CloudRunLauncher(CloudRunRunLauncher):  # type: ignore[misc]
    """Launches, monitors and cancels runs on Cloud Run."""

    instance: dg.DagsterInstance
    """Instance that the runs are reported to."""

    def register_instance(self, instance: dg.DagsterInstance) -> None:
        """Store the instance that runs are reported to."""
        super().register_instance(instance)
        self.instance = instance

    def fully_qualified_job_name(self, code_location_name: str) -> str:
        """Return the job of a code location: the environment's, else that of `dagster.yaml`.

        Two deployments in one project share an image but not the names of their jobs, and the
        parent class does not resolve `env:` here.
        """
        name: str = super().fully_qualified_job_name(code_location_name)
        job = os.environ.get(RUNS_JOB)
        return f"{name.rpartition('/')[0]}/{job}" if job else name

    def check_run_worker_health(self, run: dg.DagsterRun) -> Any:
        """Return whether the run's execution is still running.

        Run monitoring treats every status except RUNNING and SUCCESS as a dead worker. The parent
        class returns UNKNOWN if the Cloud Run API answers 5xx once, which marked a healthy run as
        failed and started it a second time. Here an unknown status counts as RUNNING until the next
        poll; `max_runtime_seconds` limits it.
        """
        try:
            health = super().check_run_worker_health(run)
        except NotFound as error:
            # Without the id of an execution the parent class returns UNKNOWN.
            health = super().check_run_worker_health(run.with_tags({}))
            status = type(health.status).NOT_FOUND
            return health._replace(status=status, msg=error.message)
        if health.status.value == "UNKNOWN":
            return health._replace(status=type(health.status).RUNNING)
        return health

    def terminate(self, run_id: str) -> bool:
        """Cancel the run's execution.

        If the execution has already ended, for example because its image cannot be pulled, the API
        rejects the request; the parent class then shows that error and leaves the run CANCELING.
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
