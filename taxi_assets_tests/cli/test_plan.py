"""`taxi-assets plan` and `status`: each state of a day, by the event log and the source."""

from __future__ import annotations

import json

import dagster as dg
import pytest

from taxi_assets.cli.day_states import State
from taxi_assets.cli.month_plan import Chunk, Plan, make_plan
from taxi_assets.cli.spans import parse_span
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.cli.conftest import Months, run
from taxi_assets_tests.stores import Runs

YELLOW = SERVICES["yellow"]
DAYS = ("2021-01-29", "2021-01-31")
ALL = ("raw_trips", "cleaned_trips", "postgres_trips", "gcs_trips", "bigquery_trips")


def plan(instance: dg.DagsterInstance, span: str = "2021-01-29..2021-01-31") -> Plan:
    return make_plan(instance, YELLOW, parse_span(span))


def states(instance: dg.DagsterInstance) -> list[State]:
    return [day.state for month in plan(instance).months for day in month.days]


def planned(instance: dg.DagsterInstance) -> list[tuple[str, tuple[str, ...]]]:
    return [(str(chunk.window), chunk.assets) for chunk in plan(instance).runs]


@pytest.fixture
def loaded(instance: dg.DagsterInstance, months: Months) -> dg.DagsterInstance:
    """Three days of January."""
    months.write("2021-01")
    assert Runs(instance=instance).run("yellow", *DAYS).success
    return instance


def test_what_was_never_loaded_is_missing_and_a_month_that_is_absent_gets_no_run(
    instance: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01")
    found = make_plan(instance, YELLOW, parse_span("2021-01..2021-02"))
    january, february = found.months
    assert (january.count(State.missing), len(january.runs)) == (31, 1)
    assert january.runs[0] == Chunk(parse_span("2021-01"), ALL, is_restated=False)
    assert (february.publication.is_absent, february.count(State.missing)) == (True, 28)
    assert february.runs == ()
    assert january.bytes == len((months.folder / "yellow_tripdata_2021-01.csv.gz").read_bytes())


def test_each_state_and_the_assets_that_are_due(
    loaded: dg.DagsterInstance, months: Months, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert states(loaded) == [State.loaded] * 3
    assert planned(loaded) == []

    with monkeypatch.context() as patch:
        patch.setenv("TAXI_DROP", "none")
        assert states(loaded) == [State.stale] * 3
        assert planned(loaded) == [("2021-01-29 to 2021-01-31", ALL[1:])]

    # A day that stopped on its way goes on from there.
    first = [dg.AssetKey(["yellow", name]) for name in ALL[:3]]
    assert Runs(instance=loaded).run("yellow", "2021-01-28", asset_selection=first).success
    (chunk,) = plan(loaded, "2021-01-28..2021-01-31").runs
    assert (str(chunk.window), chunk.assets) == ("2021-01-28", ALL[3:])

    lines = months.lines("2021-01")
    months.write("2021-01", lines[:-1])
    assert states(loaded) == [State.restated] * 3
    assert [chunk.is_restated for chunk in plan(loaded).runs] == [True]


def test_only_days_whose_rows_changed_are_stale_downstream(
    loaded: dg.DagsterInstance, months: Months
) -> None:
    months.write("2021-01", months.lines("2021-01")[:-1])
    raw = [dg.AssetKey(["yellow", "raw_trips"])]
    assert Runs(instance=loaded).run("yellow", *DAYS, asset_selection=raw).success
    assert states(loaded) == [State.loaded, State.loaded, State.stale]
    assert planned(loaded) == [("2021-01-31", ALL[1:])]


def test_the_command_prints_a_table_and_json(loaded: dg.DagsterInstance) -> None:
    table = run("plan", "yellow", "2021-01..2021-02")
    assert table.splitlines()[0].split()[:4] == ["month", "file", "loaded", "missing"]
    january = table.splitlines()[1].split()
    assert january[:5] == ["2021-01", "yes", "3", "28", "1"]
    # Expected from the run that loaded three days of three rows.
    assert january[5] == "84"
    assert float(january[7]) > 0
    found = json.loads(run("plan", "yellow", "2021-01", "--json"))
    (month,) = found["months"]
    assert {name: month[name] for name in ("loaded", "missing", "runs", "expected_rows")} == {
        "loaded": 3,
        "missing": 28,
        "runs": 1,
        "expected_rows": 84,
    }


def test_status_shows_services_stores_queue_daemon_and_schedules(
    loaded: dg.DagsterInstance,
) -> None:
    found = json.loads(run("status", "--json"))
    store = {"days": 3, "months": 1, "whole_months": 0, "newest": "2021-01-31"}
    assert found["services"]["yellow"]["stores"] == dict.fromkeys(ALL[2:], store)
    assert found["services"]["green"]["stores"]["gcs_trips"]["days"] == 0
    assert found["queue"] == {}
    assert found["daemons"] == {}
    assert found["stores"]["postgres"].startswith("embedded, running postgresql://127.0.0.1:")
    names = {one["name"] for one in found["automation"]}
    assert {"yellow_daily_schedule", "run_failure_alert"} <= names
    screen = run("status")
    assert "no unfinished run" in screen
    assert "none has ever run on this instance" in screen
