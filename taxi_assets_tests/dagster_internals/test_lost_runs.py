"""Runs whose process was killed end; those of living, other or unknown processes do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import yaml
from dagster import DagsterRunStatus

from taxi_assets.cli.runner import hold_backfill_lock
from taxi_assets.dagster_internals.lost_runs import PROCESS, name_process
from taxi_assets.dagster_internals.tags import CODE_SERVER_ADDRESS, MAX_RETRIES
from taxi_assets.tlc.services import SERVICES
from taxi_assets_tests.conftest import REPOSITORY

SETTINGS = yaml.safe_load((REPOSITORY / "dagster.yaml").read_text())
WAIT = """
import ctypes, sys, time
import dagster as dg

@dg.op
def wait():
    print("started", flush=True)
    time.sleep(60)

# Linux keeps 15 bytes of a name, which may end in the middle of a character.
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(15, b"d\\xc3")
job = dg.GraphDefinition(name="waits", node_defs=[wait])
with dg.DagsterInstance.from_config(sys.argv[1]) as instance:
    job.execute_in_process(instance=instance)
"""


def make_instance(folder: Path) -> dg.DagsterInstance:
    """Return an instance with the settings of the checkout."""
    (folder / "dagster.yaml").write_text(json.dumps(SETTINGS))
    return dg.DagsterInstance.from_config(str(folder))


def read_statuses(instance: dg.DagsterInstance) -> dict[str, DagsterRunStatus]:
    """Return the status of each run."""
    return {run.run_id: run.status for run in instance.get_runs()}


def test_run_of_a_killed_process_ends_with_the_next_pass_over_the_queue(tmp_path: Path) -> None:
    with make_instance(tmp_path) as instance:
        command = [sys.executable, "-c", WAIT, str(tmp_path)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "started\n"
        instance.get_concurrency_config()
        (run,) = instance.get_runs()
        assert run.status == DagsterRunStatus.STARTED
        process.kill()
        process.communicate()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.get_concurrency_config()
        (run,) = instance.get_runs()
        assert run.status == DagsterRunStatus.FAILURE
        assert run.tags[MAX_RETRIES] == "0", "the daemon does not repeat a command"
        event = instance.all_logs(run.run_id)[-1].get_dagster_event()
        assert event.message == "The process of this run was killed."


def test_run_that_a_server_starts_names_its_process(tmp_path: Path) -> None:
    with make_instance(tmp_path) as instance:
        run = dg.DagsterRun("empty")
        instance.add_run(run)
        start = dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, "empty", message="")
        instance.report_dagster_event(start, run.run_id)
        (run,) = instance.get_runs()
        assert run.status == DagsterRunStatus.STARTED
        assert run.tags[PROCESS] == name_process(run.run_id)


def test_only_runs_of_dead_processes_of_this_machine_are_ended(tmp_path: Path) -> None:
    """Two machines can share a Dagster database, but not the lock file of a backfill."""
    with make_instance(tmp_path) as instance:
        run_id, machine, pid, started = name_process("0" * 8).split(" ")
        expected = {}
        for process, tags, status in (
            (f"{{}} {machine} {pid} {started}", {}, DagsterRunStatus.STARTED),
            (f"{{}} {machine} {pid} earlier", {}, DagsterRunStatus.FAILURE),
            (
                f"{{}} {machine} {pid} earlier",
                {CODE_SERVER_ADDRESS: "{}"},
                DagsterRunStatus.FAILURE,
            ),
            (f"{{}} elsewhere {pid} earlier", {}, DagsterRunStatus.STARTED),
            # A container with the same host name and number of namespace, on another kernel.
            (
                f"{{}} {machine.rpartition('/')[0]}/other-boot {pid} earlier",
                {},
                DagsterRunStatus.STARTED,
            ),
            (f"{{}} {machine.rpartition('/')[0]} {pid} earlier", {}, DagsterRunStatus.STARTED),
            # The command of a container, and one whose machine is not known.
            (f"{{}} {machine} 1 earlier", {}, DagsterRunStatus.STARTED),
            (f"{{}}  {pid} earlier", {}, DagsterRunStatus.STARTED),
            # Its start could not be read.
            (f"{{}} {machine} {pid} ", {}, DagsterRunStatus.STARTED),
            # A re-execution has the tags of its parent.
            (f"{run_id} {machine} {pid} earlier", {}, DagsterRunStatus.STARTED),
        ):
            run = dg.DagsterRun("yellow_daily", status=DagsterRunStatus.STARTED)
            own = process.format(run.run_id[:8])
            instance.add_run(run.with_tags({PROCESS: own, **tags}))
            expected[run.run_id] = status
        other = dg.DagsterRun("yellow_daily", status=DagsterRunStatus.STARTED)
        instance.add_run(other)
        expected[other.run_id] = DagsterRunStatus.STARTED
        with hold_backfill_lock(instance, SERVICES["yellow"]):
            assert read_statuses(instance) == expected
        # Only the run of the code server is left to Dagster's run retries.
        assert [
            CODE_SERVER_ADDRESS in run.tags
            for run in instance.get_runs()
            if run.status == DagsterRunStatus.FAILURE and MAX_RETRIES not in run.tags
        ] == [True]
