"""Postgres that answers no more without closing a connection: a halted process, a lost network."""

from __future__ import annotations

import os
import signal
import socket
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
from taxi_assets_tests.defs.io_managers.test_postgres import Log, a_day, lake, schema, store, totals
from taxi_assets_tests.fault_proxy import Cut, TcpProxy, tcp_proxy
from taxi_assets_tests.processes import start_job

__all__ = ["lake", "schema"]
DAY = date(2021, 1, 5)
OTHER = date(2021, 1, 6)
"""A day of so many rows that a rewrite of `DAY` deletes and does not swap the partition."""
LIMIT = 3
"""POSTGRES_TIMEOUT in seconds."""


@pytest.fixture
def proxy(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TcpProxy]:
    """The embedded Postgres behind a proxy that sees each statement, and a short patience."""
    server = stores.settings()
    with tcp_proxy(server["POSTGRES_HOST"], int(server["POSTGRES_PORT"])) as proxy:
        for name, value in (server | {"POSTGRES_PORT": str(proxy.port)}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("POSTGRES_TIMEOUT", str(LIMIT))
        monkeypatch.setenv("POSTGRES_CONNECT_TIMEOUT", "2")
        yield proxy


class Halted:
    """Server processes that were stopped, to be resumed at the test's end."""

    def __init__(self) -> None:
        self.pids: list[int] = []

    def halt(self, *_: object) -> None:
        """Stop the process that serves our connection."""
        with closing(psycopg.connect(**stores.postgres_arguments())) as connection:
            found = connection.execute(
                "SELECT pid FROM pg_stat_activity"
                " WHERE application_name = 'taxi_assets' AND pid <> ALL(%s)",
                [self.pids],
            ).fetchall()
        assert len(found) == 1
        self.stop(found[0][0])

    def stop(self, pid: int) -> None:
        os.kill(pid, signal.SIGSTOP)
        self.pids.append(pid)

    def resume(self) -> None:
        for pid in self.pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


@pytest.fixture
def halted() -> Iterator[Halted]:
    found = Halted()
    yield found
    found.resume()


def seconds(act: Callable[[], object]) -> float:
    began = time.monotonic()
    act()
    return time.monotonic() - began


def sessions() -> int:
    with closing(psycopg.connect(**stores.postgres_arguments())) as connection:
        query = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'taxi_assets%'"
        row = connection.execute(query).fetchone()
        assert row
        return int(row[0])


def disturb(proxy: TcpProxy, after: bytes, act: Callable[[], object], count: int = 0) -> None:
    """Act once, when the next connection has sent that much; the last one may still be ending."""
    assert wait_until(lambda: sessions() == 0, 10)
    proxy.cuts = [Cut(after, count, act)]


PHASES = {
    "DELETE": (rb"DELETE FROM", 0),
    "COPY": (rb"COPY", 100_000),
    "COMMIT": (rb"COPY.*COMMIT", 0),
}


@pytest.mark.parametrize("phase", PHASES)
def test_a_halted_server_process_is_given_up_and_the_day_stays_whole(
    phase: str, proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    if phase == "DELETE":
        store(a_day(lake, OTHER, 30_000), names=[OTHER])
    store(a_day(lake, DAY, 20_000), names=[DAY])
    after, count = PHASES[phase]
    disturb(proxy, after, halted.halt, count)

    def rewrite() -> None:
        with pytest.raises(UnavailableError, match=r"(makes no progress|does not answer) for 3 s"):
            store(a_day(lake, DAY, 20_000, 2.0), names=[DAY])

    assert LIMIT <= seconds(rewrite) < LIMIT + 20
    assert not proxy.cuts
    # It was told to end, and does so as soon as it can; what it was committing it may commit.
    halted.resume()
    assert wait_until(lambda: sessions() == 0, 10)
    kept = (20_000.0, 40_000.0) if phase == "COMMIT" else (20_000.0,)
    assert totals([DAY], schema)[DAY] in [(20_000, amount) for amount in kept]
    store(a_day(lake, DAY, 20_000, 3.0), names=[DAY])
    assert totals([DAY], schema) == {DAY: (20_000, 60_000.0)}


def test_a_server_process_halted_in_the_upkeep_does_not_fail_what_was_committed(
    proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    store(a_day(lake, OTHER, 200), names=[OTHER])
    store(a_day(lake, DAY, 100), names=[DAY])
    disturb(proxy, rb"VACUUM", halted.halt)
    log = Log()
    assert seconds(lambda: store(a_day(lake, DAY, 100, 2.0), names=[DAY], log=log)) < LIMIT + 20
    assert not proxy.cuts
    assert "has its rows, but VACUUM or its index failed (UnavailableError" in log.warnings[0]
    assert totals([DAY], schema) == {DAY: (100, 200.0)}


def test_a_connection_lost_in_the_upkeep_does_not_fail_what_was_committed(
    proxy: TcpProxy, schema: str, lake: Lake
) -> None:
    store(a_day(lake, OTHER, 200), names=[OTHER])
    store(a_day(lake, DAY, 100), names=[DAY])
    assert wait_until(lambda: sessions() == 0, 10)
    proxy.cuts = [Cut(rb"VACUUM", lose_answer=True)]
    log = Log()
    store(a_day(lake, DAY, 100, 2.0), names=[DAY], log=log)
    assert not proxy.cuts
    assert "has its rows, but VACUUM or its index failed" in log.warnings[0]
    assert totals([DAY], schema) == {DAY: (100, 200.0)}


def test_a_read_of_a_halted_server_process_is_given_up(
    proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    store(a_day(lake, DAY, 100), names=[DAY])
    disturb(proxy, rb"GROUP BY", halted.halt)
    with pytest.raises(UnavailableError, match="makes no progress"):
        totals([DAY], schema)


def test_a_retry_names_who_holds_the_lock(
    proxy: TcpProxy, schema: str, lake: Lake, halted: Halted
) -> None:
    store(a_day(lake, DAY, 20_000), names=[DAY])
    disturb(proxy, rb"COPY", halted.halt, 100_000)
    for said in (
        r"makes no progress",
        r"makes process \d+ wait for a lock of pid \d+ \(taxi_assets,",
    ):
        with pytest.raises(UnavailableError, match=said):
            store(a_day(lake, DAY, 20_000, 2.0), names=[DAY])


def test_a_server_that_accepts_and_never_answers(
    proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("POSTGRES_PORT", str(silent.getsockname()[1]))

        def connect() -> None:
            with (
                pytest.raises(UnavailableError, match=r"cannot be reached .*timeout expired"),
                PostgresResource().connect(),
            ):
                pass

        assert seconds(connect) < 10


def test_a_halted_postmaster(proxy: TcpProxy, halted: Halted, home: Path) -> None:
    record = StateDirectory(home / "taxi").record()
    assert record
    halted.stop(record.servers["postgres"].pid)

    def connect() -> None:
        with (
            pytest.raises(UnavailableError, match="cannot be reached"),
            PostgresResource().connect(),
        ):
            pass

    assert seconds(connect) < 10


def test_a_network_that_swallows_everything_from_the_middle_of_a_copy(
    proxy: TcpProxy, schema: str, lake: Lake
) -> None:
    store(a_day(lake, DAY, 100), names=[DAY])
    swallowed = threading.Event()

    def swallow() -> None:
        proxy.upstream = ("127.0.0.1", 1)  # nor does a second connection get through
        swallowed.wait()

    disturb(proxy, rb"COPY", swallow, 100_000)
    try:
        with pytest.raises(UnavailableError, match=r"does not answer for 3 s"):
            store(a_day(lake, DAY, 60_000, 2.0), names=[DAY])
    finally:
        swallowed.set()


def test_a_slow_statement_that_lives_is_waited_for(proxy: TcpProxy) -> None:
    """Past the limit without a byte, several times over, with work of two kinds."""
    with PostgresResource().connect() as connection:
        connection.silence_limit = 0.5
        rows = "SELECT n, md5(n::text) AS t FROM generate_series(1, 3000000) n"
        connection.execute(f"CREATE TABLE slow AS {rows}")
        assert seconds(lambda: connection.execute("CREATE INDEX ON slow (t)")) > 1
        connection.rollback()


def test_sql_query_ends_in_its_time(
    proxy: TcpProxy, halted: Halted, monkeypatch: pytest.MonkeyPatch
) -> None:
    disturb(proxy, rb"DECLARE", halted.halt)
    began = time.monotonic()
    with pytest.raises((StoreError, UnavailableError)):
        query_postgres(PostgresResource(), SqlQueryConfig(query="SELECT 1", timeout_seconds=1))
    assert time.monotonic() - began < 12


@pytest.mark.usefixtures("empty_stores")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_run_is_cancelled_while_its_server_process_is_halted(
    how: signal.Signals,
    proxy: TcpProxy,
    halted: Halted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("POSTGRES_TIMEOUT", "300")
    reached = threading.Event()

    def halt() -> None:
        halted.halt()
        reached.set()

    disturb(proxy, rb"COPY", halt, 10_000)
    log = tmp_path / "run.log"
    run = start_job("green", "2021-01-05", "2021-01-05", log)
    try:
        assert reached.wait(100), log.read_text()
        assert run.pid
        os.kill(run.pid, how)
        run.join(10)  # 2.4 s, of which the request to the halted process takes 2
        assert run.exitcode is not None, log.read_text()
        (cancelled,) = DagsterInstance.get().get_runs(limit=1)
        assert cancelled.status in (DagsterRunStatus.CANCELED, DagsterRunStatus.FAILURE)
    finally:
        run.kill()
