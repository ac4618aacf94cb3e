"""docs/examples/openlineage sends a catalogue the inputs, outputs and end of a run."""

from __future__ import annotations

import json
import runpy
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.stores import Runs

pytestmark = pytest.mark.usefixtures("empty_stores")


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """Return the events received by a catalogue on loopback."""
    events: list[dict[str, Any]] = []

    class Catalogue(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/api/v1/lineage"
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Discard the message."""

    with HTTPServer(("127.0.0.1", 0), Catalogue) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("OPENLINEAGE_URL", f"http://127.0.0.1:{server.server_port}")
        yield events
        server.shutdown()


def load_sensors() -> dict[str, dg.SensorDefinition]:
    """Return the sensors of the example, by name."""
    path = REPOSITORY / "docs" / "examples" / "openlineage" / "lineage.py"
    return {sensor.name: sensor for sensor in runpy.run_path(str(path))["defs"].sensors}


def send(sensors: dict[str, dg.SensorDefinition], run: dg.DagsterRun, kind: str) -> None:
    """Evaluate the sensor of a run's status as the daemon does."""
    instance = dg.DagsterInstance.get()
    (record,) = instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType(kind)).records
    sensor = sensors[f"openlineage_{run.status.value.lower()}"]
    context = dg.build_run_status_sensor_context(
        sensor_name=sensor.name,
        dagster_event=record.event_log_entry.dagster_event,
        dagster_instance=instance,
        dagster_run=run,
    )
    sensor(context)


def test_catalogue_receives_inputs_and_outputs_of_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, received: list[dict[str, Any]]
) -> None:
    days = ["2021-01-05", "2021-01-06"]
    source = write_month(
        tmp_path, SERVICES["green"], "2021-01", [make_trip_line(day) for day in days]
    )
    monkeypatch.setenv("TAXI_SOURCE", source)
    sensors = load_sensors()
    runs = Runs()
    good = runs.run("green", days[0], days[-1])
    assert good.success
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "nothing_{service}_{year}-{month}.csv"))
    bad = runs.run("yellow", days[0])
    assert not bad.success
    send(sensors, good.dagster_run, "PIPELINE_SUCCESS")
    send(sensors, bad.dagster_run, "PIPELINE_FAILURE")
    complete, failed = received
    assert complete["eventType"] == "COMPLETE"
    assert complete["run"]["runId"] == good.run_id
    assert complete["job"] == {"namespace": "taxi_assets", "name": "green_daily"} | {
        key: value for key, value in complete["job"].items() if key == "facets"
    }
    assert [dataset["name"] for dataset in complete["inputs"]] == ["green/trip_file"]
    output_names = {
        dataset["name"]: dataset["outputFacets"]["outputStatistics"]["rowCount"]
        for dataset in complete["outputs"]
    }
    assert output_names == dict.fromkeys(
        [
            f"green/{name}"
            for name in (
                "bigquery_trips",
                "cleaned_trips",
                "gcs_trips",
                "postgres_trips",
                "raw_trips",
            )
        ],
        2,
    )
    assert failed["eventType"] == "FAIL"
    assert (failed["job"]["name"], failed["outputs"]) == ("yellow_daily", [])


def test_catalogue_receives_start_and_end_of_a_cancelled_run(
    received: list[dict[str, Any]],
) -> None:
    sensors = load_sensors()
    with dg.DagsterInstance.get() as instance:
        run = instance.add_run(dg.DagsterRun("green_daily", status=dg.DagsterRunStatus.STARTING))
        for kind, status in (("PIPELINE_START", "STARTED"), ("PIPELINE_CANCELED", "CANCELED")):
            event = dg.DagsterEvent(kind, run.job_name)
            instance.report_dagster_event(event, run.run_id)
            current = instance.get_run_by_id(run.run_id)
            assert current is not None
            assert current.status == dg.DagsterRunStatus[status]
            send(sensors, current, kind)
    start, abort = received
    assert (start["eventType"], abort["eventType"]) == ("START", "ABORT")
    for event in received:
        assert event["run"]["runId"] == run.run_id
        assert (event["job"]["name"], event["inputs"], event["outputs"]) == ("green_daily", [], [])
