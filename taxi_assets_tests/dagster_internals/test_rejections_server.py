"""A rejected day in a run that is killed: Dagster's own daemon and server run it again."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster import DagsterEventType as Kind

from taxi_assets_tests import stores
from taxi_assets_tests.dagster_internals.test_rejections import (
    BAD,
    DAYS,
    GREEN,
    RANGE,
    Month,
    totals,
)
from taxi_assets_tests.stores import Runs
from taxi_assets_tests.test_server import LAUNCH_DAY, ask, dagster_dev, until

SELECTOR = {
    "repositoryName": "__repository__",
    "repositoryLocationName": "taxi_assets.definitions",
    "jobName": "green_daily",
}
AGAIN = """mutation ($again: ReexecutionParams!) {
  launchRunReexecution(reexecutionParams: $again) {
    ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TAGS = [{"key": key, "value": value} for key, value in RANGE.items()]


@pytest.fixture
def server(
    empty_stores: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Month]]:
    """A server whose source has a day that is rejected, and what was stored of it before."""
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

    until(ended, 120, every=0.05)
    said = " ".join(log.message for log in instance.all_logs(run_id, of_type=Kind.ENGINE_EVENT))
    found = re.search(r"in process \(pid: (\d+)\)", said)
    assert found
    os.kill(int(found[1]), signal.SIGKILL)


def finished(instance: dg.DagsterInstance, known: set[str]) -> str:
    """The one new run, when it has ended."""

    def ended() -> str | None:
        new = [run for run in instance.get_runs() if run.run_id not in known]
        assert len(new) <= 1
        return new[0].run_id if new and new[0].is_finished else None

    return str(until(ended, 180))


def test_killed_and_run_again_by_the_daemon_the_day_stays_rejected(
    server: tuple[str, Month],
) -> None:
    address, month = server
    instance = month.runs.instance
    run = {"selector": SELECTOR, "executionMetadata": {"tags": TAGS}}
    killed = ask(address, LAUNCH_DAY, run=run)["launchRun"]["run"]["runId"]
    kill_after(instance, killed, "green__cleaned_trips")
    retried = finished(instance, set(instance.get_run_ids()))
    record = instance.get_run_by_id(retried)
    assert record is not None
    assert record.parent_run_id == killed
    month.assert_rejected(retried, DAYS[0], DAYS[2])
    landed = stores.store_totals(GREEN)
    assert landed == totals(20, 10, 20), BAD

    # As a person does it in the UI.
    known = set(instance.get_run_ids())
    for parent, strategy in ((retried, "FROM_FAILURE"), (killed, "FROM_ASSET_FAILURE")):
        again = {"parentRunId": parent, "strategy": strategy}
        launched = ask(address, AGAIN, again=again)["launchRunReexecution"]
        assert "run" in launched, launched
        month.assert_rejected(finished(instance, known), DAYS[0], DAYS[2])
        known = set(instance.get_run_ids())
    assert stores.store_totals(GREEN) == landed
    # All assets of the retried run have stored something: Dagster sees nothing to do again.
    again = {"parentRunId": retried, "strategy": "FROM_ASSET_FAILURE"}
    refused = ask(address, AGAIN, again=again)["launchRunReexecution"]
    assert "No assets or asset checks needed to be retried" in refused["message"]
