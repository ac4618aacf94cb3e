"""The emulator serves holders of its token, and reads only its own files and the lake's."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.api_core.exceptions import GoogleAPICallError, Unauthorized
from google.cloud import bigquery

from taxi_assets.defs.resources.bigquery import BigQueryResource, create_emulator_client
from taxi_assets.local import Stack
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets.redaction import redact_text
from taxi_assets_tests.local.clients import bigquery_client
from taxi_assets_tests.local.conftest import list_servers

DATASET = "taxi-local.guarded"
QUERIES = "/bigquery/v2/projects/taxi-local/queries"
JSON = {"Content-Type": "application/json"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[bigquery.Client]:
    with bigquery_client(stack) as client:
        client.create_dataset(DATASET)
        client.query(f"CREATE TABLE `{DATASET}.one` AS SELECT 1 AS n").result()
        yield client
        client.delete_dataset(DATASET, delete_contents=True)


def send_request(
    stack: Stack, method: str, path: str, headers: dict[str, str], body: object = None
) -> tuple[int, str]:
    """Send a request unchanged; return status and body of the answer."""
    connection = http.client.HTTPConnection(stack.bigquery_endpoint.rpartition("/")[2], timeout=60)
    try:
        payload = None if body is None else json.dumps(body).encode()
        connection.request(method, path, payload, headers)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def build_bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_request_without_the_token_is_rejected(stack: Stack, client: bigquery.Client) -> None:
    query = {"query": f"SELECT n FROM `{DATASET}.one`", "useLegacySql": False}
    right = build_bearer(stack.bigquery_token)
    wrong: list[dict[str, str]] = [
        {},
        build_bearer(""),
        build_bearer(stack.bigquery_token[:-1]),
        build_bearer(f"{stack.bigquery_token}x"),
        {"Authorization": f"Basic {stack.bigquery_token}"},
        {"X-Token": stack.bigquery_token},
    ]
    assert send_request(stack, "POST", QUERIES, right | JSON, query)[0] == 200
    for headers in wrong:
        code, body = send_request(stack, "POST", QUERIES, headers | JSON, query)
        assert (code, "rows" in body) == (401, False), headers
        # Messages of runs are redacted; `token: x` would lose its second word.
        assert "`python -m taxi_assets.local env`" in redact_text(body)
    for path in ("/", "/metrics", "/docs", "/openapi.json", "/upload/bigquery/v2/x", "/healthz/x"):
        assert send_request(stack, "GET", path, {})[0] == 401, path
    for path in ("/healthz", "/readyz"):
        assert send_request(stack, "GET", path, {})[0] == 200, path
        assert send_request(stack, "POST", path, JSON, {})[0] == 401, path


def test_request_from_a_web_page_is_rejected(stack: Stack, client: bigquery.Client) -> None:
    """Even with the token, which no page has."""
    query = {"query": "SELECT 1", "useLegacySql": False}
    headers = build_bearer(stack.bigquery_token) | JSON
    port = stack.bigquery_endpoint.rpartition(":")[2]
    for foreign in (
        "evil.example",
        f"evil.example:{port}",
        "127.0.0.1.evil.example",
        "10.0.0.1",
        "",
    ):
        assert send_request(stack, "POST", QUERIES, headers | {"Host": foreign}, query)[0] == 403, (
            foreign
        )
        assert send_request(stack, "GET", "/readyz", {"Host": foreign})[0] == 403, foreign
    for foreign in ("https://evil.example", "null", "http://127.0.0.1.evil.example", "file://"):
        assert (
            send_request(stack, "POST", QUERIES, headers | {"Origin": foreign}, query)[0] == 403
        ), foreign
    for own in (f"127.0.0.1:{port}", "localhost", "[::1]"):
        assert send_request(stack, "POST", QUERIES, headers | {"Host": own}, query)[0] == 200, own
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; a=b", ""):
        assert (
            send_request(stack, "POST", QUERIES, headers | {"Content-Type": kind}, query)[0] == 415
        ), kind
    for kind in ("application/json; charset=UTF-8", "Application/JSON"):
        assert (
            send_request(stack, "POST", QUERIES, headers | {"Content-Type": kind}, query)[0] == 200
        ), kind


def test_token_is_readable_by_its_owner_only(stack: Stack, shared_home: Path) -> None:
    token = stack.bigquery_token
    assert len(token) >= 32
    assert token not in repr(stack)
    assert token not in repr(StateDirectory(shared_home).record())
    assert token not in repr(StateDirectory(shared_home).config())
    for process in list_servers(shared_home):
        assert token not in " ".join(process.cmdline())
    for path in shared_home.rglob("*"):
        if (
            path.is_file()
            and path.stat().st_uid == os.geteuid()
            and token in path.read_text("latin-1")
        ):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path


def test_only_one_port_is_open(stack: Stack, shared_home: Path) -> None:
    """The emulator's gRPC server would answer without a token."""
    (server,) = [
        process
        for process in list_servers(shared_home)
        if "taxi_assets.local.bigquery_server" in process.cmdline()
    ]
    listening = [
        socket for socket in server.net_connections() if socket.status == psutil.CONN_LISTEN
    ]
    assert [str(socket.laddr.port) for socket in listening] == [
        stack.bigquery_endpoint.rpartition(":")[2]
    ]


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_other_user_of_the_machine_reads_and_writes_nothing(
    stack: Stack, client: bigquery.Client, shared_home: Path, tmp_path: Path
) -> None:
    """An attacker's own Python, without our package, gets nothing from the emulator."""
    secret = tmp_path / "secret"
    secret.write_text("planted-secret")
    secret.chmod(0o600)
    planted = tmp_path / "planted.csv"
    code = """
import json, sys, urllib.error, urllib.request
endpoint, secret, planted = sys.argv[1:]
table = {"projectId": "taxi-local", "datasetId": "guarded", "tableId": "one"}
jobs = [
    {"query": {"query": f"SELECT content FROM read_text('{secret}')", "useLegacySql": False}},
    {"extract": {"sourceTable": table, "destinationUris": [f"file://{planted}"]}},
]
for config in jobs:
    for headers in ({}, {"Authorization": "Bearer guess-guess-guess-guess"}):
        request = urllib.request.Request(
            f"{endpoint}/bigquery/v2/projects/taxi-local/jobs",
            json.dumps({"configuration": config}).encode(),
            {"Content-Type": "application/json"} | headers,
        )
        try:
            print(urllib.request.urlopen(request).read().decode())
        except urllib.error.HTTPError as error:
            print(error.code)
try:
    print(open(sys.argv[2]).read())
except PermissionError:
    print("closed")
"""
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    state = shared_home / "local" / "config.json"
    for readable in (secret, state):
        completed = subprocess.run(
            [*nobody, "/usr/bin/env", "python3", "-c", code]
            + [stack.bigquery_endpoint, str(readable), str(planted)],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            env={"PATH": os.defpath},
        )
        if "python3" in completed.stderr:
            pytest.skip(completed.stderr)
        assert completed.stdout.split() == ["401"] * 4 + ["closed"], completed.stderr
    assert not planted.exists()


def test_sql_reads_and_writes_no_file_outside_the_lake(
    client: bigquery.Client, shared_home: Path, tmp_path: Path
) -> None:
    """The token opens the tables and the lake, but not the owner's files."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"planted": "secret"}')
    state = shared_home / "local" / "config.json"
    up = shared_home / "lake" / ".." / "local" / "config.json"
    link = shared_home / "lake" / "link"
    link.symlink_to(tmp_path)
    target = tmp_path / "written"
    queries = [
        f"SELECT * FROM {function}('{path}')"
        for function in (
            "read_text",
            "read_blob",
            "read_csv",
            "read_json",
            "read_parquet",
            "ST_Read",
        )
        for path in (secret, state, up, link / "secret.json", "/etc/passwd")
    ]
    queries += [
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM sniff_csv('/etc/passwd')",
        "SELECT * FROM read_csv('http://127.0.0.1:1/x')",
        f"COPY `{DATASET}.one` TO '{target}'",
        f"COPY (SELECT 1) TO '{target}'",
        f"EXPORT DATABASE '{target}'",
        f"ATTACH '{target}'",
        f"EXPORT DATA OPTIONS(uri='file://{target}-*.csv', format='CSV') AS SELECT 1",
        f"EXPORT DATA OPTIONS(uri='{target}/a/*.csv', format='CSV') AS SELECT 1",
        "EXPORT DATA OPTIONS(uri='gs://../x/*.csv', format='CSV') AS SELECT 1",
        "EXPORT DATA OPTIONS(uri='gs://link/x/*.csv', format='CSV') AS SELECT 1",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "PRAGMA enable_external_access = true",
        "INSTALL httpfs",
        "LOAD httpfs",
        f"LOAD '{target}'",
    ]
    try:
        for query in queries:
            with pytest.raises(GoogleAPICallError) as error:
                client.query(query, job_retry=None, retry=None, timeout=120).result(
                    retry=None, timeout=120
                )
            assert "planted" not in str(error.value), query
    finally:
        link.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.json"]


def test_jobs_read_and_write_the_lake_only(
    stack: Stack, client: bigquery.Client, tmp_path: Path
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("n\n5\n")
    schema = [bigquery.SchemaField("n", "INT64")]
    link = stack.lake_root / "link"
    link.symlink_to(tmp_path)
    outside = [f"file://{secret}", str(secret), "gs://../local/config.json", "gs://link/secret.csv"]
    try:
        for kind in ("CSV", "NEWLINE_DELIMITED_JSON", "PARQUET", "AVRO", "ORC"):
            for uri in outside:
                config = bigquery.LoadJobConfig(source_format=kind, schema=schema)
                with pytest.raises(GoogleAPICallError):
                    client.load_table_from_uri(
                        uri, f"{DATASET}.loaded", job_config=config, retry=None
                    ).result(retry=None)
        for uri in (f"file://{tmp_path}/new/a.csv", f"{tmp_path}/new/b.csv", "gs://link/c.csv"):
            with pytest.raises(GoogleAPICallError):
                client.extract_table(f"{DATASET}.one", uri, retry=None).result(retry=None)
    finally:
        link.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]

    # Allowed requests work.
    (stack.lake_root / "exports").mkdir()
    client.extract_table(f"{DATASET}.one", "gs://exports/one.csv", retry=None).result(timeout=120)
    assert (stack.lake_root / "exports" / "one.csv").read_text() == "n\n1\n"
    pq.write_table(pa.table({"n": [7]}), tmp_path / "own.parquet")
    with (tmp_path / "own.parquet").open("rb") as file:
        config = bigquery.LoadJobConfig(source_format="PARQUET", schema=schema)
        job = client.load_table_from_file(file, f"{DATASET}.uploaded", job_config=config)
        job.result(timeout=120)
    assert [row.n for row in client.list_rows(f"{DATASET}.uploaded")] == [7]


def test_large_results_still_go_to_disk(client: bigquery.Client) -> None:
    query = (
        "SELECT COUNT(*) FROM (SELECT DISTINCT n, REPEAT(CAST(n AS STRING), 9)"
        " FROM UNNEST(GENERATE_ARRAY(1, 300000)) AS n)"
    )
    assert [tuple(row) for row in client.query(query).result()] == [(300_000,)]


def test_client_without_the_token_names_the_fix(stack: Stack) -> None:
    with (
        create_emulator_client("taxi-local", stack.bigquery_endpoint, "wrong") as client,
        pytest.raises(Unauthorized, match=r"taxi_assets\.local env"),
    ):
        client.get_dataset("any")


def test_foreign_emulator_needs_no_token(
    stack: Stack, client: bigquery.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token no header is sent."""
    monkeypatch.setenv("BIGQUERY_ENDPOINT", stack.bigquery_endpoint)
    with BigQueryResource().client() as own:
        headers: dict[str, Any] = {}
        own._credentials.before_request(None, "GET", "/", headers)
        assert headers == {}


def test_short_token_is_rejected(shared_home: Path) -> None:
    for token in ({}, {"BIGQUERY_TOKEN": ""}, {"BIGQUERY_TOKEN": "short"}):
        completed = subprocess.run(
            [sys.executable, "-m", "taxi_assets.local.bigquery_server", str(shared_home), "0"],
            env={"PATH": os.defpath} | token,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert completed.returncode == 1
        assert completed.stderr == "BIGQUERY_TOKEN must have at least 16 characters\n"
