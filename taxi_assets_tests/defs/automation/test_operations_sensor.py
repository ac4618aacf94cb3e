"""`operations_alert` and the heartbeat: in this process, and in a daemon that is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.scheduler.instigation import TickStatus
from dagster._core.test_utils import create_run_for_test

from taxi_assets.dagster_internals.alert_ledger import AlertLedger
from taxi_assets.defs.alerts import operations_sensor
from taxi_assets.defs.alerts.alert_sensors import AlertNotDeliveredError
from taxi_assets.defs.alerts.operations_sensor import SECONDS, build_operations_sensor
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.automation.receivers import Receiver, free_port, http_receiver
from taxi_assets_tests.defs.automation.ticks import add_tick, ephemeral_sensor
from taxi_assets_tests.fake_http_server import Handler, Site, serving
from taxi_assets_tests.test_server import until

DAEMON = str(Path(sys.executable).with_name("dagster-daemon"))
YELLOW = SERVICES["yellow"]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with http_receiver() as found:
        monkeypatch.setenv("TAXI_ALERT_URLS", found.apprise)
        monkeypatch.setenv("TAXI_UI_URL", "https://dagster.example.com")
        yield found


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "taxi"))
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as found:
        yield found


def tick(instance: dg.DagsterInstance) -> dg.SensorResult:
    """As the daemon evaluates it."""
    context = dg.build_sensor_context(instance=instance)
    result = build_operations_sensor({"yellow": YELLOW})(context)
    assert isinstance(result, dg.SensorResult)
    return result


def test_a_failed_tick_is_sent_once_over_the_death_of_processes(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    sensor = ephemeral_sensor(instance, "green_new_month_sensor")
    add_tick(instance, sensor, TickStatus.FAILURE, time.time() - 60)
    tick(instance)
    assert receiver.bodies == []
    add_tick(instance, sensor, TickStatus.SUCCESS, time.time())
    add_tick(instance, sensor, TickStatus.FAILURE, time.time() + 0.01)
    for _ in range(3):
        tick(instance)
    (body,) = receiver.bodies
    assert body["title"] == "green_new_month_sensor: a tick failed"
    assert "SourceError: 403" in body["message"]
    assert body["message"].endswith("https://dagster.example.com/automation")


def test_a_target_that_is_down_is_named_in_the_tick_and_not_tried_for_ever(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_ALERT_URLS", f"json://127.0.0.1:{free_port()}/planted-secret")
    sensor = ephemeral_sensor(instance, "green_new_month_sensor")
    tick(instance)
    add_tick(instance, sensor, TickStatus.FAILURE, time.time())
    with pytest.raises(AlertNotDeliveredError) as error:
        tick(instance)
    assert str(error.value).startswith("green_new_month_sensor: a tick failed did not reach json")
    assert "planted-secret" not in str(error.value)
    tick(instance)


def test_a_store_without_the_newest_published_month_is_reported_after_a_day(
    instance: dg.DagsterInstance,
    receiver: Receiver,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-01")
    monkeypatch.setenv("TAXI_END_DATE", "2021-02-28")
    site.months = {"/yellow/yellow_tripdata_2021-02.csv.gz": b"x"}
    evaluations = tick(instance).asset_events
    assert {one.passed for one in evaluations} == {False}
    assert {str(one.severity) for one in evaluations} == {"AssetCheckSeverity.WARN"}
    # The source is asked once in TAXI_SENSOR_INTERVAL_SECONDS.
    assert tick(instance).asset_events == []
    assert receiver.bodies == []

    day_later = time.time() + operations_sensor.STALE_SECONDS + 1
    monkeypatch.setattr(operations_sensor.time, "time", lambda: day_later)
    tick(instance)
    tick(instance)
    assert sorted(body["title"] for body in receiver.bodies) == [
        f"yellow/{store}_trips is not up to date" for store in ("gcs", "postgres")
    ]
    assert (
        "2021-02 is published, no month is the newest complete month"
        in (receiver.bodies[0]["message"])
    )


def test_a_dead_mans_switch_that_does_not_answer_stops_nothing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_HEARTBEAT_URL", f"http://127.0.0.1:{free_port()}/planted-secret")
    result = tick(instance)
    assert "heartbeat: ConnectionError" in str(result.skip_reason)
    assert "planted-secret" not in str(result.skip_reason)


def refuse(handler: Handler) -> None:
    handler.send_response(401)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@contextmanager
def daemon(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A daemon without a webserver; killed at the end, if it still runs."""
    with log.open("ab") as output:
        process = subprocess.Popen(
            [DAEMON, "run", "-m", "taxi_assets.definitions"],
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
        try:
            yield process
        finally:
            os.killpg(process.pid, 9)
            process.wait()


def happen_while_no_daemon_runs(instance: dg.DagsterInstance) -> None:
    """A backfill ends, a run that started yesterday goes on, and one store of three is behind."""
    now = time.time()
    backfill = PartitionBackfill(
        backfill_id="of2009",
        status=BulkActionStatus.COMPLETED_FAILED,
        from_failure=False,
        tags={},
        backfill_timestamp=now - 60,
        asset_selection=[dg.AssetKey(["yellow", "raw_trips"])],
        backfill_end_timestamp=now,
    )
    instance.add_backfill(backfill)
    run = create_run_for_test(instance, job_name="yellow_daily")
    started = dg.DagsterEvent(DagsterEventType.RUN_START.value, "yellow_daily")
    instance.handle_new_event(
        dg.EventLogEntry(
            error_info=None,
            level="debug",
            user_message="",
            run_id=run.run_id,
            timestamp=now - 24 * 3600,
            dagster_event=started,
        )
    )
    for name in ("gcs_trips", "bigquery_trips"):
        for day in ("2021-01-30", "2021-01-31"):
            event = dg.AssetMaterialization(["yellow", name], partition=day)
            instance.report_runless_asset_event(event)
    # Seen for the first time a day ago.
    ledger = AlertLedger.load(instance, now)
    ledger.measure_duration(
        "stale yellow postgres_trips 2021-01", now - operations_sensor.STALE_SECONDS
    )
    ledger.save(now)


def test_the_heartbeat_dies_with_the_daemon_and_a_restart_sends_nothing_twice(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "dagster"
    folder.mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    monkeypatch.setenv("DAGSTER_HOME", str(folder))
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "taxi"))
    monkeypatch.setenv("TAXI_AUTOMATION", "running")
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-30")
    monkeypatch.setenv("TAXI_END_DATE", "2021-01-31")
    monkeypatch.setenv("TAXI_SENSOR_INTERVAL_SECONDS", "5")
    with serving() as source, serving() as switch:
        source.months = {}
        monkeypatch.setenv("TAXI_SOURCE", source.template)
        monkeypatch.setenv("TAXI_HEARTBEAT_URL", f"{switch.address}/ping")

        def beats(more: int) -> Callable[[], bool]:
            known = len(switch.asked)
            return lambda: len(switch.asked) >= known + more

        with daemon(tmp_path / "log"):
            until(beats(1), 120)
            source.looks = [refuse] * 100_000
            source.acts = [refuse] * 100_000
            # Two sensors fail; both alerts arrive within the time that the docs state.
            until(lambda: len(receiver.bodies) >= 2, 60)
        time.sleep(1)
        known = len(switch.asked)
        time.sleep(2 * SECONDS)
        assert len(switch.asked) == known
        source.looks, source.acts = [], []
        source.months = {"/yellow/yellow_tripdata_2021-01.csv.gz": b"x"}
        with dg.DagsterInstance.get() as instance:
            happen_while_no_daemon_runs(instance)
        monkeypatch.setenv("TAXI_AUTOMATION", "stopped")
        late = [
            "backfill of2009 ended as COMPLETED_FAILED",
            "yellow/postgres_trips is not up to date",
            "yellow_daily has been running for 24.0 h",
        ]
        told = [f"{name}_new_month_sensor: a tick failed" for name in ("green", "yellow")]
        with daemon(tmp_path / "log"):
            until(beats(1), 120)
            until(lambda: len(receiver.bodies) >= len([*told, *late]), 60)
            # Killed once the last one is noted as sent, which is before the next beat.
            until(beats(1), 60)
        with daemon(tmp_path / "log"):
            until(beats(3), 120)
    assert sorted(body["title"] for body in receiver.bodies) == sorted([*told, *late])
