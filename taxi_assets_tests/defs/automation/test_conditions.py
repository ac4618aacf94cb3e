"""Conditions beside failed runs: failed ticks, hanging runs, ended backfills."""

from __future__ import annotations

import os
import signal
import time
from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.scheduler.instigation import TickStatus

from taxi_assets.defs.alerts.operations_sensor import (
    find_ended_backfills,
    find_failed_ticks,
    find_long_runs,
)
from taxi_assets.defs.resources.lake import LakeResource
from taxi_assets.defs.resources.month_lock import MonthLocks, open_lock_store
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.defs.automation.ticks import add_sensor, add_tick
from taxi_assets_tests.processes import start_job
from taxi_assets_tests.test_server import until

UI = "http://ui"


def list_titles(instance: dg.DagsterInstance, since: float = 0.0) -> list[str]:
    return [notice.title for notice in find_failed_ticks(instance, since, "operations_alert", UI)]


def test_failing_tick_is_found_once_until_the_next_success(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    sensor = add_sensor(instance, "green_new_month_sensor")
    own = add_sensor(instance, "operations_alert")
    add_tick(instance, own, TickStatus.FAILURE, 100)
    for number, status in enumerate(["SKIPPED", "FAILURE", "FAILURE", "SUCCESS", "FAILURE"]):
        add_tick(instance, sensor, TickStatus(status), 100 + number)
    assert list_titles(instance) == ["green_new_month_sensor: a tick failed"] * 2
    # Searched from within the first series of failures.
    assert list_titles(instance, 101.5) == ["green_new_month_sensor: a tick failed"]
    assert list_titles(instance, 104.5) == []
    (notice, _) = find_failed_ticks(instance, 0.0, "operations_alert", UI)
    assert notice.lines == ("SourceError: 403 at 101",)


def test_ended_backfill_is_found_in_every_final_state(tmp_path: Path) -> None:
    instance = dg.DagsterInstance.local_temp(str(tmp_path))
    for name, status, end in (
        ("old", BulkActionStatus.COMPLETED_FAILED, 50.0),
        ("good", BulkActionStatus.COMPLETED_SUCCESS, 150.0),
        ("bad", BulkActionStatus.COMPLETED_FAILED, 160.0),
        ("open", BulkActionStatus.REQUESTED, None),
    ):
        backfill = PartitionBackfill(
            backfill_id=name,
            status=status,
            from_failure=False,
            tags={},
            backfill_timestamp=10.0,
            asset_selection=[dg.AssetKey(["green", "raw_trips"])],
            backfill_end_timestamp=end,
        )
        instance.add_backfill(backfill)
    notices = {notice.key: notice for notice in find_ended_backfills(instance, 100.0, UI)}
    assert {key: notice.title for key, notice in notices.items()} == {
        "backfill good": "backfill good succeeded",
        "backfill bad": "backfill bad ended as COMPLETED_FAILED",
    }
    assert notices["backfill bad"].lines == ("0 runs: green/raw_trips",)
    assert notices["backfill bad"].link == f"{UI}/runs/b/bad"


def test_hanging_run_is_found_after_the_limit(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCS_BUCKET", "hanging")
    instance = dg.DagsterInstance.get()
    known = {run.run_id for run in instance.get_runs()}
    # The run waits for its month until it is halted.
    month_locks = MonthLocks("other", lambda: open_lock_store(LakeResource().lake))
    month_locks.acquire(SERVICES["green"], [date(2021, 1, 5)], pytest.fail)
    process = start_job("green", "2021-01-05", "2021-01-06", tmp_path / "log")

    def started() -> str | None:
        runs = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        return next((run.run_id for run in runs if run.run_id not in known), None)

    try:
        run_id = until(started, 300, 0.02)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGSTOP)
        now = time.time()
        expected_key = f"long {run_id}"
        assert expected_key not in [
            condition.key for condition in find_long_runs(instance, 3600, now, UI)
        ]
        (hanging,) = [
            condition
            for condition in find_long_runs(instance, 3600, now + 3700, UI)
            if condition.key == expected_key
        ]
        assert hanging.title.startswith(
            "green_daily has been running for 1.0 h: 2021-01-05 to 2021-01-06"
        )
        assert hanging.link == f"{UI}/runs/{run_id}"
    finally:
        process.kill()
        process.join(60)
        month_locks.close()
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_run_failed(run)
    assert expected_key not in [
        condition.key for condition in find_long_runs(instance, 3600, time.time() + 3700, UI)
    ]
