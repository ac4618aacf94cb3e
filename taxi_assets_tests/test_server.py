"""Dagster's real webserver and daemon on the workspace: a backfill over GraphQL, an alert."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import requests
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from taxi_assets.local.server import pick_free_port
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.automation.receivers import Receiver, http_receiver

DAGSTER = str(Path(sys.executable).with_name("dagster"))
DG = str(Path(sys.executable).with_name("dg"))
GREEN = SERVICES["green"]
DAYS = ["2021-08-30", "2021-08-31", "2021-09-01"]
ASSETS = [["green", f"{name}_trips"] for name in ("raw", "cleaned", "postgres", "gcs", "bigquery")]

LAUNCH = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
STATUS = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}"""
RUNS = """query ($id: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { status tags { key value } } }
  }
}"""


TICKS = """query ($name: String!) {
  sensorOrError(sensorSelector: {
    repositoryName: "__repository__", repositoryLocationName: "taxi_assets.definitions",
    sensorName: $name
  }) { ... on Sensor { sensorState { status ticks { status } } } }
}"""


def until(ready: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
    """Return the first true value of `ready`, called again and again."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if answer := ready():
                return answer
        except requests.RequestException:
            pass
        time.sleep(every)
    raise TimeoutError(f"not within {seconds} s")


def end_group(group: int) -> None:
    """Let the processes of a group end, or kill them: runs of a failed test would keep locks."""
    with suppress(ProcessLookupError):
        for _ in range(50):
            os.killpg(group, 0)
            time.sleep(0.2)
        os.killpg(group, signal.SIGKILL)


@contextmanager
def dagster_dev(folder: Path, patch: pytest.MonkeyPatch, program: str = DAGSTER) -> Iterator[str]:
    """Run `dagster dev` or `dg dev` on a free port, with DAGSTER_HOME `folder`; yield its address.

    `dg dev` reads the project of its working directory, which is `folder`, too.
    """
    shutil.copy(REPOSITORY / "dagster.yaml", folder)
    if program == DG:
        shutil.copy(REPOSITORY / "pyproject.toml", folder)
        (folder / "taxi_assets").symlink_to(REPOSITORY / "taxi_assets")
    patch.setenv("DAGSTER_HOME", str(folder))
    port = pick_free_port(None)
    with (folder / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [program, "dev", "-p", str(port)],
            cwd=folder if program == DG else None,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        address = f"http://127.0.0.1:{port}"
        try:
            until(lambda: requests.get(f"{address}/server_info", timeout=5).ok, 300)
            yield address
        finally:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            end_group(process.pid)
            process.wait()


@pytest.fixture(scope="module")
def server(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Start a server for the tests that only launch runs; yield its GraphQL address."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GCS_BUCKET", "served")
        with dagster_dev(tmp_path_factory.mktemp("served"), patch) as address:
            yield f"{address}/graphql"


def ask(address: str, query: str, **variables: Any) -> dict[str, Any]:
    answer = requests.post(
        address, json={"query": query, "variables": variables}, timeout=60
    ).json()
    assert "errors" not in answer, answer
    return answer["data"]


def test_graphql_backfill_runs_as_one_chunk_with_a_record_per_day(server: str) -> None:
    params = {"partitionNames": DAYS, "assetSelection": [{"path": path} for path in ASSETS]}
    launched = ask(server, LAUNCH, params=params)["launchPartitionBackfill"]
    assert launched["__typename"] == "LaunchBackfillSuccess", launched
    backfill = launched["backfillId"]

    def ended() -> str | None:
        status = ask(server, STATUS, id=backfill)["partitionBackfillOrError"]["status"]
        return None if status in ("REQUESTED", "CANCELING", "FAILING") else status

    assert until(ended, 300) == "COMPLETED_SUCCESS"
    runs = ask(server, RUNS, id=backfill)["runsOrError"]["results"]
    assert [run["status"] for run in runs] == ["SUCCESS"]
    tags = {tag["key"]: tag["value"] for tag in runs[0]["tags"]}
    assert tags["dagster/asset_partition_range_start"] == DAYS[0]
    assert tags["dagster/asset_partition_range_end"] == DAYS[-1]

    partitions = """query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
      ... on AssetNode { partitionStats { numMaterialized numFailed } } } }"""
    for path in ASSETS:
        stats = ask(server, partitions, key={"path": path})["assetNodeOrError"]["partitionStats"]
        assert stats == {"numMaterialized": len(DAYS), "numFailed": 0}
    totals = stores.store_totals(GREEN)["bigquery"]
    assert {date.fromisoformat(day) for day in DAYS} <= set(totals)


LAUNCH_DAY = """mutation ($run: ExecutionParams!) { launchRun(executionParams: $run) {
  ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
EVENTS = """subscription ($id: ID!) { pipelineRunLogs(runId: $id) {
  ... on PipelineRunLogsSubscriptionSuccess { messages { __typename
    ... on MessageEvent { stepKey timestamp } } } } }"""


def follow_run_page(address: str, run_id: str) -> Iterator[tuple[str, str | None, float]]:
    """Yield type, step and delay in seconds of the events that a run's page receives."""
    with connect(address.replace("http", "ws"), subprotocols=[Subprotocol("graphql-ws")]) as socket:
        socket.send(json.dumps({"type": "connection_init"}))
        payload = {"query": EVENTS, "variables": {"id": run_id}}
        socket.send(json.dumps({"type": "start", "id": "1", "payload": payload}))
        while True:
            answer = json.loads(socket.recv(timeout=120))
            if answer["type"] != "data":
                continue
            for event in answer["payload"]["data"]["pipelineRunLogs"]["messages"]:
                late = time.time() - float(event["timestamp"]) / 1000
                yield event["__typename"], event["stepKey"], late
                if event["__typename"] in ("RunSuccessEvent", "RunFailureEvent"):
                    return


def follow_run(server: str) -> float:
    """Run a day with its page open; return how late the latest event of a step came."""
    run = {
        "selector": {
            "repositoryName": "__repository__",
            "repositoryLocationName": "taxi_assets.definitions",
            "jobName": "green_daily",
        },
        "executionMetadata": {"tags": [{"key": "dagster/partition", "value": DAYS[0]}]},
    }
    launched = ask(server, LAUNCH_DAY, run=run)["launchRun"]["run"]["runId"]
    # The page is open before the run starts.
    events = list(follow_run_page(server, launched))
    assert events[-1][0] == "RunSuccessEvent"
    steps = [step for kind, step, _ in events if kind == "ExecutionStepSuccessEvent"]
    assert len(steps) == len(ASSETS) + 1
    assert steps == [step for kind, step, _ in events if kind == "ExecutionStepStartEvent"]
    # Events logged before the page was open arrive immediately.
    return max(late for _, step, late in events if step)


def test_run_page_follows_the_run_within_three_seconds(server: str) -> None:
    # A busy machine may delay one run's page, but not three times.
    assert any(follow_run(server) < 3 for _ in range(3))


@pytest.fixture
def receiver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Receiver]:
    """Set a webhook as the alert target, and a source without any month."""
    monkeypatch.setenv("TAXI_SOURCE", str(tmp_path / "{service}_{year}-{month}.csv"))
    with http_receiver() as webhook:
        monkeypatch.setenv("TAXI_ALERT_URLS", webhook.apprise)
        yield webhook


@pytest.fixture
def alerting_server(
    receiver: Receiver, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Start a server that alerts the receiver; yield its GraphQL address."""
    with dagster_dev(tmp_path, monkeypatch) as address:
        yield f"{address}/graphql"


def test_daemon_alerts_about_a_failed_run(receiver: Receiver, alerting_server: str) -> None:
    def ticks() -> list[str]:
        response = ask(alerting_server, TICKS, name="run_failure_alert")
        state = response["sensorOrError"]["sensorState"]
        assert state["status"] == "RUNNING"
        return [tick["status"] for tick in state["ticks"] if tick["status"] != "STARTED"]

    # Its first tick sets the cursor: earlier failures are not reported.
    until(ticks, 180)
    failed = subprocess.run(
        [DAGSTER, "job", "execute", "-m", "taxi_assets.definitions", "-j", "green_daily"]
        + ["--tags", json.dumps({"dagster/partition": DAYS[0]})],
        capture_output=True,
        check=False,
    )
    assert failed.returncode != 0
    until(lambda: receiver.bodies, 180)
    until(lambda: ticks()[0] == "SUCCESS", 180)
    (body,) = receiver.bodies
    assert body["title"] == f"green_daily failed: green/raw_trips {DAYS[0]}"
    assert "no such file" in body["message"]
