"""The BigQuery emulator, seen from the supervisor: how it is spawned and when it is ready."""

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
# The second one is safe too: DuckDB replays its log of committed transactions.
STOP = (signal.SIGTERM, signal.SIGKILL)


def start_bigquery(
    home: StateDirectory, port: int | None, token: str, own: Callable[[Server], None]
) -> Server:
    """Spawn the emulator on `home`, on the remembered port when it is free. Does not wait."""
    server = _spawn_server(home, pick_free_port(port), token, own)
    own(server)
    return server


def _spawn_server(
    home: StateDirectory, port: int, token: str, own: Callable[[Server], None]
) -> Server:
    # Its settings are ours alone: BQEMU_* of a user's own emulator must not reach this one.
    environment = {name: it for name, it in os.environ.items() if not name.startswith("BQEMU_")}
    # Not an argument: those are for everybody to read.
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
        respawn=lambda: start_bigquery(home, None, token, own),
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
