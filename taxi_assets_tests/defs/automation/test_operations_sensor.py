"""`operations_alert` and the heartbeat: in this process, and in a daemon that is killed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
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
from taxi_assets_tests.defs.automation.receivers import Receiver, find_free_port, http_receiver
from taxi_assets_tests.defs.automation.ticks import add_sensor, add_tick
from taxi_assets_tests.fake_http_server import Handler, Site, drip_headers, serving
from taxi_assets_tests.test_server import until

DAEMON = str(Path(sys.executable).with_name("dagster-daemon"))
YELLOW = SERVICES["yellow"]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with http_receiver() as webhook:
        monkeypatch.setenv("TAXI_ALERT_URLS", webhook.apprise)
        monkeypatch.setenv("TAXI_UI_URL", "https://dagster.example.com")
        yield webhook


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("TAXI_HOME", str(tmp_path / "taxi"))
    folder = tmp_path / "dagster"
    folder.mkdir()
    with dg.DagsterInstance.local_temp(str(folder)) as opened:
        yield opened


def evaluate_sensor(instance: dg.DagsterInstance) -> dg.SensorResult:
    """Evaluate the sensor as the daemon does."""
    context = dg.build_sensor_context(instance=instance)
    result = build_operations_sensor({"yellow": YELLOW})(context)
    assert isinstance(result, dg.SensorResult)
    return result


def test_failed_tick_is_reported_once_across_killed_processes(
    instance: dg.DagsterInstance, receiver: Receiver
) -> None:
    sensor = add_sensor(instance, "green_new_month_sensor")
    add_tick(instance, sensor, TickStatus.FAILURE, time.time() - 60)
    evaluate_sensor(instance)
    assert receiver.bodies == []
    add_tick(instance, sensor, TickStatus.SUCCESS, time.time())
    add_tick(instance, sensor, TickStatus.FAILURE, time.time() + 0.01)
    for _ in range(3):
        evaluate_sensor(instance)
    (body,) = receiver.bodies
    assert body["title"] == "green_new_month_sensor: a tick failed"
    assert "SourceError: 403" in body["message"]
    assert body["message"].endswith("https://dagster.example.com/automation")


def test_unreachable_target_is_named_in_the_tick_and_retries_end(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_ALERT_URLS", f"json://127.0.0.1:{find_free_port()}/planted-secret")
    sensor = add_sensor(instance, "green_new_month_sensor")
    evaluate_sensor(instance)
    add_tick(instance, sensor, TickStatus.FAILURE, time.time())
    with pytest.raises(AlertNotDeliveredError) as error:
        evaluate_sensor(instance)
    assert str(error.value).startswith("green_new_month_sensor: a tick failed did not reach json")
    assert "planted-secret" not in str(error.value)
    evaluate_sensor(instance)


def test_stale_store_is_reported_after_a_day(
    instance: dg.DagsterInstance,
    receiver: Receiver,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TAXI_SOURCE", site.template)
    monkeypatch.setenv("TAXI_START_DATE", "2021-01-01")
    monkeypatch.setenv("TAXI_END_DATE", "2021-02-28")
    site.months = {"/yellow/yellow_tripdata_2021-02.csv.gz": b"x"}
    evaluations = evaluate_sensor(instance).asset_events
    assert {evaluation.passed for evaluation in evaluations} == {False}
    assert {str(evaluation.severity) for evaluation in evaluations} == {"AssetCheckSeverity.WARN"}
    # The source is probed once in TAXI_SENSOR_INTERVAL_SECONDS.
    assert evaluate_sensor(instance).asset_events == []
    assert receiver.bodies == []

    day_later = time.time() + operations_sensor.STALE_SECONDS + 1
    monkeypatch.setattr(operations_sensor.time, "time", lambda: day_later)
    evaluate_sensor(instance)
    evaluate_sensor(instance)
    assert sorted(body["title"] for body in receiver.bodies) == [
        f"yellow/{store}_trips is not up to date" for store in ("gcs", "postgres")
    ]
    assert (
        "2021-02 is published, no month is the newest complete month"
        in (receiver.bodies[0]["message"])
    )


def test_silent_heartbeat_target_stops_nothing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_HEARTBEAT_URL", f"http://127.0.0.1:{find_free_port()}/planted-secret")
    result = evaluate_sensor(instance)
    assert "heartbeat: ConnectionError" in str(result.skip_reason)
    assert "planted-secret" not in str(result.skip_reason)


def test_heartbeat_target_with_endless_headers_delays_no_alert(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations_sensor, "HEARTBEAT_SECONDS", 0.5)
    with serving() as site:
        monkeypatch.setenv("TAXI_HEARTBEAT_URL", f"{site.address}/planted-secret")
        site.get_faults = [drip_headers]
        end = threading.Timer(60, site.resume.set)
        end.start()
        result = evaluate_sensor(instance)
        assert not site.resume.is_set()
        end.cancel()
    assert "heartbeat: ReadTimeout" in str(result.skip_reason)


def reject_request(handler: Handler) -> None:
    handler.send_response(401)
    handler.send_header("Content-Length", "0")
    handler.end_headers()


@contextmanager
def run_daemon(log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a daemon without a webserver; kill it at the end if it still runs."""
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


def make_conditions_without_daemon(instance: dg.DagsterInstance) -> None:
    """End a backfill, leave yesterday's run running, and leave one store of three behind."""
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
    # First observed a day ago.
    ledger = AlertLedger.load(instance, now)
    ledger.measure_duration(
        "stale yellow postgres_trips 2021-01", now - operations_sensor.STALE_SECONDS
    )
    ledger.save(now)


def test_heartbeat_stops_with_the_daemon_and_a_restart_repeats_nothing(
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
            known = len(switch.get_requests)
            return lambda: len(switch.get_requests) >= known + more

        def wait_for_alerts(number: int) -> None:
            """Wait for alerts: at most a minute, by the ticks of a daemon on a busy machine."""
            known = len(switch.get_requests)
            until(lambda: len(receiver.bodies) >= number, 300)
            assert len(switch.get_requests) - known <= 60 / SECONDS

        with run_daemon(tmp_path / "log"):
            until(beats(1), 300)
            source.head_faults = [reject_request] * 100_000
            source.get_faults = [reject_request] * 100_000
            # Two sensors fail; both alerts arrive within the minute that the docs state.
            wait_for_alerts(2)
            # Stopped once the last alert is recorded as sent, which is before the next beat.
            until(beats(1), 300)
        time.sleep(1)
        known = len(switch.get_requests)
        time.sleep(2 * SECONDS)
        assert len(switch.get_requests) == known
        source.head_faults, source.get_faults = [], []
        source.months = {"/yellow/yellow_tripdata_2021-01.csv.gz": b"x"}
        with dg.DagsterInstance.get() as instance:
            make_conditions_without_daemon(instance)
        monkeypatch.setenv("TAXI_AUTOMATION", "stopped")
        late = [
            "backfill of2009 ended as COMPLETED_FAILED",
            "yellow/postgres_trips is not up to date",
            "yellow_daily has been running for 24.0 h",
        ]
        expected_titles = [
            f"{name}_new_month_sensor: a tick failed" for name in ("green", "yellow")
        ]
        with run_daemon(tmp_path / "log"):
            until(beats(1), 300)
            wait_for_alerts(len([*expected_titles, *late]))
            until(beats(1), 300)
        with run_daemon(tmp_path / "log"):
            until(beats(3), 300)
    assert sorted(body["title"] for body in receiver.bodies) == sorted([*expected_titles, *late])
