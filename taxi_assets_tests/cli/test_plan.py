"""`taxi-assets plan` and `status` show each state of a day, by event log and source."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from taxi_assets.cli.day_states import State
from taxi_assets.cli.month_plan import Chunk, Plan, make_plan
from taxi_assets.cli.spans import parse_span
from taxi_assets.cli.status import collect_service_status
from taxi_assets.dagster_internals.rejections import REJECTED
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.cli.conftest import Months, run_command
from taxi_assets_tests.stores import Runs

YELLOW = SERVICES["yellow"]
DAYS = ("2021-01-29", "2021-01-31")
ASSET_NAMES = ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")


def plan_days(instance: dg.DagsterInstance, span: str = "2021-01-29..2021-01-31") -> Plan:
    return make_plan(instance, YELLOW, parse_span(span))


def list_states(instance: dg.DagsterInstance) -> list[State]:
    return [day.state for month in plan_days(instance).months for day in month.days]


def list_planned_runs(instance: dg.DagsterInstance) -> list[tuple[str, tuple[str, ...]]]:
    return [(str(chunk.window), chunk.assets) for chunk in plan_days(instance).runs]


@pytest.fixture
def loaded_instance(instance: dg.DagsterInstance, months: Months) -> dg.DagsterInstance:
    """Load three days of January."""
    months.write("2021-01")
    assert Runs(instance=instance).run("yellow", *DAYS).success
    return instance


def test_unloaded_days_are_missing_and_unpublished_months_get_no_run(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    month_plan = make_plan(instance, YELLOW, parse_span("2021-01..2021-02"))
    january, february = month_plan.months
    assert (january.count(State.missing), len(january.runs)) == (31, 1)
    assert january.runs[0] == Chunk(parse_span("2021-01"), ASSET_NAMES, is_restated=False)
    assert (february.publication.is_absent, february.count(State.missing)) == (True, 28)
    assert february.runs == ()
    assert january.bytes == len((months.folder / "yellow_tripdata_2021-01.csv.gz").read_bytes())


def test_plan_names_each_state_and_the_due_assets(
    loaded_instance: dg.DagsterInstance, months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert list_states(loaded_instance) == [State.loaded] * 3
    assert list_planned_runs(loaded_instance) == []

    with monkeypatch.context() as patch:
        patch.setenv("TAXI_DROP", "none")
        assert list_states(loaded_instance) == [State.stale] * 3
        assert list_planned_runs(loaded_instance) == [("2021-01-29 to 2021-01-31", ASSET_NAMES[1:])]

    # A day that stopped midway continues from there.
    first_assets = [dg.AssetKey(["yellow", name]) for name in ASSET_NAMES[:3]]
    assert (
        Runs(instance=loaded_instance)
        .run("yellow", "2021-01-28", asset_selection=first_assets)
        .success
    )
    (chunk,) = plan_days(loaded_instance, "2021-01-28..2021-01-31").runs
    assert (str(chunk.window), chunk.assets) == ("2021-01-28", ASSET_NAMES[3:])

    lines = months.lines("2021-01")
    months.write("2021-01", lines[:-1])
    assert list_states(loaded_instance) == [State.restated] * 3
    assert [chunk.is_restated for chunk in plan_days(loaded_instance).runs] == [True]


def test_only_days_whose_rows_changed_are_stale_downstream(
    loaded_instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01", months.lines("2021-01")[:-1])
    raw = [dg.AssetKey(["yellow", "raw_trips"])]
    assert Runs(instance=loaded_instance).run("yellow", *DAYS, asset_selection=raw).success
    assert list_states(loaded_instance) == [State.loaded, State.loaded, State.stale]
    assert list_planned_runs(loaded_instance) == [("2021-01-31", ASSET_NAMES[1:])]


def test_plan_prints_a_table_and_json(loaded_instance: dg.DagsterInstance) -> None:
    table = run_command("plan", "yellow", "2021-01..2021-02")
    assert table.splitlines()[0].split()[:4] == ["month", "file", "loaded", "missing"]
    january = table.splitlines()[1].split()
    assert january[:5] == ["2021-01", "yes", "3", "28", "1"]
    # Expected from the run that loaded three days of three rows.
    assert january[5] == "84"
    assert float(january[7]) > 0
    plan_json = json.loads(run_command("plan", "yellow", "2021-01", "--json"))
    (month,) = plan_json["months"]
    assert {name: month[name] for name in ("loaded", "missing", "runs", "expected_rows")} == {
        "loaded": 3,
        "missing": 28,
        "runs": 1,
        "expected_rows": 84,
    }


def test_status_shows_a_rejected_day_that_was_never_loaded() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        key = dg.AssetKey(["green", "cleaned_trips"])
        for day in ("2021-01-05", "2021-01-06"):
            event = dg.AssetObservation(key, partition=day, metadata={REJECTED: "values_readable"})
            instance.report_runless_asset_event(event)
        assert collect_service_status(instance, SERVICES["green"])["rejected"] == [
            "2021-01-05",
            "2021-01-06",
        ]
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition="2021-01-05"))
        assert collect_service_status(instance, SERVICES["green"])["rejected"] == ["2021-01-06"]


def test_status_shows_services_stores_queue_daemon_and_schedules(
    loaded_instance: dg.DagsterInstance,
) -> None:
    status_json = json.loads(run_command("status", "--json"))
    store = {"days": 3, "months": 1, "complete_months": 0, "newest": "2021-01-31"}
    assert status_json["services"]["yellow"]["stores"] == dict.fromkeys(ASSET_NAMES[2:], store)
    assert status_json["services"]["green"]["stores"]["gcs_trips"]["days"] == 0
    assert status_json["queue"] == {}
    assert status_json["daemons"] == {}
    assert status_json["stores"]["postgres"].startswith("embedded, running postgresql://127.0.0.1:")
    names = {entry["name"] for entry in status_json["automation"]}
    assert {"yellow_daily_schedule", "run_failure_alert"} <= names
    screen = run_command("status")
    assert "no unfinished run" in screen
    assert "none has ever run on this instance" in screen
