"""After a daemon is killed in the middle of a tick, the next one requests nothing twice."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest

from taxi_assets_tests.conftest import REPOSITORY
from taxi_assets_tests.defs.automation.test_sensors import build_path, make_month_content
from taxi_assets_tests.fake_http_server import Site

# One round of Dagster's sensor daemon, which kills itself at the points of Dagster's own tests.
ROUND = """
import logging, signal, sys
import dagster as dg
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._daemon.sensor import execute_sensor_iteration

target = ModuleTarget("taxi_assets.definitions", None, None, "taxi_assets.definitions")
flags = {"green_new_month_sensor": {point: signal.SIGKILL for point in sys.argv[1:]}}
with (
    dg.DagsterInstance.get() as instance,
    create_test_daemon_workspace_context(target, instance) as context,
):
    log = logging.getLogger("daemon")
    list(execute_sensor_iteration(context, log, None, None, debug_crash_flags=flags))
"""


def daemon_round(*points: str) -> int:
    """Run a round of the daemon and end its processes; return the exit code."""
    with subprocess.Popen(
        [sys.executable, "-c", ROUND, *points],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        ended = process.wait(300)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        return ended


def test_tick_killed_between_its_runs_resumes_without_duplicates(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.months = {build_path("2021-03"): make_month_content("2021-03")}
    (tmp_path / "dagster").mkdir()
    shutil.copy(REPOSITORY / "dagster.yaml", tmp_path / "dagster")
    for name, value in {
        "DAGSTER_HOME": str(tmp_path / "dagster"),
        "TAXI_HOME": str(tmp_path / "taxi"),
        "TAXI_SOURCE": site.template,
        "TAXI_START_DATE": "2021-01-01",
        "TAXI_AUTOMATION": "running",
        "TAXI_SENSOR_INTERVAL_SECONDS": "1",
        "TAXI_MAX_PARTITIONS_PER_RUN": "16",
    }.items():
        monkeypatch.setenv(name, value)
    starts = []
    for points in (["RUN_CREATED"], ["RUN_LAUNCHED"], []):
        assert daemon_round(*points) == (-signal.SIGKILL if points else 0)
        with dg.DagsterInstance.get() as instance:
            runs = instance.get_runs()
        starts.append(sorted(run.tags["dagster/asset_partition_range_start"] for run in runs))
    assert starts[0] == ["2021-03-01"]
    assert starts[-1] == ["2021-03-01", "2021-03-17"]
    assert len({run.tags["dagster/run_key"] for run in runs}) == 2
    assert {run.status for run in runs} == {dg.DagsterRunStatus.QUEUED}
