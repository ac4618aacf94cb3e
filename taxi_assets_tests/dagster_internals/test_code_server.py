"""The code server of docker-compose loses no run when a process dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import grpc
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import LaunchRunContext
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from taxi_assets.dagster_internals import code_server as code_server_module
from taxi_assets.dagster_internals.code_server import (
    find_address,
    find_lost_runs,
    report_lost_runs,
)
from taxi_assets.local.server import pick_free_port
from taxi_assets_tests.test_server import until

SETTINGS = """
telemetry: {enabled: false}
"""
JOBS = """
import os, pathlib, time
import dagster as dg

@dg.op(config_schema={"pid_file": str})
def sleeps(context):
    pathlib.Path(context.op_config["pid_file"]).write_text(str(os.getpid()))
    time.sleep(300)

@dg.job(executor_def=dg.in_process_executor)
def long():
    sleeps()

defs = dg.Definitions(jobs=[long])
"""


@contextmanager
def run_code_server(
    folder: Path, port: int, is_up: Callable[[], bool] | None = None
) -> Iterator[subprocess.Popen]:
    """Run a code server in a process group of its own; its runs are killed with it."""
    options = ["--host", "127.0.0.1", "--port", str(port), "-f", str(folder / "jobs.py")]
    process = subprocess.Popen(
        [sys.executable, "-m", "taxi_assets.dagster_internals.code_server", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(is_up or (lambda: is_answering(port)), 60)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def is_answering(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text(SETTINGS)
    (tmp_path / "jobs.py").write_text(JOBS)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def port() -> int:
    return pick_free_port(None)


def launch_long_run(
    instance: dg.DagsterInstance, context: WorkspaceProcessContext
) -> tuple[dg.DagsterRun, int]:
    """Launch the long job; return the run and the id of its process."""
    run, pid_file = create_long_run(instance, context)
    instance.launch_run(run.run_id, context.create_request_context())
    until(lambda: pid_file.exists() and pid_file.read_text(), 60)
    return run, int(pid_file.read_text())


def create_long_run(
    instance: dg.DagsterInstance, context: WorkspaceProcessContext
) -> tuple[dg.DagsterRun, Path]:
    """Create a run of the long job; return it and the file that its process will write."""
    workspace = context.create_request_context()
    location = workspace.get_code_location("jobs")
    job = location.get_repository("__repository__").get_full_job("long")
    pid_file = Path(os.environ["DAGSTER_HOME"], "pid")
    pid_file.unlink(missing_ok=True)
    run = create_run_for_test(
        instance,
        job_name="long",
        run_config={"ops": {"sleeps": {"config": {"pid_file": str(pid_file)}}}},
        remote_job_origin=job.get_remote_origin(),
        job_code_origin=job.get_python_origin(),
    )
    return run, pid_file


def read_status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    current_run = instance.get_run_by_id(run.run_id)
    assert current_run is not None
    return current_run.status


def test_run_of_a_killed_code_server_is_reported_at_the_next_start(
    instance: dg.DagsterInstance, tmp_path: Path, port: int
) -> None:
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="jobs")
    by_hand = create_run_for_test(instance, job_name="long", status=dg.DagsterRunStatus.STARTED)
    with run_code_server(tmp_path, port), WorkspaceProcessContext(instance, target) as context:
        run, _ = launch_long_run(instance, context)
        assert read_status(instance, run) == dg.DagsterRunStatus.STARTED
    # Dagster itself leaves it: its run monitoring does not work with this launcher.
    assert not instance.run_launcher.supports_check_run_worker_health
    assert read_status(instance, run) == dg.DagsterRunStatus.STARTED
    # The daemon restarts it as soon as it is reported, on the server that reports it.
    (tmp_path / "jobs.py").write_text(f"import time; time.sleep(4)\n{JOBS}")
    while_it_loads = []

    def is_up() -> bool:
        while_it_loads.append(read_status(instance, run))
        return is_answering(port)

    with run_code_server(tmp_path, port, is_up):
        until(lambda: read_status(instance, run) == dg.DagsterRunStatus.FAILURE, 120)
    assert set(while_it_loads) == {dg.DagsterRunStatus.STARTED}
    assert len(while_it_loads) > 1
    # `dagster job execute` is a process of its own, which may still be alive.
    assert read_status(instance, by_hand) == dg.DagsterRunStatus.STARTED
    assert find_lost_runs(instance) == []


def test_lost_runs_are_reported_however_long_the_definitions_take_to_load(
    instance: dg.DagsterInstance, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In seconds: no limit of this module ends the wait."""
    for name in ("START_SECONDS", "REPORT_SECONDS"):
        monkeypatch.setattr(code_server_module, name, 0.1, raising=False)
    lost = create_run_for_test(instance, job_name="long", status=dg.DagsterRunStatus.STARTED)
    arguments = (f"127.0.0.1:{port}", [lost.run_id])
    thread = threading.Thread(target=report_lost_runs, args=arguments, daemon=True)
    thread.start()
    time.sleep(0.5)
    server = grpc.server(ThreadPoolExecutor(1))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    thread.join(120)
    server.stop(None)
    assert read_status(instance, lost) == dg.DagsterRunStatus.FAILURE


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (["--host=0.0.0.0", "--port=4000", "--module-name=m"], "localhost:4000"),
        (["-h", "10.0.0.5", "-p", "4000", "-m", "m"], "10.0.0.5:4000"),
        (["--port", "4000", "-f", "x.py"], "localhost:4000"),
        (["--socket", "/run/x.sock", "-m", "m"], "unix:/run/x.sock"),
    ],
)
def test_address_comes_from_the_options(options: list[str], address: str) -> None:
    assert find_address(options) == address


def test_run_that_died_during_a_storage_outage_is_reported(
    instance: dg.DagsterInstance, tmp_path: Path, port: int
) -> None:
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="jobs")
    storage, moved_storage = tmp_path / "history", tmp_path / "away"
    with run_code_server(tmp_path, port):
        with WorkspaceProcessContext(instance, target) as context:
            run, process = launch_long_run(instance, context)
        storage.rename(moved_storage)
        storage.write_text("no folder")
        os.kill(process, signal.SIGKILL)
        # The server checks once a second, and fails.
        with pytest.raises(TimeoutError):
            until(lambda: not storage.is_file(), 4)
        storage.unlink()
        moved_storage.rename(storage)
        until(lambda: read_status(instance, run) == dg.DagsterRunStatus.FAILURE, 120)


def test_run_for_a_stopping_server_returns_to_the_queue(
    instance: dg.DagsterInstance, tmp_path: Path, port: int
) -> None:
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="jobs")
    with (
        run_code_server(tmp_path, port) as server,
        WorkspaceProcessContext(instance, target) as context,
    ):
        launch_long_run(instance, context)
        workspace = context.create_request_context()
        server.terminate()
        run, _ = create_long_run(instance, context)

        def rejected() -> BaseException | None:
            try:
                instance.run_launcher.launch_run(LaunchRunContext(run, workspace))
            except Exception as error:  # noqa: BLE001 - its type is what is tested
                return error
            return None

        # The daemon requeues a run for this type of error only; any other one ends the run.
        assert isinstance(until(rejected, 120), DagsterUserCodeUnreachableError)
        assert server.poll() is None
