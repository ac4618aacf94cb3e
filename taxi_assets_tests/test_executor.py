"""Steps side by side: what waits for what, failures, retries, and a run that is cancelled."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType as Kind
from dagster._core.events import RunFailureReason
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG
from dagster._core.test_utils import create_run_for_test

from taxi_assets.definitions import defs
from taxi_assets.event_log import BatchedSqliteEventLogStorage, one_transaction
from taxi_assets.executor import side_by_side_executor
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.test_server import until

together = threading.Barrier(2)
threads: dict[str, threading.Thread] = {}
attempts: list[int] = []


@dg.op
def first() -> int:
    threads["first"] = threading.current_thread()
    return 1


@dg.op
def left(value: int) -> int:
    threads["left"] = threading.current_thread()
    together.wait(30)
    return value


@dg.op
def right(context: dg.OpExecutionContext, value: int) -> int:
    threads["right"] = threading.current_thread()
    together.wait(30)
    context.log_event(dg.AssetObservation("seen"))
    return value


@dg.op
def last(left: int, right: int) -> None:
    threads["last"] = threading.current_thread()
    assert (left, right) == (1, 1)


@dg.op(retry_policy=dg.RetryPolicy(max_retries=1))
def at_second(value: int) -> int:
    attempts.append(value)
    if len(attempts) == 1:
        together.wait(30)
        raise ConnectionError("lost")
    return value


@dg.op
def fails(value: int) -> int:
    together.wait(30)
    raise ValueError(f"no {value} here")


@dg.job(executor_def=side_by_side_executor)
def diamond() -> None:
    begun = first()
    last(left(begun), right(begun))


@dg.job(executor_def=side_by_side_executor)
def with_retry() -> None:
    begun = first()
    last(left(begun), at_second(begun))


@dg.job(executor_def=side_by_side_executor)
def with_failure() -> None:
    begun = first()
    last(left(begun), fails(begun))


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    together.reset()
    with dg.DagsterInstance.get() as instance:
        yield instance


def execute(job: dg.JobDefinition, instance: dg.DagsterInstance) -> dg.JobExecutionResult:
    return dg.execute_job(dg.reconstructable(job), instance, raise_on_error=False)


def test_our_jobs_run_this_way() -> None:
    job = defs.resolve_job_def("yellow_daily")
    assert job.executor_def is side_by_side_executor


def test_two_steps_run_at_once_and_a_third_waits_for_both(instance: dg.DagsterInstance) -> None:
    result = execute(diamond, instance)
    assert result.success
    main = threading.current_thread()
    assert threads["first"] is threads["last"] is main
    assert {threads["left"] is main, threads["right"] is main} == {True, False}
    logged = instance.all_logs(result.run_id)
    by_step = {
        step: [log.dagster_event_type for log in logged if log.step_key == step]
        for step in ("left", "right")
    }
    for kinds in by_step.values():
        assert kinds[-1] == Kind.STEP_SUCCESS
        assert kinds.index(Kind.STEP_START) < kinds.index(Kind.HANDLED_OUTPUT)
    assert Kind.ASSET_OBSERVATION in by_step["right"]
    assert Kind.ASSET_OBSERVATION not in by_step["left"]


def test_a_failed_step_stops_what_needs_it_and_nothing_else(instance: dg.DagsterInstance) -> None:
    result = execute(with_failure, instance)
    assert not result.success
    ended = {
        log.step_key: log.dagster_event_type
        for log in instance.all_logs(result.run_id)
        if log.dagster_event_type in (Kind.STEP_SUCCESS, Kind.STEP_FAILURE)
    }
    assert ended == {
        "first": Kind.STEP_SUCCESS,
        "left": Kind.STEP_SUCCESS,
        "fails": Kind.STEP_FAILURE,
    }
    assert reason(instance, result.run_id) == RunFailureReason.STEP_FAILURE.value


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("step", ["first", "left", "right"])
def test_a_storage_that_is_away_ends_the_run_for_the_daemon_to_start_again(
    step: str, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, away = BatchedSqliteEventLogStorage.store_event, [step]

    def store_event(self: BatchedSqliteEventLogStorage, event: dg.EventLogEntry) -> None:
        if away and event.step_key == step and event.dagster_event_type == Kind.STEP_OUTPUT:
            away.clear()
            raise ConnectionError("the storage is away")
        store(self, event)

    monkeypatch.setattr(BatchedSqliteEventLogStorage, "store_event", store_event)
    result = execute(diamond, instance)
    assert not away
    assert reason(instance, result.run_id) == RunFailureReason.RUN_EXCEPTION.value
    (failed,) = (
        log.get_dagster_event().job_failure_data
        for log in instance.all_logs(result.run_id)
        if log.dagster_event_type == Kind.RUN_FAILURE
    )
    assert "the storage is away" in failed.error.message


def reason(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, which is what the daemon goes by (`run_retries`)."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    return run.tags[RUN_FAILURE_REASON_TAG]


def test_a_step_that_failed_beside_another_is_tried_again(instance: dg.DagsterInstance) -> None:
    attempts.clear()
    result = execute(with_retry, instance)
    assert result.success
    assert len(attempts) == 2


CANCELLED = """
import os, pathlib, sys, time
import dagster as dg
from taxi_assets.executor import side_by_side_executor

folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else None

@dg.op
def sleeps():
    (folder / "sleeps").touch()
    time.sleep(300)

@dg.op
def writes():
    (folder / "writes").touch()
    time.sleep(3)
    (folder / "written").touch()

@dg.job(executor_def=side_by_side_executor)
def two():
    sleeps()
    writes()

if __name__ == "__main__":
    from dagster._utils.interrupts import setup_interrupt_handlers
    setup_interrupt_handlers()
    with dg.DagsterInstance.get() as instance:
        run = dg.execute_job(dg.reconstructable(two), instance, raise_on_error=False)
"""


def test_a_cancelled_run_stops_and_waits_for_what_is_being_written(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    script = tmp_path / "cancelled.py"
    script.write_text(CANCELLED)
    known = set(instance.get_run_ids())
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: (tmp_path / "sleeps").exists() and (tmp_path / "writes").exists(), 60)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert time.monotonic() - began < 30
    finally:
        process.kill()
        process.wait()
    assert (tmp_path / "written").exists()
    (run_id,) = set(instance.get_run_ids()) - known
    run = instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    kinds = {(log.step_key, log.dagster_event_type) for log in instance.all_logs(run_id)}
    assert ("sleeps", Kind.STEP_FAILURE) in kinds
    assert ("writes", Kind.STEP_SUCCESS) in kinds


def test_a_batch_of_events_is_its_threads_own_and_outlives_an_error(
    instance: dg.DagsterInstance,
) -> None:
    assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
    run_id = create_run_for_test(instance, job_name="none").run_id

    def stored() -> list[str]:
        return [log.message for log in instance.all_logs(run_id)]

    def tell(text: str) -> None:
        instance.report_engine_event(text, run_id=run_id, job_name="none")

    def lost_in_the_middle() -> None:
        with one_transaction(instance, run_id):
            tell("in the batch")
            other = threading.Thread(target=tell, args=["beside it"])
            other.start()
            other.join(30)
            assert stored() == ["beside it"]
            raise ConnectionError

    with pytest.raises(ConnectionError):
        lost_in_the_middle()
    assert stored() == ["beside it", "in the batch"]
