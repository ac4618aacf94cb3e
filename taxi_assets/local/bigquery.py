"""Spawn the BigQuery emulator, and check that it is ready, for the supervisor."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

from taxi_assets.local.process import die_with_parent
from taxi_assets.local.server import Server, open_server_log, pick_free_port
from taxi_assets.local.state_directory import LOCAL_HOST, StateDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

NAME = "bigquery"
# The second signal is safe too: DuckDB replays its log of committed transactions.
STOP = (signal.SIGTERM, signal.SIGKILL)


def start_bigquery(
    home: StateDirectory, port: int | None, token: str, register: Callable[[Server], None]
) -> Server:
    """Spawn the emulator of `home`, on the remembered port if that is free, without waiting."""
    server = _spawn_server(home, pick_free_port(port), token, register)
    register(server)
    return server


def _spawn_server(
    home: StateDirectory, port: int, token: str, register: Callable[[Server], None]
) -> Server:
    # BQEMU_* variables of the user's own emulator must not configure this one.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("BQEMU_")
    }
    # Not an argument, because every user can read those.
    environment["BIGQUERY_TOKEN"] = token
    output = open_server_log(home.bigquery_log)
    process = subprocess.Popen(  # noqa: S603  our own module
        [sys.executable, "-P", "-m", "taxi_assets.local.bigquery_server", home.path, str(port)],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=environment,
        preexec_fn=die_with_parent(signal.SIGTERM),  # noqa: PLW1509  the supervisor has one thread
    )
    os.close(output)
    return Server(
        name=NAME,
        port=port,
        process=process,
        log=home.bigquery_log,
        is_ready=_is_ready,
        respawn=lambda: start_bigquery(home, None, token, register),
        stop_signal=STOP[0],
        kill_signal=STOP[1],
    )


def _is_ready(server: Server) -> bool:
    connection = http.client.HTTPConnection(LOCAL_HOST, server.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == http.HTTPStatus.OK
    except OSError:
        return False
    finally:
        connection.close()
