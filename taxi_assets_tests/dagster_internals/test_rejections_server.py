"""A rejected day in a killed run, which Dagster's own daemon and server run again."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster import DagsterEventType as Kind

from taxi_assets_tests import stores
from taxi_assets_tests.dagster_internals.test_rejections import (
    BAD,
    DAYS,
    GREEN,
    RANGE,
    Month,
    make_totals,
)
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.test_server import LAUNCH_DAY, ask, dagster_dev, until

SELECTOR = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "taxi_assets.definitions",
    "jobName": "green_daily",
}
REEXECUTE = """mutation ($again: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $again) {
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TAGS = [{"key": key, "value": value} for key, value in RANGE.items()]


@pytest.fixture
def server(
    empty_stores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Month]]:
    """Start a server whose source has a rejected day that was stored before."""
    months = tmp_path / "months"
    months.mkdir()
    (tmp_path / "dagster").mkdir()
    good = Month(months, Runs(instance=dg.DagsterInstance.ephemeral()))
    monkeypatch.setenv("TAXI_SOURCE", good.publish(10, 10, 10))
    with dagster_dev(tmp_path / "dagster", monkeypatch) as address:
        month = Month(months, Runs())
        assert month.run(RANGE).success
        month.publish(20, "abc", 20)
        yield f"{address}/graphql", month


def kill_after(instance: dg.DagsterInstance, run_id: str, step: str) -> None:
    """Kill a run's process as soon as a step of it has ended."""

    def ended() -> bool:
        return any(
            log.step_key == step and log.dagster_event_type == Kind.STEP_SUCCESS
            for log in instance.all_logs(run_id)
        )

    until(ended, 300, every=0.05)
    messages = " ".join(log.message for log in instance.all_logs(run_id, of_type=Kind.ENGINE_EVENT))
    match = re.search(r"in process \(pid: (\d+)\)", messages)
    assert match
    os.kill(int(match[1]), signal.SIGKILL)


def wait_for_new_run(instance: dg.DagsterInstance, known_runs: set[str]) -> str:
    """Return the id of the one new run once it has ended."""

    def ended() -> str | None:
        new = [run for run in instance.get_runs() if run.run_id not in known_runs]
        assert len(new) <= 1
        return new[0].run_id if new and new[0].is_finished else None

    return str(until(ended, 300))


def test_rejected_day_stays_rejected_in_runs_restarted_by_the_daemon(
    server: tuple[str, Month],
) -> None:
    address, month = server
    instance = month.runs.instance
    run = {"selector": SELECTOR, "executionMetadata": {"tags": TAGS}}
    with psycopg.connect(**stores.postgres_arguments()) as blocker:
        # The run does not end before it is killed.
        blocker.execute("LOCK TABLE ny_taxi.green_cab_data IN ACCESS EXCLUSIVE MODE")
        killed = ask(address, LAUNCH_DAY, run=run)["launchRun"]["run"]["runId"]
        kill_after(instance, killed, "green__cleaned_trips")
    retried = wait_for_new_run(instance, set(instance.get_run_ids()))
    record = instance.get_run_by_id(retried)
    assert record is not None
    assert record.parent_run_id == killed
    month.assert_rejected(retried, DAYS[0], DAYS[2])
    totals = stores.store_totals(GREEN)
    assert totals == make_totals(20, 10, 20), BAD

    # As a person re-executes in the UI.
    known_runs = set(instance.get_run_ids())
    for parent, strategy in ((retried, "FROM_FAILURE"), (killed, "FROM_ASSET_FAILURE")):
        parameters = {"parentRunId": parent, "strategy": strategy}
        launched = ask(address, REEXECUTE, again=parameters)["launchRunReexecution"]
        assert "run" in launched, launched
        month.assert_rejected(wait_for_new_run(instance, known_runs), DAYS[0], DAYS[2])
        known_runs = set(instance.get_run_ids())
    assert stores.store_totals(GREEN) == totals
    # All assets of the retried run have stored something, so Dagster has nothing to retry.
    parameters = {"parentRunId": retried, "strategy": "FROM_ASSET_FAILURE"}
    reexecution = ask(address, REEXECUTE, again=parameters)["launchRunReexecution"]
    assert "No assets or asset checks needed to be retried" in reexecution["message"]
