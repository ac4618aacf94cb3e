"""A Cloud Run whose executions only report their start and, after a time, their success."""

from __future__ import annotations

import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import dagster as dg
import grpc
from dagster._grpc.types import ExecuteRunArgs
from dagster._serdes import deserialize_value

from taxi_assets_tests.deploy.cloud_run import CloudRun

WINDOW = 60.0
"""Seconds over which Google counts calls of RunJob."""
REPORTING = 4
"""Maximum number of runs that report at the same time; each opens connections to Postgres."""


class TimedRun:
    """Stands in for the process of an execution."""

    def __init__(self) -> None:
        self.code: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, as `Popen.poll` does."""
        return self.code


class TimedCloudRun(CloudRun):
    """Runs executions of `seconds` and rejects calls of RunJob above the quota per minute."""

    def __init__(
        self, job: str, instance: dg.DagsterInstance, seconds: float, quota: int | None
    ) -> None:
        super().__init__(job, {}, Path())
        self.instance = instance
        self.seconds = seconds
        self.quota = quota
        self.launched: list[float] = []
        """Start of each execution, in seconds of the monotonic clock."""
        self.ended: list[float] = []
        self.rejected = 0
        self._recent: deque[float] = deque()
        self._lock = threading.Lock()
        self._reporting = threading.Semaphore(REPORTING)

    def start(self, args: list[str], _: Path, context: grpc.ServicerContext) -> Any:
        """Start the clock of a run."""
        now = time.monotonic()
        with self._lock:
            while self._recent and self._recent[0] < now - WINDOW:
                self._recent.popleft()
            if self.quota is not None and len(self._recent) >= self.quota:
                self.rejected += 1
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "Quota exceeded for RunJob")
            self._recent.append(now)
            self.launched.append(now)
        timed, run_id = TimedRun(), deserialize_value(args[-1], ExecuteRunArgs).run_id
        threading.Thread(target=self._pass, args=(timed, run_id), daemon=True).start()
        return timed

    def _pass(self, timed: TimedRun, run_id: str) -> None:
        due = time.monotonic() + self.seconds
        self._report(run_id, dg.DagsterEventType.RUN_START)
        time.sleep(max(0.0, due - time.monotonic()))
        self._report(run_id, dg.DagsterEventType.RUN_SUCCESS)
        timed.code = 0
        with self._lock:
            self.ended.append(time.monotonic())

    def _report(self, run_id: str, kind: dg.DagsterEventType) -> None:
        event = dg.DagsterEvent(kind.value, job_name="", message="no work was done")
        with self._reporting:
            self.instance.report_dagster_event(event, run_id)
