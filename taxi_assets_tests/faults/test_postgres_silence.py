"""Postgres that stops answering with its connections open: a halted process, a lost network."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from datetime import date
from pathlib import Path

import psycopg
import pytest
from dagster import DagsterInstance, DagsterRunStatus

from taxi_assets.defs.jobs.sql_query import SqlQueryConfig, query_postgres
from taxi_assets.defs.resources.lake import Lake
from taxi_assets.defs.resources.postgres import PostgresResource
from taxi_assets.errors import StoreError, UnavailableError
from taxi_assets.local.process import wait_until
from taxi_assets.local.state_directory import StateDirectory
from taxi_assets_tests import stores
from taxi_assets_tests.defs.io_managers.test_postgres import (
    Log,
    lake,
    make_stored_day,
    read_totals,
    schema,
    store_days_in_postgres,
)
from taxi_assets_tests.fault_proxy import Cut, TcpProxy, tcp_proxy
from taxi_assets_tests.processes import start_job

__all__ = ["lake", "schema"]
DAY = date(2021, 1, 5)
OTHER_DAY = date(2021, 1, 6)
"""A day of so many rows that a rewrite of `DAY` deletes and does not swap the partition."""
LIMIT_SECONDS = 3
"""POSTGRES_TIMEOUT in seconds."""


@pytest.fixture
def proxy(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpProxy]:
    """Put the embedded Postgres behind a proxy that sees each statement."""
    server = stores.settings()
    with tcp_proxy(server["POSTGRES_HOST"], int(server["POSTGRES_PORT"])) as proxy:
        for name, value in (server | {"POSTGRES_PORT": str(proxy.port)}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("POSTGRES_TIMEOUT", "120")
        yield proxy


class Halted:
    """Halted server processes, which resume at the end of the test."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def halt(self, *_: object) -> None:
        """Halt the process that serves our connection, not one whose connection has just ended."""
        with closing(psycopg.connect(**stores.postgres_arguments())) as connection:
            pids = connection.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE application_name = 'taxi_assets' AND pid <> ALL(%s)"
                " ORDER BY state = 'idle', backend_start DESC",
                [self.pids],
            ).fetchall()
        assert pids
        self.stop(pids[0][0])

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.pids.append(pid)

    def resume(self) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def halted() -> Iterator[Halted]:
    processes = Halted()
    yield processes
    processes.resume()


def measure_seconds(act: Callable[[], object]) -> float:
    started = time.monotonic()
    act()
    return time.monotonic() - started


def count_sessions() -> int:
    with closing(psycopg.connect(**stores.postgres_arguments())) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'taxi_assets%'"
        row = connection.execute(query).fetchone()
        assert row
        return int(row[0])


def act_after(proxy: TcpProxy, after: bytes, act: Callable[[], object], count: int = 0) -> None:
    """Act once the next connection has sent that much; the last one may still be ending.

    The limit is short from now on: before, a busy machine may take as long as a halted process.
    """
    assert wait_until(lambda: count_sessions() == 0, 60)
    os.environ["POSTGRES_TIMEOUT"] = str(LIMIT_SECONDS)  # the fixture restores it
    proxy.cuts = [Cut(after, count, act)]


PHASES = {
    "DELETE": (rb"DELETE FROM", 0),
    "COPY": (rb"COPY", 100_000),
    "COMMIT": (rb"COPY.*COMMIT", 0),
}


@pytest.mark.parametrize("phase", PHASES)
def test_halted_server_process_is_abandoned_and_the_day_stays_complete(
    phase: str, proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    if phase == "DELETE":
        store_days_in_postgres(make_stored_day(lake, OTHER_DAY, 30_000), names=[OTHER_DAY])
    store_days_in_postgres(make_stored_day(lake, DAY, 20_000), names=[DAY])
    after, count = PHASES[phase]
    act_after(proxy, after, halted.halt, count)

    def rewrite() -> None:
        with pytest.raises(UnavailableError, match=r"(makes no progress|does not answer) for 3 s"):
            store_days_in_postgres(make_stored_day(lake, DAY, 20_000, 2.0), names=[DAY])

    assert LIMIT_SECONDS <= measure_seconds(rewrite) < LIMIT_SECONDS + 60
    assert not proxy.cuts
    # It was terminated and ends as soon as it can; it may complete a commit.
    halted.resume()
    os.environ["POSTGRES_TIMEOUT"] = "120"
    assert wait_until(lambda: count_sessions() == 0, 60)
    possible_totals = (20_000.0, 40_000.0) if phase == "COMMIT" else (20_000.0,)
    assert read_totals([DAY], schema)[DAY] in [(20_000, amount) for amount in possible_totals]
    store_days_in_postgres(make_stored_day(lake, DAY, 20_000, 3.0), names=[DAY])
    assert read_totals([DAY], schema) == {DAY: (20_000, 60_000.0)}


def test_server_process_halted_in_maintenance_does_not_fail_the_committed_day(
    proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    store_days_in_postgres(make_stored_day(lake, OTHER_DAY, 200), names=[OTHER_DAY])
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    act_after(proxy, rb"VACUUM", halted.halt)
    log = Log()
    assert (
        measure_seconds(
            lambda: store_days_in_postgres(
                make_stored_day(lake, DAY, 100, 2.0), names=[DAY], log=log
            )
        )
        < LIMIT_SECONDS + 60
    )
    assert not proxy.cuts
    assert "has its rows, but VACUUM or its index failed (UnavailableError" in log.warnings[0]
    assert read_totals([DAY], schema) == {DAY: (100, 200.0)}


def test_connection_lost_in_maintenance_does_not_fail_the_committed_day(
    proxy: TcpProxy, schema: str, lake: Lake
) -> None:
    store_days_in_postgres(make_stored_day(lake, OTHER_DAY, 200), names=[OTHER_DAY])
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    assert wait_until(lambda: count_sessions() == 0, 60)
    proxy.cuts = [Cut(rb"VACUUM", lose_answer=True)]
    log = Log()
    store_days_in_postgres(make_stored_day(lake, DAY, 100, 2.0), names=[DAY], log=log)
    assert not proxy.cuts
    assert "has its rows, but VACUUM or its index failed" in log.warnings[0]
    assert read_totals([DAY], schema) == {DAY: (100, 200.0)}


def test_read_from_a_halted_server_process_is_abandoned(
    proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    act_after(proxy, rb"GROUP BY", halted.halt)
    with pytest.raises(UnavailableError, match="makes no progress"):
        read_totals([DAY], schema)


def test_retry_names_the_holder_of_the_lock(
    proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 20_000), names=[DAY])
    act_after(proxy, rb"COPY", halted.halt, 100_000)
    for pattern in (
        r"makes no progress",
        r"makes process \d+ wait for a lock of pid \d+ \(taxi_assets,",
    ):
        with pytest.raises(UnavailableError, match=pattern):
            store_days_in_postgres(make_stored_day(lake, DAY, 20_000, 2.0), names=[DAY])


def test_server_that_accepts_and_never_answers_is_abandoned(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("POSTGRES_PORT", str(silent.getsockname()[1]))
        monkeypatch.setenv("POSTGRES_CONNECT_TIMEOUT", "2")

        def connect() -> None:
            with (
                pytest.raises(UnavailableError, match=r"cannot be reached .*timeout expired"),
                PostgresResource().connect(),
            ):
                pass

        assert measure_seconds(connect) < 10


def test_halted_postmaster_is_abandoned(
    proxy: TcpProxy, halted: Halted, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTGRES_CONNECT_TIMEOUT", "2")
    record = StateDirectory(home / "taxi").record()
    halted.stop(record.servers["postgres"].pid)

    def connect() -> None:
        with (
            pytest.raises(UnavailableError, match="cannot be reached"),
            PostgresResource().connect(),
        ):
            pass

    assert measure_seconds(connect) < 10


def test_network_lost_during_a_copy(proxy: TcpProxy, schema: str, lake: Lake) -> None:
    store_days_in_postgres(make_stored_day(lake, DAY, 100), names=[DAY])
    swallowed = threading.Event()

    def swallow() -> None:
        proxy.upstream = ("127.0.0.1", 1)  # a second connection does not get through either
        swallowed.wait()

    act_after(proxy, rb"COPY", swallow, 100_000)
    try:
        with pytest.raises(UnavailableError, match=r"does not answer for 3 s"):
            store_days_in_postgres(make_stored_day(lake, DAY, 60_000, 2.0), names=[DAY])
    finally:
        swallowed.set()


def test_slow_live_statement_is_awaited(proxy: TcpProxy) -> None:
    """It sends no byte for several times the limit, with work of two kinds."""
    with PostgresResource().connect() as connection:
        connection.silence_limit = 0.5
        rows = "SELECT n, md5(n::text) AS t FROM generate_series(1, 3000000) n"
        connection.execute(f"CREATE TABLE slow AS {rows}")
        assert measure_seconds(lambda: connection.execute("CREATE INDEX ON slow (t)")) > 1
        connection.rollback()


def test_time_in_which_the_client_does_not_run_is_no_silence(proxy: TcpProxy) -> None:
    """A paused container, or a process that gets no processor: the server is not to blame."""
    resume = f"sleep 0.5; kill -STOP {os.getpid()}; sleep 4.5; kill -CONT {os.getpid()}"
    with PostgresResource().connect() as connection:
        connection.silence_limit = 4
        with subprocess.Popen(["/bin/sh", "-c", resume]):
            assert measure_seconds(lambda: connection.execute("SELECT pg_sleep(6)")) >= 5
        connection.silence_limit = 1
        with pytest.raises(UnavailableError, match="for 1 s"):
            connection.execute("SELECT pg_sleep(600)")


def test_sql_query_ends_within_its_limit(
    proxy: TcpProxy, halted: Halted, monkeypatch: pytest.MonkeyPatch
) -> None:
    act_after(proxy, rb"DECLARE", halted.halt)
    started = time.monotonic()
    with pytest.raises((StoreError, UnavailableError)):
        query_postgres(PostgresResource(), SqlQueryConfig(query="SELECT 1", timeout_seconds=1))
    assert time.monotonic() - started < 60


@pytest.mark.usefixtures("empty_stores")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_run_is_cancelled_while_its_server_process_is_halted(
    how: signal.Signals,
    proxy: TcpProxy,
    halted: Halted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reached = threading.Event()

    def halt() -> None:
        halted.halt()
        reached.set()

    act_after(proxy, rb"COPY", halt, 10_000)
    monkeypatch.setenv("POSTGRES_TIMEOUT", "300")
    log = tmp_path / "run.log"
    run = start_job("green", "2021-01-05", "2021-01-05", log)
    try:
        assert reached.wait(300), log.read_text()
        assert run.pid
        os.kill(run.pid, how)
        run.join(10)  # 2.4 s, of which the request to the halted process takes 2
        assert run.exitcode is not None, log.read_text()
        (cancelled,) = DagsterInstance.get().get_runs(limit=1)
        assert cancelled.status in (DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)
    finally:
        run.kill()
