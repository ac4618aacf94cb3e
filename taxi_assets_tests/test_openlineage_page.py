"""docs/openlineage.md as printed: a catalogue receives the columns, origins and checks of a day."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.defs.jobs.test_daily import make_trip_line, write_month
from taxi_assets_tests.printed_blocks import paste, read_blocks
from taxi_assets_tests.test_quickstart import copy_checkout

pytestmark = pytest.mark.usefixtures("empty_stores")

URL = "http://127.0.0.1:5000"
DAILY = ("raw_trips", "cleaned_trips", "gcs_trips", "postgres_trips", "bigquery_trips")


@pytest.fixture
def received() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Return the URL of a catalogue on loopback, and the events that it received."""
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
        yield f"http://127.0.0.1:{server.server_port}", events
        server.shutdown()


def test_catalogue_receives_columns_origins_checks_and_failures(
    tmp_path: Path, received: tuple[str, list[dict[str, Any]]]
) -> None:
    url, events = received
    (block,) = read_blocks("docs/openlineage.md")
    install, *lines = block.text.splitlines(keepends=True)
    assert install == ".venv/bin/pip install --quiet -e '.[openlineage]'\n"
    script = "".join(lines)
    assert URL in script
    month = write_month(
        tmp_path, SERVICES["green"], "2021-01", [make_trip_line(day) for day in ("2021-01-05",)]
    )
    with copy_checkout() as clone:
        (clone / ".venv").symlink_to(sys.prefix)
        (clone / ".env").write_text(f"DAGSTER_HOME={clone}\n")
        settings = {name: os.environ[name] for name in ("TAXI_HOME", "GCS_BUCKET")}
        good = f"({script.replace(URL, url)}) 2>&1"
        assert "Traceback" not in paste(clone, good, TAXI_SOURCE=month, **settings)
        failing = str(tmp_path / "nothing_{service}_{year}-{month}.csv")
        send = f"export OPENLINEAGE_URL={url}\n{lines[-1]}"
        printed = paste(clone, send, 1, TAXI_SOURCE=failing, **settings)
        assert "Traceback" not in printed
        with dg.DagsterInstance.from_config(str(clone)) as instance:
            # The package's own answer is no: without pools, their limits do not hold.
            assert instance.event_log_storage.supports_global_concurrency_limits
            assert instance.get_runs_count() == 2
    stored = {
        event["outputs"][0]["name"]: event["outputs"][0]["facets"]
        for event in events
        if event.get("eventType") == "COMPLETE" and event["outputs"]
    }
    assert set(stored) == {f"green/{name}" for name in DAILY}
    column = stored["green/postgres_trips"]["columnLineage"]["fields"]["total_amount"]
    assert [field["name"] for field in column["inputFields"]] == ["green/cleaned_trips"]
    jobs = {(event.get("eventType"), event.get("job", {}).get("name")) for event in events}
    assert jobs >= {("COMPLETE", f"green/{name}__checks") for name in DAILY}
    assert jobs >= {("FAIL", f"green/{name}") for name in DAILY}
    files = [event["dataset"]["name"] for event in events if "dataset" in event]
    assert set(files) == {"green/trip_file"}
