"""When a woken daemon still has work, and the effect of a failed wake."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    TickData,
    TickStatus,
)
from dagster._core.test_utils import create_run_for_test
from dagster._daemon.types import DaemonHeartbeat

from taxi_assets.dagster_internals import woken_daemon
from taxi_assets.dagster_internals.waking_storage import run_daemon_job
from taxi_assets.dagster_internals.woken_daemon import (
    EVALUATION_SECONDS,
    find_evaluation,
    find_work,
    wait_until_idle,
)

REPOSITORY = RemoteRepositoryOrigin(
    RegisteredCodeLocationOrigin("taxi_assets.definitions"), "__repository__"
)
JOB = "projects/taxi-local/locations/us-central1/jobs/taxi-daemon"


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster"))) as instance:
        yield instance


@pytest.fixture
def instance(storage: dg.DagsterInstance) -> dg.DagsterInstance:
    storage.wipe()
    return storage


@pytest.mark.parametrize("status", ["QUEUED", "STARTING", "STARTED", "CANCELING"])
def test_unfinished_run_is_work(instance: dg.DagsterInstance, status: str) -> None:
    assert find_work(instance) is None
    create_run_for_test(
        instance,
        status=dg.DagsterRunStatus(status),
        remote_job_origin=REPOSITORY.get_job_origin("yellow_daily"),
        job_code_origin=JobPythonOrigin(
            "yellow_daily", RepositoryPythonOrigin("python", ModuleCodePointer("m", "defs"))
        ),
    )
    assert find_work(instance) == "1 run queued or in progress"


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED"])
def test_finished_run_is_no_work(instance: dg.DagsterInstance, status: str) -> None:
    create_run_for_test(instance, status=dg.DagsterRunStatus(status))
    assert find_work(instance) is None


@pytest.mark.parametrize(
    ("status", "work"),
    [
        (BulkActionStatus.REQUESTED, "a backfill is open"),
        (BulkActionStatus.CANCELING, "a backfill is open"),
        (BulkActionStatus.FAILING, "a backfill is open"),
        (BulkActionStatus.COMPLETED_SUCCESS, None),
        (BulkActionStatus.CANCELED, None),
    ],
)
def test_open_backfill_is_work(
    instance: dg.DagsterInstance, status: BulkActionStatus, work: str | None
) -> None:
    backfill = PartitionBackfill(
        backfill_id="abc",
        status=status,
        from_failure=False,
        tags={},
        backfill_timestamp=time.time(),
        partition_set_origin=None,
    )
    instance.add_backfill(backfill)
    assert find_work(instance) == work


def begin_evaluation(instance: dg.DagsterInstance, name: str, age: float = 0) -> None:
    """Store a sensor whose evaluation started `age` seconds ago and has not ended."""
    origin = REPOSITORY.get_instigator_origin(name)
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
    instance.add_instigator_state(state)
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name=name,
            instigator_type=state.instigator_type,
            status=TickStatus.STARTED,
            timestamp=time.time() - age,
            selector_id=state.selector_id,
        )
    )


@pytest.mark.parametrize(("age", "is_running"), [(10, True), (EVALUATION_SECONDS + 10, False)])
def test_evaluation_is_running_until_its_time_limit(
    instance: dg.DagsterInstance, age: float, is_running: bool
) -> None:
    begin_evaluation(instance, f"looks_{age}", age)
    assert (find_evaluation(instance) == f"looks_{age} is being evaluated") is is_running


QUIET_SECONDS = 1.0


@contextmanager
def run_daemon(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that has sent every heartbeat and does nothing."""
    monkeypatch.setattr(woken_daemon, "POLL_SECONDS", 0.05)
    for kind in instance.get_required_daemon_types():
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() + 60, kind, "x", []))
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with subprocess.Popen(command) as process:
        try:
            yield process
        finally:
            process.kill()


def test_frequently_evaluated_sensor_does_not_keep_the_daemon_awake(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_evaluation(instance, "operations_alert")
    with run_daemon(instance, monkeypatch) as process:
        started = time.monotonic()
        # Ends a wait that would last for ever.
        end = threading.Timer(60, process.kill)
        end.start()
        assert wait_until_idle(process, instance, QUIET_SECONDS, lambda: None) == 0
        end.cancel()
    # It had time to end.
    assert time.monotonic() - started >= 2 * QUIET_SECONDS


def test_daemon_stays_for_the_run_that_an_evaluation_requests(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin_evaluation(instance, "yellow_new_month_sensor")
    started = time.monotonic()
    request_at, end_at = started + 1.5 * QUIET_SECONDS, started + 3.5 * QUIET_SECONDS
    run_ids: list[str] = []

    def request() -> None:
        """Start a run after the quiet time, while the evaluation is still running; end it."""
        now = time.monotonic()
        if not run_ids and now >= request_at:
            run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
            run_ids.append(run.run_id)
        elif now >= end_at and instance.has_run(run_ids[0]):
            instance.delete_run(run_ids[0])

    with run_daemon(instance, monkeypatch) as process:
        # It is called before the daemon looks for work.
        assert wait_until_idle(process, instance, QUIET_SECONDS, request) == 0
    assert run_ids
    assert time.monotonic() >= end_at + 2 * QUIET_SECONDS


def test_failed_wake_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with caplog.at_level(logging.WARNING):
        assert not run_daemon_job(JOB)
    assert f"{JOB} was not started" in caplog.text
    assert "waits for the next wake" in caplog.text
