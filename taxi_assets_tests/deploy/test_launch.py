"""The launch path of Google Cloud, up to Google: a backfill through webserver, daemon and launcher.

Real are the settings file, webserver, woken daemon, queue, Postgres storage, launcher, Google's
clients and the runs; Cloud Run is a local server of its API that starts the image's commands as
processes. Nobody starts the daemon but the webserver and, once, what Cloud Scheduler would send.
Alerts are on, and the dead man's switch never answers, so that a sensor is nearly always evaluated.
"""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
import pytest
import requests
import yaml
from google.cloud import run_v2

from taxi_assets import local
from taxi_assets.local.server import pick_free_port
from taxi_assets_tests import stores
from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.automation.receivers import Receiver, http_receiver
from taxi_assets_tests.deploy.cloud_run import CloudRun, Execution
from taxi_assets_tests.deploy.googleapis import Identity, proxy
from taxi_assets_tests.gcs_server import gcs_server
from taxi_assets_tests.sockets import socket_folder
from taxi_assets_tests.test_server import ask, until

pytestmark = pytest.mark.deploy

BIN = Path(sys.executable).parent
LOCATION = "taxi_assets.definitions"
SETTINGS = REPOSITORY / "deploy" / "dagster-gcp.yaml"
LAKE, LOGS = "launched-lake", "launched-logs"
JOB = "taxi-dev-run"
"""Of a deployment with another name than the settings file has."""
QUIET = 40
"""Seconds without work after which the daemon sleeps here: half of those on Google Cloud."""
DAYS = ["2021-01-05", "2021-01-06", "2021-01-07"]
ASSETS = [["yellow", f"{name}_trips"] for name in ("raw", "cleaned", "postgres", "gcs", "bigquery")]

BACKFILL = """mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}"""
BACKFILL_STATUS = """query ($id: String!) {
  partitionBackfillOrError(backfillId: $id) { ... on PartitionBackfill { status } }
}"""
RUNS = """query ($id: String!) {
  runsOrError(filter: {tags: [{key: "dagster/backfill", value: $id}]}) {
    ... on Runs { results { runId status } }
  }
}"""
LAUNCH = """mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
  }
}"""
STATUS = """query ($id: ID!) {
  runOrError(runId: $id) { ... on Run { status tags { key value } } }
}"""
START_SCHEDULE = """mutation ($selector: ScheduleSelector!) {
  startSchedule(scheduleSelector: $selector) {
    ... on ScheduleStateResult { scheduleState { status } }
    ... on PythonError { message }
  }
}"""
TICKS = """query ($selector: InstigationSelector!) {
  instigationStateOrError(instigationSelector: $selector) {
    ... on InstigationState { ticks { timestamp status runIds skipReason error { message } } }
  }
}"""
TERMINATE = """mutation ($id: String!) {
  terminateRun(runId: $id) {
    __typename
    ... on TerminateRunFailure { message }
    ... on PythonError { message }
  }
}"""


@dataclass
class Deployment:
    """The resources of Terraform's configuration, on this machine."""

    address: str
    cloud_run: CloudRun
    password: str
    database: str
    alerts: Receiver
    backfill: str = ""

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the single field of the answer to a GraphQL query."""
        (answer,) = ask(f"{self.address}/graphql", query, **variables).values()
        return answer

    def launch_raw_day(self, day: str) -> str:
        """Queue a run of green's raw slice, which no pool limits; return its id."""
        params = {
            "selector": {
                "repositoryLocationName": LOCATION,
                "repositoryName": "__repository__",
                "pipelineName": "green_daily",
                "assetSelection": [{"path": ["green", "raw_trips"]}],
            },
            "mode": "default",
            "executionMetadata": {"tags": [{"key": "dagster/partition", "value": day}]},
        }
        answer = self.ask(LAUNCH, params=params)
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def daemon_lines(self) -> list[dict[str, Any]]:
        """Return the log of all daemons."""
        texts = [daemon.log.read_text() for daemon in self.cloud_run.daemons]
        lines = "".join(texts).splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def wake(self) -> None:
        """Send the hourly request of Cloud Scheduler."""
        request = run_v2.RunJobRequest(name=self.cloud_run.daemon_job)
        self.cloud_run.run_job(request, None)

    def asleep(self) -> bool:
        """Return whether no daemon is running."""
        return all(daemon.process.poll() is not None for daemon in self.cloud_run.daemons)

    def status(self, run: str) -> str:
        return self.ask(STATUS, id=run)["status"]

    def execution(self, run: str) -> Execution | None:
        """Return the execution that the launcher started for a run."""
        return next((e for e in self.cloud_run.executions if run in e.args[-1]), None)


def dagster_database(folder: Path) -> str:
    """Return the URL of an empty database for Dagster's storage, as in deploy/terraform."""
    name = f"dagster_{uuid.uuid4().hex[:8]}"
    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}"')
    who = stores.postgres_arguments()
    return f"postgresql://{who['user']}:{who['password']}@/{name}?host={folder}"


@contextmanager
def process(command: list[str], env: dict[str, str], log: Path) -> Iterator[None]:
    """Run a server of Dagster, and end it like Cloud Run."""
    with log.open("wb") as output:
        running = subprocess.Popen(command, env=env, stdout=output, stderr=output)
    try:
        yield
    finally:
        running.terminate()
        try:
            running.wait(30)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def dagster_home(folder: Path) -> Path:
    """Return the image's settings, with run monitoring every second instead of every minute."""
    settings = yaml.safe_load(SETTINGS.read_text())
    settings["run_monitoring"]["poll_interval_seconds"] = 1
    home = folder / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    return home


def container_env(home: Path, gcs: str, sockets: Path, folder: Path) -> dict[str, str]:
    """Return the environment of every container in deploy/terraform."""
    stack = local.ensure_stack_running(home / "taxi")
    return {
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "HOME": str(folder),
        "TAXI_ENV_FILE": "none",
        "DAGSTER_HOME": str(dagster_home(folder)),
        "DAGSTER_PG_URL": dagster_database(sockets),
        "DAGSTER_LOGS_BUCKET": LOGS,
        "CLOUD_RUN_REGION": "us-central1",
        "CLOUD_RUN_RUNS_JOB": JOB,
        "TAXI_PROFILE": "gcp",
        "TAXI_HOME": str(folder / "taxi"),
        "TAXI_SOURCE": "sample",
        "GCP_PROJECT": "taxi-local",
        "GCS_BUCKET": LAKE,
        "BIGQUERY_DATASET": "launched",
        "POSTGRES_HOST": str(sockets),
        "POSTGRES_DBNAME": stack.postgres_dbname,
        "POSTGRES_USER": stack.postgres_user,
        "POSTGRES_PASSWORD": stack.postgres_password,
        "POSTGRES_SCHEMA": "launched",
        # in place of Google
        "BIGQUERY_ENDPOINT": stack.bigquery_endpoint,
        "BIGQUERY_TOKEN": stack.bigquery_token,
        "STORAGE_EMULATOR_HOST": gcs,
    }


@pytest.fixture(scope="module")
def deployment(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Webserver up, daemon ready to start, Cloud Run with the job of the settings file."""
    folder = tmp_path_factory.mktemp("gcp")
    root = local.ensure_stack_running(home / "taxi").lake_root
    for bucket in (LAKE, LOGS):
        (root / bucket).mkdir(parents=True)
    identity = Identity.new()
    where = stores.postgres_arguments()
    with ExitStack() as stack:
        gcs = stack.enter_context(gcs_server(root))
        sockets = stack.enter_context(socket_folder(str(where["host"]), int(where["port"])))
        env = container_env(home, gcs, sockets, folder)
        command = [
            str(BIN / "python"),
            "-m",
            "taxi_assets.dagster_internals.woken_daemon",
            LOCATION,
        ]
        command += ["--quiet-seconds", str(QUIET)]
        name = f"projects/taxi-local/locations/us-central1/jobs/{JOB}"
        cloud_run = CloudRun(name, env, folder, daemon=command)
        server, port = cloud_run.serve(identity.server_credentials())
        stack.callback(lambda: server.stop(None).wait())
        stack.callback(cloud_run.stop)
        env = env | identity.env(folder, stack.enter_context(proxy(port)))
        alerts = stack.enter_context(http_receiver())
        silent = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        # Of these secrets, runs get none.
        alerting = {
            "TAXI_ALERT_URLS": alerts.apprise,
            "TAXI_HEARTBEAT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}/ping",
        }
        cloud_run.daemon_env = env | alerting
        web = pick_free_port(None)
        webserver = [str(BIN / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(web)]
        webserver += ["-m", LOCATION]
        waking = {"CLOUD_RUN_DAEMON_JOB": cloud_run.daemon_job}
        stack.enter_context(process(webserver, env | alerting | waking, folder / "webserver.log"))
        address = f"http://127.0.0.1:{web}"
        until(lambda: requests.get(f"{address}/server_info", timeout=5).ok, 60)
        deployment = Deployment(
            address, cloud_run, env["POSTGRES_PASSWORD"], env["DAGSTER_PG_URL"], alerts
        )
        assert not cloud_run.daemons
        params = {"partitionNames": DAYS, "assetSelection": [{"path": path} for path in ASSETS]}
        deployment.backfill = deployment.ask(BACKFILL, params=params)["backfillId"]
        yield deployment


def test_backfill_wakes_the_daemon(deployment: Deployment) -> None:
    # Before the answer to the click: afterwards the webserver has no CPU.
    assert len(deployment.cloud_run.daemons) == 1


def test_killed_execution_is_noticed_and_the_backfill_completes(deployment: Deployment) -> None:
    backfill = deployment.backfill

    def runs(status: str) -> list[str]:
        response = deployment.ask(RUNS, id=backfill)["results"]
        return [run["runId"] for run in response if run["status"] == status]

    (first,) = until(lambda: runs("STARTED"), 180)
    deployment.execution(first).kill()
    assert until(lambda: runs("FAILURE"), 90) == [first]
    (second,) = until(lambda: runs("STARTED"), 120)
    # An outage of the API is not the death of a run.
    deployment.cloud_run.unavailable = 2
    assert until(lambda: runs("SUCCESS"), 240) == [second]
    assert deployment.cloud_run.unavailable == 0
    assert until(
        lambda: deployment.ask(BACKFILL_STATUS, id=backfill)["status"] == "COMPLETED_SUCCESS", 180
    )
    assert runs("FAILURE") == [first]
    assert [e.resource().failed_count for e in deployment.cloud_run.executions] == [1, 0]

    with stores.postgres() as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT tpep_pickup_datetime::date, count(*) FROM launched.yellow_cab_data GROUP BY 1"
        )
        in_postgres = dict(cursor.fetchall())
    rows = stores.bigquery().query(
        "SELECT tpep_pickup_date, COUNT(*) FROM launched.yellow_cab_data GROUP BY 1"
    )
    assert {row[0]: row[1] for row in rows.result()} == in_postgres
    assert sorted(in_postgres) == [date.fromisoformat(day) for day in DAYS]
    assert min(in_postgres.values()) > 50


def test_run_is_the_images_command_without_a_secret(deployment: Deployment) -> None:
    execution = deployment.cloud_run.executions[0]
    assert execution.args[:3] == ["dagster", "api", "execute_run"]
    assert deployment.password not in " ".join(execution.args)
    assert json.loads(execution.args[3])["__class__"] == "ExecuteRunArgs"


@pytest.fixture
def silent_source(deployment: Deployment) -> Iterator[None]:
    """Give runs a source that never answers, so that they are still running."""
    before = deployment.cloud_run.env["TAXI_SOURCE"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        deployment.cloud_run.env["TAXI_SOURCE"] = address + "/{service}_{year}-{month}.csv.gz"
        yield
    deployment.cloud_run.env["TAXI_SOURCE"] = before


@pytest.mark.usefixtures("silent_source")
def test_cancel_ends_the_execution(deployment: Deployment) -> None:
    run = deployment.launch_raw_day("2021-01-05")
    until(lambda: deployment.status(run) == "STARTED", 180)
    answer = deployment.ask(TERMINATE, id=run)
    assert answer["__typename"] == "TerminateRunSuccess", answer
    assert deployment.status(run) == "CANCELED"
    execution = deployment.execution(run)
    execution.process.wait(15)
    assert execution.resource().cancelled_count == 1
    assert deployment.status(run) == "CANCELED"


@pytest.mark.usefixtures("silent_source")
def test_cancel_of_a_dead_execution_ends_the_run(deployment: Deployment) -> None:
    run = deployment.launch_raw_day("2021-01-06")
    until(lambda: deployment.status(run) == "STARTED", 180)
    # Run monitoring must not see it first.
    deployment.cloud_run.unavailable = 1_000_000
    deployment.execution(run).kill()
    answer = deployment.ask(TERMINATE, id=run)
    deployment.cloud_run.unavailable = 0
    assert answer["__typename"] == "TerminateRunSuccess", answer
    assert deployment.status(run) == "CANCELED"


def test_log_contains_the_texts_of_the_alerts(deployment: Deployment) -> None:
    deployment.cloud_run.env["TAXI_DROP"] = "no_such_rule"
    run = deployment.launch_raw_day("2021-01-07")
    assert until(lambda: deployment.status(run) == "FAILURE", 180)
    log = deployment.execution(run).log
    until(lambda: "RUN_FAILURE" in log.read_text(), 60)
    lines = deployment.daemon_lines()
    events = [line["event"] for line in lines]
    alerts = (REPOSITORY / "deploy" / "terraform" / "alerts.tf").read_text()
    assert 'textPayload:\\"RUN_FAILURE\\"' in alerts
    assert 'jsonPayload.event:\\"Marking run\\"' in alerts
    assert any("Marking run" in event for event in events)
    assert 'jsonPayload.logger:\\"dagster.daemon\\"' in alerts
    assert {line["logger"] for line in lines} >= {"dagster.daemon.BackfillDaemon"}
    # And the project's own alert arrives, from the daemon.
    until(lambda: any(run in str(body) for body in deployment.alerts.bodies), 120)


def test_daemon_sleeps_without_work(deployment: Deployment) -> None:
    until(deployment.asleep, 300)
    lines = deployment.daemon_lines()
    assert any("operations_alert" in line["event"] for line in lines)
    assert deployment.cloud_run.daemons[0].process.returncode == 0
    logs = [daemon.log.read_text() for daemon in deployment.cloud_run.daemons]
    assert "No work left" in logs[0]
    # Runs that were queued while it was awake woke others, which found nothing to do.
    assert all("No work left" in log or "Another daemon has done the work" in log for log in logs)


def test_schedule_missed_during_sleep_fires_at_the_next_wake(
    deployment: Deployment,
) -> None:
    until(deployment.asleep, 300)
    before = len(deployment.cloud_run.daemons)
    selector = {
        "repositoryLocationName": LOCATION,
        "repositoryName": "__repository__",
        "scheduleName": "green_daily_schedule",
    }
    answer = deployment.ask(START_SCHEDULE, selector=selector)
    assert answer["scheduleState"]["status"] == "RUNNING", answer
    # As if it had been switched on two days ago.
    with psycopg.connect(deployment.database, autocommit=True) as connection:
        connection.execute(
            "UPDATE instigators SET instigator_body = regexp_replace(instigator_body,"
            " '(\"start_timestamp\": )[0-9.]+', '\\1' || %s)",
            [str(time.time() - 2 * 86400)],
        )
    deployment.wake()
    assert len(deployment.cloud_run.daemons) == before + 1
    instigation = {
        "repositoryLocationName": LOCATION,
        "repositoryName": "__repository__",
        "name": "green_daily_schedule",
    }

    def ticks() -> list[dict[str, Any]]:
        response = deployment.ask(TICKS, selector=instigation)["ticks"]
        return [tick for tick in response if tick["status"] != "STARTED"]

    fired = until(ticks, 180)
    morning = fired[0]["timestamp"]
    assert time.time() - 86400 < morning < time.time()
    assert {tick["status"] for tick in fired} <= {"SUCCESS", "SKIPPED"}, fired
    until(deployment.asleep, 300)


def test_two_concurrent_wakes_start_one_daemon(deployment: Deployment) -> None:
    until(deployment.asleep, 300)
    before = len(deployment.cloud_run.daemons)
    deployment.wake()
    deployment.wake()
    until(deployment.asleep, 240)
    logs = [daemon.log.read_text() for daemon in deployment.cloud_run.daemons[before:]]
    assert len(logs) == 2
    first, *others = sorted(
        (log for log in logs if "dagster.daemon" in log),
        key=lambda log: re.findall(r'"timestamp": "([^"]+)"', log)[0],
    )
    assert "No work left" in first
    for other in others:
        # The silent monitor makes it likely that the first is stopped in a tick, which the second
        # cannot leave undone.
        assert "dangling STARTED tick" in other
    idle = sum("Another daemon has done the work" in log for log in logs)
    assert idle == 1 - len(others)


def test_upgrade_migration_runs_with_these_settings(deployment: Deployment) -> None:
    # `gcloud run jobs execute taxi-run --args dagster,instance,migrate`; a container on Google
    # Cloud has credentials, which runs need not have here.
    migration = subprocess.run(
        ["dagster", "instance", "migrate"],
        env=deployment.cloud_run.daemon_env,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert migration.returncode == 0, migration.stderr
