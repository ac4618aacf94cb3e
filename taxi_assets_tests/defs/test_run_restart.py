"""A run that lost Dagster's storage in a step is restarted; a run with a failed step is not."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType as Kind
from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG, WILL_RETRY_TAG
from sqlalchemy.exc import OperationalError

from taxi_assets.dagster_internals.event_batches import Batches
from taxi_assets.definitions import IN_PROCESS, build_defs
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")

GREEN = SERVICES["green"]
DAYS = ["2021-02-01", "2021-02-02"]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv(
        "TAXI_SOURCE", write_month(tmp_path, GREEN, "2021-02", [*map(make_trip_line, DAYS)])
    )
    return Runs()


def test_jobs_run_in_one_process() -> None:
    assert build_defs().resolve_job_def("yellow_daily").executor_def is IN_PROCESS


def test_run_of_a_command_has_the_loaded_job() -> None:
    # The UI marks a run of another version of its job with a warning.
    job = build_defs().resolve_job_def("green_daily")
    ephemeral = job.as_ephemeral_job(resource_defs={}, input_values={})
    assert ephemeral.get_job_snapshot_id() == job.get_job_snapshot_id()


def lose_the_storage(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """Fail to store the first output of a step."""
    store, away = Batches.store_event, [step]

    def store_event(self: Batches, event: dg.EventLogEntry) -> None:
        if away and event.step_key == step and event.dagster_event_type == Kind.STEP_OUTPUT:
            away.clear()
            raise OperationalError("INSERT", {}, Exception("the storage is away"))
        store(self, event)

    monkeypatch.setattr(Batches, "store_event", store_event)


@pytest.mark.parametrize("step", ["green__raw_trips", "green__bigquery_trips"])
def test_run_that_lost_the_storage_in_a_step_is_restarted(
    step: str, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_the_storage(monkeypatch, step)
    result = runs.run("green", DAYS[0])
    assert not result.success
    assert "the storage is away" in stores.failure(result)
    run = runs.instance.get_run_by_id(result.run_id)
    assert run is not None
    # The daemon's criterion.
    assert run.tags[WILL_RETRY_TAG] == "true"


def test_run_with_a_failed_step_is_not_restarted(
    runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", "/nowhere/{service}_tripdata_{year}-{month}.csv.gz")
    result = runs.run("green", DAYS[0])
    run = runs.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.tags[RUN_FAILURE_REASON_TAG] == "STEP_FAILURE"
    assert run.tags[WILL_RETRY_TAG] == "false"
