"""The cost of a write in BigQuery, the options of new tables, and the table over the lake."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from taxi_assets.cli.app import main
from taxi_assets.cli.external_table import build_external_table
from taxi_assets.defs.io_managers.bigquery_jobs import sum_job_costs
from taxi_assets.defs.resources.bigquery import create_emulator_client
from taxi_assets.errors import SettingsError
from taxi_assets.settings import Settings
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.defs.io_managers.test_bigquery import (
    DAY,
    GREEN,
    NEXT_DAY,
    TABLE,
    Log,
    client,
    google,
    lake,
    proxy,
    store_in_bigquery,
)

__all__ = ["client", "google", "lake", "proxy"]

NAME = "_staging_1767225600_green_20211001_20211031_0a1b2c3d"


def make_job(job_id: str, kind: str, **statistics: Any) -> dict[str, Any]:
    """Return a job: https://cloud.google.com/bigquery/docs/reference/rest/v2/jobs/list."""
    into = {"projectId": "p", "datasetId": "d", "tableId": "t"}
    return {
        "jobReference": {"projectId": "p", "jobId": job_id, "location": "US"},
        "configuration": {"jobType": kind.upper(), kind: {"destinationTable": into}},
        "status": {"state": "DONE"},
        "statistics": statistics,
    }


@pytest.fixture
def endpoint() -> Iterator[str]:
    """Run a BigQuery with the jobs of a write, and foreign jobs."""
    jobs = [
        make_job(f"taxi{NAME}_load", "load", totalSlotMs="1200", load={"outputRows": "5"}),
        make_job(
            f"taxi{NAME}_by_day", "query", totalSlotMs="800", query={"totalBytesBilled": "10485760"}
        ),
        make_job(f"taxi{NAME}_20211001_0", "copy", copy={"copiedRows": "5"}),
        make_job("taxi_staging_other_load", "load", totalSlotMs="99999"),
        make_job("somebody", "query", totalSlotMs="99999", query={"totalBytesBilled": "99999999"}),
    ]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"kind": "bigquery#jobList", "jobs": jobs}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_cost_of_a_write_is_the_sum_of_its_jobs(endpoint: str) -> None:
    connected = create_emulator_client("p", endpoint, "")
    costs = sum_job_costs(connected, NAME, 1767225600, Log())
    assert costs == {"bytes_billed": 10_485_760, "slot_ms": 2000}


def test_unreadable_costs_fail_no_write(endpoint: str) -> None:
    log = Log()
    connected = create_emulator_client("p", f"{endpoint}/absent".replace("/absent", ":1/x"), "")
    assert sum_job_costs(connected, NAME, 1767225600, log) == {}
    assert "reading the cost of the write failed" in log.warnings[0]


def test_each_day_records_its_share_of_the_cost(google: Any, client: Any, lake: Any) -> None:
    for metadata in store_in_bigquery(lake, DAY, NEXT_DAY).values():
        assert {"bytes_billed", "slot_ms"} <= set(metadata)


def test_options_of_a_new_table_are_settings(
    google: Any, client: Any, lake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGQUERY_REQUIRE_PARTITION_FILTER", "true")
    monkeypatch.setenv("BIGQUERY_CLUSTER_BY", "pulocationid, payment_type")
    monkeypatch.setenv("BIGQUERY_PARTITION_EXPIRATION_DAYS", "36500")
    monkeypatch.setenv("BIGQUERY_LABELS", "team=taxi,cost_center=42")
    store_in_bigquery(lake, DAY, NEXT_DAY)
    table = client.get_table(TABLE)
    assert table.require_partition_filter is True
    assert table.clustering_fields == ["pulocationid", "payment_type"]
    assert table.time_partitioning.expiration_ms == 36_500 * 86_400_000
    assert table.labels == {"team": "taxi", "cost_center": "42"}
    # Days are replaced in it, too.
    assert store_in_bigquery(lake, NEXT_DAY, rows=7)[NEXT_DAY]["rows"] == 7


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BIGQUERY_CLUSTER_BY", "a,b,c,d,e"),
        ("BIGQUERY_CLUSTER_BY", "pickup zone"),
        ("BIGQUERY_LABELS", "team"),
        ("BIGQUERY_LABELS", "Team=taxi"),
        ("BIGQUERY_PARTITION_EXPIRATION_DAYS", "0"),
    ],
)
def test_option_that_google_rejects_is_an_error(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({name: value})


def test_external_table_over_the_lake_has_googles_form(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    lake = Settings.from_env({"TAXI_LAKE": "gs://trips"}).lake
    table = build_external_table(SERVICES["yellow"], lake, "p.d", require_filter=True)
    body = table.to_api_repr()
    # https://cloud.google.com/bigquery/docs/hive-partitioned-queries
    assert body["tableReference"]["tableId"] == "yellow_cab_data_lake"
    external = body["externalDataConfiguration"]
    assert external["sourceFormat"] == "PARQUET"
    assert external["sourceUris"] == ["gs://trips/yellow/*"]
    assert external["hivePartitioningOptions"] == {
        "mode": "CUSTOM",
        "sourceUriPrefix": "gs://trips/yellow/{tpep_pickup_date:DATE}",
        "requirePartitionFilter": True,
    }
    assert main(["external-table", "yellow"]) == 2
    rejection = capfd.readouterr().err
    assert "is a folder of this machine" in rejection
    assert rejection.endswith("set TAXI_LAKE to gs://<bucket>, or GCS_BUCKET\n")
    monkeypatch.setenv("TAXI_LAKE", "gs://trips")
    monkeypatch.setenv("TAXI_LAKE_LAYOUT", "date")
    assert main(["external-table", "yellow"]) == 2
    assert "TAXI_LAKE_LAYOUT=date has no folders" in capfd.readouterr().err


def test_command_creates_the_external_table(
    google: Any, client: Any, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    client.create_dataset(TABLE.partition(".")[0], exists_ok=True)
    monkeypatch.setenv("TAXI_LAKE", "gs://trips")
    for _ in range(2):
        assert main(["external-table", "green"]) == 0
    assert f"{GREEN.table}_lake reads the lake" in capfd.readouterr().out
    assert client.get_table(f"{TABLE}_lake").table_id == f"{GREEN.table}_lake"
