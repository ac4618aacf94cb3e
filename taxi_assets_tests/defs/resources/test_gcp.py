"""Profile `gcp` over real connections: fake-gcs-server for GCS, the emulator for BigQuery."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from datetime import date
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pyarrow.dataset as ds
import pyarrow.fs as pa_fs
import pytest
from google.cloud import storage

from taxi_assets import local
from taxi_assets.defs.resources.bigquery import BigQueryResource
from taxi_assets.defs.resources.lake import Lake, open_lake
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.settings import Settings
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.defs.jobs import jobs as small_jobs
from taxi_assets_tests.defs.test_monthly_report import load_days, read_report_metadata, run_report
from taxi_assets_tests.fault_proxy import HttpProxy
from taxi_assets_tests.gcs_server import gcs_server
from taxi_assets_tests.sockets import socket_folder
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.strict_bigquery import strict_bigquery

BUCKET = "taxi-on-gcs"
YELLOW = SERVICES["yellow"]


@pytest.fixture
def gcs(home: Path) -> Iterator[str]:
    """Run a GCS server whose buckets are folders that the BigQuery emulator also reads."""
    root = local.ensure_stack_running(home / "taxi").lake_root
    (root / BUCKET).mkdir(parents=True, exist_ok=True)
    with gcs_server(root) as address:
        yield address


@pytest.fixture(scope="module")
def google(home: Path) -> Iterator[HttpProxy]:
    """Run the emulator as strict as Google."""
    with strict_bigquery(local.ensure_stack_running(home / "taxi").bigquery_endpoint) as proxy:
        yield proxy


@pytest.fixture
def gcp(gcs: str, google: HttpProxy, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the environment of a server: profile gcp, with every store named."""
    stack = local.ensure_stack_running(home / "taxi")
    settings = {
        "TAXI_PROFILE": "gcp",
        "TAXI_SOURCE": "sample",
        "STORAGE_EMULATOR_HOST": gcs,
        "GCS_BUCKET": BUCKET,
        "GCP_PROJECT": "taxi-local",
        "BIGQUERY_DATASET": "on_gcp",
        "BIGQUERY_ENDPOINT": google.address,
        "BIGQUERY_TOKEN": stack.bigquery_token,
        "POSTGRES_HOST": stack.postgres_host,
        "POSTGRES_PORT": str(stack.postgres_port),
        "POSTGRES_DBNAME": stack.postgres_dbname,
        "POSTGRES_USER": stack.postgres_user,
        "POSTGRES_PASSWORD": stack.postgres_password,
        "POSTGRES_SCHEMA": "on_gcp",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize("layout", ["hive", "date"])
def test_chunk_lands_in_gcs_bigquery_and_postgres(
    layout: str, gcp: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_LAKE_LAYOUT", layout)
    runs = Runs()
    result = runs.run("yellow", "2021-01-05", "2021-01-07")
    assert result.success, stores.failure(result)
    expected = {
        date.fromisoformat(day): event.metadata["rows"].value
        for (asset, day), event in runs.materializations(result.run_id).items()
        if asset == "yellow/cleaned_trips"
    }
    assert len(expected) == 3
    assert min(expected.values()) > 50

    client = storage.Client(project="taxi-local")
    names = {blob.name for blob in client.list_blobs(BUCKET, prefix="yellow/")}
    folder = "yellow/tpep_pickup_date=2021-01-{day}/trips.parquet"
    if layout == "date":
        folder = "yellow/2021/01/{day}/daily-trips.parquet"
    assert {folder.format(day=day) for day in ("05", "06", "07")} <= names

    lake = open_lake(Settings.from_env().lake)
    uris = [f"{BUCKET}/{folder.format(day=f'{day.day:02d}')}" for day in expected]
    assert ds.dataset(uris, filesystem=lake.filesystem).count_rows() == sum(expected.values())
    rows = stores.bigquery().query(
        "SELECT tpep_pickup_date, COUNT(*) FROM on_gcp.yellow_cab_data GROUP BY 1"
    )
    assert {row[0]: row[1] for row in rows.result()} == expected
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM on_gcp.yellow_cab_data")
        assert cursor.fetchone() == (sum(expected.values()),)


def test_rewrite_replaces_the_object(gcp: None) -> None:
    runs = Runs()
    assert runs.run("yellow", "2021-01-05").success
    client = storage.Client(project="taxi-local")
    first_names = {blob.name for blob in client.list_blobs(BUCKET, prefix="yellow/")}
    assert runs.run("yellow", "2021-01-05").success
    assert {blob.name for blob in client.list_blobs(BUCKET, prefix="yellow/")} == first_names


def test_report_has_a_browser_link(gcp: None) -> None:
    runs = Runs()
    load_days(runs, YELLOW, "2021-01-05")
    result = run_report(runs, YELLOW, "2021-01")
    report_metadata = read_report_metadata(runs, result)
    address = f"https://storage.cloud.google.com/{BUCKET}/_reports/yellow/2021-01"
    assert (report_metadata["page"], report_metadata["picture"]) == (
        f"{address}.html",
        f"{address}.png",
    )
    assert report_metadata["dagster/uri"] == f"gs://{BUCKET}/_reports/yellow/2021-01.html"
    blobs = storage.Client(project="taxi-local").list_blobs(BUCKET, prefix="_reports/")
    sizes = {blob.name: blob.size for blob in blobs}
    assert set(sizes) == {f"_reports/yellow/2021-01.{kind}" for kind in ("html", "png")} | {
        "_reports/index.html"
    }
    del sizes["_reports/index.html"]
    assert sum(sizes.values()) == report_metadata["bytes"]
    # GCS delivers a page from another host, so no link between pages is relative.
    lake = open_lake(Settings.from_env().lake)
    links = {
        name: re.findall(r'href="(?!http://)([^"]*)"', str(lake.get(name).to_pybytes(), "utf-8"))
        for name in ("_reports/index.html", "_reports/yellow/2021-01.html")
    }
    to_months, to_index = links.values()
    assert f"{address}.html" in to_months, "beside the reports of other tests on this instance"
    folder = f"https://storage.cloud.google.com/{BUCKET}/_reports/"
    assert all(link.startswith(folder) for link in to_months)
    assert to_index == [f"{folder}index.html"]


def test_object_is_uploaded_with_its_content_type() -> None:
    """fake-gcs-server stores the last chunk's type instead, so this test reads the request."""
    bodies: list[bytes] = []

    class Refuses(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        filesystem = pa_fs.GcsFileSystem(
            anonymous=True,
            scheme="http",
            endpoint_override=f"127.0.0.1:{server.server_port}",
        )
        lake = Lake(filesystem, BUCKET, BUCKET, "hive")
        with pytest.raises(OSError, match="PERMISSION_DENIED"):
            lake.put("page.html", b"<html>", "text/html")
        server.shutdown()
    assert json.loads(bodies[0])["contentType"] == "text/html"


def test_export_to_gcs_is_complete_and_can_be_inspected(gcp: None) -> None:
    result = Runs().run("yellow", "2021-01-05", "2021-01-06")
    assert result.success, stores.failure(result)
    days = {"service": "yellow", "first_day": "2021-01-05", "last_day": "2021-01-06"}
    exported = small_jobs.run_and_read_metadata("export_parquet", **days)
    uri = f"gs://{BUCKET}/nyc_taxi_data.parquet"
    assert exported["dagster/uri"] == uri
    for name in (uri, "nyc_taxi_data.parquet"):
        metadata = small_jobs.run_and_read_metadata("inspect_object", object=name)
        assert (metadata["rows"], metadata["bytes"]) == (exported["rows"], exported["bytes"])
    client = storage.Client(project="taxi-local")
    assert list(client.list_blobs(BUCKET, prefix="_tmp/")) == []
    for name in ("none.csv", f"gs://{BUCKET}/none.parquet", "gs://no-such-bucket/none.csv"):
        assert "there is no gs://" in small_jobs.run_and_read_failure("inspect_object", object=name)
    assert "is not a key of" in small_jobs.run_and_read_failure(
        "inspect_object", object="../x/none.csv"
    )

    damaged = client.bucket(BUCKET).blob("yellow/tpep_pickup_date=2021-01-06/trips.parquet")
    damaged.upload_from_string("PAR1 no more PAR1")
    small_jobs.run_and_read_failure("export_parquet", **days)
    metadata_by_uri = small_jobs.run_and_read_metadata("inspect_object", object=uri)
    assert (metadata_by_uri["rows"], metadata_by_uri["bytes"]) == (
        exported["rows"],
        exported["bytes"],
    )
    assert list(client.list_blobs(BUCKET, prefix="_tmp/")) == []


def test_existing_dataset_is_not_created(
    gcp: None, google: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor of Terraform's dataset may not create one: BigQuery answers 403."""
    monkeypatch.setenv("BIGQUERY_DATASET", "made_by_terraform")
    stores.bigquery().create_dataset("made_by_terraform")
    google.add(r"^POST \S+/datasets(\?|\n)", "answer", times=100, status=403)
    result = Runs().run("yellow", "2021-01-05")
    google.clear()
    assert result.success, stores.failure(result)


def test_table_that_requires_a_filter_is_loaded_compared_and_read(
    gcp: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`require_partition_filter` is switched on after the first load."""
    monkeypatch.setenv("BIGQUERY_DATASET", "filtered")
    runs = Runs()
    assert runs.run("yellow", "2021-01-05").success
    with BigQueryResource().client() as client:
        table = client.get_table(f"filtered.{YELLOW.table}")
        table.require_partition_filter = True
        client.update_table(table, ["require_partition_filter"])
    result = runs.run("yellow", "2021-01-05", "2021-01-06")
    assert result.success, stores.failure(result)
    agreed = {
        day: evaluation.passed
        for (_, check, day), evaluation in runs.evaluations(result.run_id).items()
        if check == "stores_agree"
    }
    assert agreed == {"2021-01-05": True, "2021-01-06": True}
    query = f"SELECT COUNT(*) AS trips FROM filtered.{YELLOW.table}"
    message = small_jobs.run_and_read_failure("sql_query", query=query, store="bigquery")
    assert "without a filter over column(s) 'tpep_pickup_date'" in message
    query += " WHERE tpep_pickup_date = DATE '2021-01-05'"
    rows_shown = small_jobs.run_and_read_metadata("sql_query", query=query, store="bigquery")
    (row,) = small_jobs.read_records(rows_shown["result"])
    assert row["trips"] > 50


def test_postgres_is_reached_by_its_socket_folder(
    gcp: None, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Cloud Run: /cloudsql/<project>:<region>:<instance>."""
    stack = local.ensure_stack_running(home / "taxi")
    with socket_folder(stack.postgres_host, stack.postgres_port) as folder:
        monkeypatch.setenv("POSTGRES_HOST", str(folder))
        monkeypatch.delenv("POSTGRES_PORT")
        with PostgresResource().connect() as connection, connection.cursor() as cursor:
            cursor.execute("SELECT current_database()")
            assert cursor.fetchone() == (stack.postgres_dbname,)


def test_missing_credentials_name_the_fix(
    gcp: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("BIGQUERY_ENDPOINT")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert "GOOGLE_APPLICATION_CREDENTIALS" not in os.environ
    result = Runs().run("yellow", "2021-01-05")
    assert not result.success
    message = stores.failure(result)
    assert "yellow/bigquery_trips 2021-01-05" in message
    assert "gcloud auth application-default login" in message
