"""Postgres with broken connections, and with restarts during writes."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import psycopg2
import pytest

from taxi_assets.local import postgres
from taxi_assets.local.process import wait_until
from taxi_assets.local.server import pick_free_port
from taxi_assets.local.state_directory import DBNAME, LOCAL_HOST, USER, Config, StateDirectory
from taxi_assets_tests import stores
from taxi_assets_tests.fault_proxy import Cut, TcpProxy, tcp_proxy
from taxi_assets_tests.faults.conftest import Steps, assert_stores_hold

PASSWORD = "secret"  # noqa: S105 - of a server that lives as long as a test
Rows = Mapping[str, pd.DataFrame]
Use = Callable[[TcpProxy, dict[str, object]], None]


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return a function that puts a proxy between the project and Postgres."""

    def use(proxy: TcpProxy, server: dict[str, object]) -> None:
        for name, value in {**server, "host": LOCAL_HOST, "port": proxy.port}.items():
            monkeypatch.setenv(f"POSTGRES_{name.upper()}", str(value))

    return use


def test_broken_connection_is_reopened(use: Use, undisturbed: Rows) -> None:
    server = stores.postgres_arguments()
    with tcp_proxy(str(server["host"]), int(server["port"])) as proxy:
        use(proxy, server)
        proxy.cuts = [
            Cut(b"COPY", 10_000),
            Cut(b"COPY.*COMMIT", lose_answer=True),
        ]
        assert Steps().succeeds("postgres_trips") == 2
        assert not proxy.cuts
    assert_stores_hold(undisturbed)


@dataclass
class Server:
    """A PostgreSQL server for one test."""

    cluster: postgres.Cluster
    port: int = field(default_factory=lambda: pick_free_port(None))
    process: subprocess.Popen[bytes] | None = None

    @property
    def arguments(self) -> dict[str, object]:
        return {
            "host": LOCAL_HOST,
            "port": self.port,
            "dbname": DBNAME,
            "user": USER,
            "password": PASSWORD,
        }

    def start(self) -> None:
        """Start, and wait until the server accepts connections."""
        database, account = self.cluster.database, self.cluster.account
        command = [self.cluster.programs / "postgres", "-D", database, "-p", str(self.port)]
        self.process = subprocess.Popen(
            [*command, "-c", f"listen_addresses={LOCAL_HOST}", "-c", "unix_socket_directories="],
            stderr=subprocess.DEVNULL,
            cwd="/",
            **account.options,
        )
        assert wait_until(self.answers, 60)

    def stop(self, how: signal.Signals) -> None:
        """Stop like `pg_ctl stop`: SIGINT is its mode fast, SIGQUIT immediate."""
        assert self.process
        self.process.send_signal(how)
        self.process.wait()

    def answers(self) -> bool:
        try:
            psycopg2.connect(**self.arguments).close()
        except psycopg2.OperationalError:
            return False
        return True

    def rows(self) -> tuple[int, float]:
        """Return the number of trips and the sum of their amounts."""
        connection = psycopg2.connect(**self.arguments)
        with connection, connection.cursor() as cursor:
            cursor.execute("SELECT count(*), sum(total_amount) FROM ny_taxi.yellow_cab_data")
            row = cursor.fetchone()
        connection.close()
        return row


@pytest.fixture
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory(prefix="taxi-") as folder:
        Path(folder).chmod(0o755)
        home = StateDirectory(Path(folder))
        home.make()
        server = Server(postgres._open_cluster(home, Config()))
        postgres._initialize_cluster(server.cluster, PASSWORD, PASSWORD)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)


def test_server_restarted_during_a_copy(
    server: Server, use: Use, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_RETRY_DELAY", "1")  # it rejects connections while it starts up
    expected_rows = undisturbed["postgres"]
    expected = (len(expected_rows), pytest.approx(expected_rows["total_amount"].sum()))
    with tcp_proxy(LOCAL_HOST, server.port) as proxy:
        use(proxy, server.arguments)
        # Into a table created in the transaction, then over a stored day.
        for how in (signal.SIGINT, signal.SIGQUIT):

            def restart(how: signal.Signals = how) -> None:
                server.stop(how)
                server.start()

            proxy.cuts = [Cut(b"COPY", 10_000, restart)]
            assert Steps().succeeds("postgres_trips") >= 1
            assert not proxy.cuts
            assert server.rows() == expected


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_embedded_server_killed_during_a_write_is_restarted(
    how: signal.Signals, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TAXI_RETRY_DELAY", "1")  # it rejects connections while it shuts down
    blocker = psycopg2.connect(**stores.postgres_arguments())
    with blocker.cursor() as cursor:
        cursor.execute("SHOW data_directory")
        folder = Path(cursor.fetchone()[0])
        cursor.execute("LOCK TABLE ny_taxi.yellow_cab_data IN SHARE MODE")

        def kill() -> None:
            assert wait_until(waiting, 60)
            pid = int((folder / "postmaster.pid").read_text().split()[0])
            os.kill(pid, how)

        def waiting() -> bool:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            return cursor.fetchone() == (1,)

        killer = threading.Thread(target=kill)
        killer.start()
        assert Steps().succeeds("postgres_trips") >= 1
        killer.join()
    blocker.close()
    assert_stores_hold(undisturbed)
