"""Alerts about real runs that failed or have failed checks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType

from taxi_assets.defs.alerts import targets
from taxi_assets.defs.alerts.alert_sensors import AlertNotDeliveredError, build_alert_sensors
from taxi_assets.errors import SettingsError
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.defs.automation.receivers import Receiver, find_free_port, http_receiver
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("home")

GREEN = SERVICES["green"]
DAYS = [f"2020-11-{day:02d}" for day in range(1, 9)]


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    """Set a webhook as the only target."""
    with http_receiver() as webhook:
        monkeypatch.setenv("TAXI_ALERT_URLS", webhook.apprise)
        monkeypatch.setenv("TAXI_UI_URL", "https://dagster.example.com/")
        yield webhook


@pytest.fixture
def failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.ExecuteInProcessResult:
    """Run a week whose month file does not exist."""
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.csv"))
    return Runs().run("green", DAYS[0], DAYS[-1])


def run_of(result: dg.ExecuteInProcessResult) -> dg.DagsterRun:
    run = dg.DagsterInstance.get().get_run_by_id(result.run_id)
    assert run is not None
    return run


def evaluate_sensor(result: dg.ExecuteInProcessResult) -> dg.SkipReason | None:
    """Evaluate the sensor of the run's status, as the daemon does."""
    instance, run = dg.DagsterInstance.get(), run_of(result)
    of_failures, of_checks = build_alert_sensors()
    ended = {
        dg.DagsterRunStatus.FAILURE: (of_failures, DagsterEventType.RUN_FAILURE),
        dg.DagsterRunStatus.SUCCESS: (of_checks, DagsterEventType.RUN_SUCCESS),
    }
    sensor, kind = ended[run.status]
    (record,) = instance.get_records_for_run(run.run_id, of_type=kind).records
    context = dg.build_run_status_sensor_context(
        sensor.name, record.event_log_entry.get_dagster_event(), instance, run
    )
    if kind == DagsterEventType.RUN_FAILURE:
        context = context.for_run_failure()
    return sensor(context)


def list_logged_alerts(result: dg.ExecuteInProcessResult) -> list[str]:
    """Return the sensors' lines in the run's log."""
    records = (
        dg.DagsterInstance.get()
        .get_records_for_run(result.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        .records
    )
    messages = [record.event_log_entry.get_dagster_event().message for record in records]
    return [message for message in messages if message and "_alert: " in message]


def test_failed_run_is_reported_with_its_cause(
    failed: dg.ExecuteInProcessResult, receiver: Receiver, tmp_path: Path
) -> None:
    evaluate_sensor(failed)
    (body,) = receiver.bodies
    assert body["title"] == "green_daily failed: green/raw_trips 2020-11-01 to 2020-11-08"
    cause, _, link = body["message"].partition("\n\n")
    assert "no such file" in cause
    assert str(tmp_path / "green_2020-11.csv") in cause
    assert "\n" not in cause
    assert "Steps failed" not in cause
    assert link == f"https://dagster.example.com/runs/{failed.run_id}"
    assert run_of(failed).status == dg.DagsterRunStatus.FAILURE
    assert list_logged_alerts(failed) == [
        "run_failure_alert: alerting json (1)",
        "run_failure_alert: alerted json (1)",
    ]


def test_run_is_reported_once_and_at_most_twice_after_crashes(
    failed: dg.ExecuteInProcessResult, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = targets.send_alert

    def crash(*arguments: object) -> None:
        send(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as crashing:
        crashing.setattr("taxi_assets.defs.alerts.alert_sensors.send_alert", crash)
        for _ in range(4):
            try:
                evaluate_sensor(failed)
            except KeyboardInterrupt:
                continue
    assert len(receiver.bodies) == 2
    evaluate_sensor(failed)
    assert len(receiver.bodies) == 2


def test_second_tick_reports_nothing_again(
    failed: dg.ExecuteInProcessResult, receiver: Receiver
) -> None:
    evaluate_sensor(failed)
    evaluate_sensor(failed)
    assert len(receiver.bodies) == 1


def test_undelivered_alert_is_named_in_the_tick_and_the_run(
    failed: dg.ExecuteInProcessResult, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "RETRY_SECONDS", 0.01)
    rejected = f"json://127.0.0.1:{find_free_port()}/planted-secret"
    monkeypatch.setenv("TAXI_ALERT_URLS", f"{rejected} {receiver.apprise}")
    with pytest.raises(AlertNotDeliveredError) as error:
        evaluate_sensor(failed)
    assert str(error.value).startswith(
        f"the alert on run {failed.run_id} did not reach json (1): A Connection"
    )
    assert list_logged_alerts(failed)[-1].startswith(
        "run_failure_alert: alerted json (2) (failed: json (1): A Con"
    )
    assert "planted-secret" not in f"{error.value} {list_logged_alerts(failed)}"
    assert len(receiver.bodies) == 1
    assert run_of(failed).status == dg.DagsterRunStatus.FAILURE


def test_run_with_invalid_settings_is_reported(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as wrong:
        wrong.setenv("TAXI_LAKE_LAYOUT", "flat")
        result = Runs().run("green", "2020-11-05")
        assert not result.success
        evaluate_sensor(result)
    (body,) = receiver.bodies
    assert "TAXI_LAKE_LAYOUT='flat' should be 'hive' or 'date'" in body["message"]


def test_invalid_alert_settings_fail_the_tick_only(
    failed: dg.ExecuteInProcessResult, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_ALERT_ON", "always")
    with pytest.raises(SettingsError, match="TAXI_ALERT_ON='always' should be"):
        evaluate_sensor(failed)
    assert receiver.bodies == []
    for sensor in build_alert_sensors():
        problem = "No alert can be sent, the settings are invalid: profile 'local': TAXI_ALERT_ON"
        assert problem in (sensor.description or "")


@pytest.mark.parametrize("warnings", [True, False])
def test_failed_checks_of_a_successful_run_are_reported(
    warnings: bool, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [make_trip_line(day, -5.0) for day in DAYS]
    monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2020-11", lines))
    if warnings:
        monkeypatch.setenv("TAXI_ALERT_ON", "failure_and_warnings")
    result = Runs().run("green", DAYS[0], DAYS[-1])
    assert result.success
    evaluate_sensor(result)
    if not warnings:
        assert receiver.bodies == list_logged_alerts(result) == []
        return
    (body,) = receiver.bodies
    assert body["title"] == "green_daily has failed checks: 2020-11-01 to 2020-11-08"
    days = f"({', '.join(DAYS[:5])} and 3 more)"
    checks, link = body["message"].split("\n\n")
    assert checks.startswith("Failed checks: WARN green/")
    assert "WARN green/raw_trips.every_day_has_rows" in checks
    assert f"WARN green/cleaned_trips.negative_totals {days}" in checks
    assert link.startswith("https://")


def test_failed_error_check_is_always_reported(
    receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [make_trip_line(DAYS[0]), make_trip_line(DAYS[1], passengers="many")]
    monkeypatch.setenv("TAXI_SOURCE", write_month(tmp_path, GREEN, "2020-11", lines))
    result = Runs().run("green", DAYS[0], DAYS[1])
    assert not result.success
    evaluate_sensor(result)
    (body,) = receiver.bodies
    cause, checks, _ = body["message"].split("\n\n")
    assert checks == f"Failed checks: ERROR green/cleaned_trips.values_readable ({DAYS[1]})"
    assert f"1 of 2 days not stored; the other 1 are stored. {DAYS[1]}: " in cause


def test_sensors_without_a_target_are_stopped_and_give_the_reason(
    failed: dg.ExecuteInProcessResult,
) -> None:
    for sensor in build_alert_sensors():
        assert sensor.default_status == dg.DefaultSensorStatus.STOPPED
        assert "No target is set (TAXI_ALERT_URLS)." in (sensor.description or "")
    skipped = evaluate_sensor(failed)
    assert isinstance(skipped, dg.SkipReason)
    assert "no target is set" in (skipped.skip_message or "")
    assert list_logged_alerts(failed) == []


def test_sensors_with_a_target_run_and_show_no_secret(receiver: Receiver) -> None:
    for sensor in build_alert_sensors():
        assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
        assert "Targets: json (1)." in (sensor.description or "")
        assert "planted-secret" not in (sensor.description or "")
