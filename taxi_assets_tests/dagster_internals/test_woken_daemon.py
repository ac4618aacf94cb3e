"""When a woken daemon has still something to do, and what a wake that fails leaves."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
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

from taxi_assets.dagster_internals.waking_storage import run_daemon_job
from taxi_assets.dagster_internals.woken_daemon import EVALUATION_SECONDS, find_work

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
def test_an_unfinished_run_is_work(instance: dg.DagsterInstance, status: str) -> None:
    assert find_work(instance) is None
    create_run_for_test(
        instance,
        status=dg.DagsterRunStatus(status),
        remote_job_origin=REPOSITORY.get_job_origin("yellow_daily"),
        job_code_origin=JobPythonOrigin(
            "yellow_daily", RepositoryPythonOrigin("python", ModuleCodePointer("m", "defs"))
        ),
    )
    assert find_work(instance) == "1 runs are queued or in progress"


@pytest.mark.parametrize("status", ["SUCCESS", "FAILURE", "CANCELED"])
def test_a_finished_run_is_none(instance: dg.DagsterInstance, status: str) -> None:
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
def test_an_open_backfill_is_work(
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


@pytest.mark.parametrize(("age", "is_work"), [(10, True), (EVALUATION_SECONDS + 10, False)])
def test_an_evaluation_is_work_until_it_must_have_been_killed(
    instance: dg.DagsterInstance, age: float, is_work: bool
) -> None:
    origin = REPOSITORY.get_instigator_origin(f"looks_{age}")
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING)
    instance.add_instigator_state(state)
    instance.create_tick(
        TickData(
            instigator_origin_id=state.instigator_origin_id,
            instigator_name=f"looks_{age}",
            instigator_type=state.instigator_type,
            status=TickStatus.STARTED,
            timestamp=time.time() - age,
            selector_id=state.selector_id,
        )
    )
    assert (find_work(instance) == f"looks_{age} is evaluated") is is_work


def test_a_wake_that_fails_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "missing.json"))
    with caplog.at_level(logging.WARNING):
        assert not run_daemon_job(JOB)
    assert f"{JOB} was not started" in caplog.text
    assert "waits for the next wake" in caplog.text
