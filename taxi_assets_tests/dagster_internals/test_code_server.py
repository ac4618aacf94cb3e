"""The code server of docker-compose loses no run, whatever dies."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.launcher import LaunchRunContext
from dagster._core.test_utils import create_run_for_test
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import GrpcServerTarget

from taxi_assets.dagster_internals.code_server import find_address, find_lost_runs
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
def code_server(
    folder: Path, port: int, is_up: Callable[[], bool] | None = None
) -> Iterator[subprocess.Popen]:
    """A code server in a process group of its own; its runs are killed with it."""
    options = ["--host", "127.0.0.1", "--port", str(port), "-f", str(folder / "jobs.py")]
    process = subprocess.Popen(
        [sys.executable, "-m", "taxi_assets.dagster_internals.code_server", *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        until(is_up or (lambda: answers(port)), 60)
        yield process
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(port: int) -> bool:
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
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(
    instance: dg.DagsterInstance, context: WorkspaceProcessContext
) -> tuple[dg.DagsterRun, int]:
    """A run of the long job, and the id of its process."""
    run, pid_file = create(instance, context)
    instance.launch_run(run.run_id, context.create_request_context())
    until(lambda: pid_file.exists() and pid_file.read_text(), 60)
    return run, int(pid_file.read_text())


def create(
    instance: dg.DagsterInstance, context: WorkspaceProcessContext
) -> tuple[dg.DagsterRun, Path]:
    """A run of the long job that was not launched, and the file that its process will write."""
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


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_run_whose_code_server_was_killed_is_reported_when_it_starts_again(
    instance: dg.DagsterInstance, tmp_path: Path, port: int
) -> None:
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="jobs")
    by_hand = create_run_for_test(instance, job_name="long", status=dg.DagsterRunStatus.STARTED)
    with code_server(tmp_path, port), WorkspaceProcessContext(instance, target) as context:
        run, _ = launch(instance, context)
        assert status(instance, run) == dg.DagsterRunStatus.STARTED
    # Dagster itself leaves it so: its run monitoring cannot ask this launcher.
    assert not instance.run_launcher.supports_check_run_worker_health
    assert status(instance, run) == dg.DagsterRunStatus.STARTED
    # The daemon starts it again as soon as it is reported, by the server that reports it.
    (tmp_path / "jobs.py").write_text(f"import time; time.sleep(4)\n{JOBS}")
    while_it_loads = []

    def is_up() -> bool:
        while_it_loads.append(status(instance, run))
        return answers(port)

    with code_server(tmp_path, port, is_up):
        until(lambda: status(instance, run) == dg.DagsterRunStatus.FAILURE, 30)
    assert set(while_it_loads) == {dg.DagsterRunStatus.STARTED}
    assert len(while_it_loads) > 4
    # `dagster job execute` is a process of its own, which may well be alive.
    assert status(instance, by_hand) == dg.DagsterRunStatus.STARTED
    assert find_lost_runs(instance) == []


@pytest.mark.parametrize(
    ("options", "address"),
    [
        (["--host=0.0.0.0", "--port=4000", "--module-name=m"], "localhost:4000"),
        (["-h", "10.0.0.5", "-p", "4000", "-m", "m"], "10.0.0.5:4000"),
        (["--port", "4000", "-f", "x.py"], "localhost:4000"),
        (["--socket", "/run/x.sock", "-m", "m"], "unix:/run/x.sock"),
    ],
)
def test_the_address_is_that_of_the_options(options: list[str], address: str) -> None:
    assert find_address(options) == address


def test_a_run_that_died_while_the_storage_was_away_is_found_dead(
    instance: dg.DagsterInstance, tmp_path: Path, port: int
) -> None:
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="jobs")
    storage, away = tmp_path / "history", tmp_path / "away"
    with code_server(tmp_path, port):
        with WorkspaceProcessContext(instance, target) as context:
            run, process = launch(instance, context)
        storage.rename(away)
        storage.write_text("no folder")
        os.kill(process, signal.SIGKILL)
        # The server looks once a second, and fails.
        with pytest.raises(TimeoutError):
            until(lambda: not storage.is_file(), 4)
        storage.unlink()
        away.rename(storage)
        until(lambda: status(instance, run) == dg.DagsterRunStatus.FAILURE, 30)


def test_a_run_for_a_server_that_waits_for_its_last_run_goes_back_into_the_queue(
    instance: dg.DagsterInstance, tmp_path: Path, port: int
) -> None:
    target = GrpcServerTarget(host="127.0.0.1", port=port, socket=None, location_name="jobs")
    with (
        code_server(tmp_path, port) as server,
        WorkspaceProcessContext(instance, target) as context,
    ):
        launch(instance, context)
        workspace = context.create_request_context()
        server.terminate()
        run, _ = create(instance, context)

        def rejected() -> BaseException | None:
            try:
                instance.run_launcher.launch_run(LaunchRunContext(run, workspace))
            except Exception as error:  # noqa: BLE001 - its type is what is tested
                return error
            return None

        # The one type of error by which the daemon puts a run back; any other one ends it.
        assert isinstance(until(rejected, 30), DagsterUserCodeUnreachableError)
        assert server.poll() is None
